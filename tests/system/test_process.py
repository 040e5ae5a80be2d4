from __future__ import annotations

import os

from forking import in_copy, may_fork
from s2frames.system.process import THIS_PROCESS

pytestmark = may_fork


def test_it_is_this_process_and_in_a_copy_that_one() -> None:
    assert os.getpid() == THIS_PROCESS.number
    assert in_copy(lambda: THIS_PROCESS.number == os.getpid() != os.getppid()) == "True"
    assert in_copy(lambda: in_copy(lambda: THIS_PROCESS.number == os.getpid())) == "True"
    assert os.getpid() == THIS_PROCESS.number
