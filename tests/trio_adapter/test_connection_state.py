from __future__ import annotations

import itertools

import pytest

from s2frames_trio.connection_state import TRANSITIONS, ConnectionInput, ConnectionState

ALL = list(itertools.product(ConnectionState, ConnectionInput))


@pytest.mark.parametrize(("state", "happened"), ALL)
def test_every_pair_has_its_place(state: ConnectionState, happened: ConnectionInput) -> None:
    if state is ConnectionState.LOST:
        assert (state, happened) not in TRANSITIONS
    else:
        assert TRANSITIONS[state, happened].value >= state.value


@pytest.mark.parametrize("state", set(ConnectionState) - {ConnectionState.LOST})
def test_everything_can_be_lost(state: ConnectionState) -> None:
    assert TRANSITIONS[state, ConnectionInput.LOSE] is ConnectionState.LOST
