"""That the tests of this folder run everywhere they can."""

from __future__ import annotations

import pytest

from s2_lite import MISSING, find_binary
from scenes import EVERY_SCENE, PLACES, Flavour, Place


# Without the binary this one test is skipped for all that would use it.
@pytest.mark.skipif(find_binary() is None, reason=MISSING)
def test_every_flavour_meets_every_place() -> None:
    assert list(Place) == PLACES
    assert {(scene.flavour, scene.place) for scene in EVERY_SCENE} == {
        (flavour, place) for flavour in Flavour for place in Place
    }
