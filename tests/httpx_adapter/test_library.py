from __future__ import annotations

import httpcore

from s2frames_httpx import library


def test_it_is_the_library_that_httpx_stands_on() -> None:
    assert library.httpcore is httpcore
