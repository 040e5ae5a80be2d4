from __future__ import annotations

import socket

import pytest

from s2frames.sockets import unsent
from s2frames.sockets.unsent import UNSENT_BYTES, bound_unsent


class Recorder:
    """A socket that keeps what it is told."""

    def __init__(self, error: OSError | None = None) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.error = error

    def setsockopt(self, *call: int) -> None:
        level, option, value = call
        self.calls.append((level, option, value))
        if self.error is not None:
            raise self.error


def test_the_option_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsent, "_OPTION", 25)
    recorder = Recorder()
    bound_unsent(recorder)
    assert recorder.calls == [(socket.IPPROTO_TCP, 25, UNSENT_BYTES)]


def test_a_socket_that_does_not_take_it_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsent, "_OPTION", 25)
    recorder = Recorder(OSError("no such option"))
    bound_unsent(recorder)
    assert len(recorder.calls) == 1


def test_a_system_without_the_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsent, "_OPTION", None)
    recorder = Recorder()
    bound_unsent(recorder)
    assert recorder.calls == []


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="the system has no such bound")
def test_the_system_takes_it() -> None:
    with socket.socket() as tcp:
        bound_unsent(tcp)
        option = socket.TCP_NOTSENT_LOWAT
        assert tcp.getsockopt(socket.IPPROTO_TCP, option) == UNSENT_BYTES
