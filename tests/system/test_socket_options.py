from __future__ import annotations

import socket

import pytest

from s2frames.system import socket_options
from s2frames.system.socket_options import UNSENT_BYTES, bound_unsent, quick_acks


class Recorder:
    """A socket that keeps what it is told."""

    def __init__(self, error: OSError | None = None) -> None:
        self.calls: list[tuple[int, int, int]] = []
        self.error = error

    def setsockopt(self, level: int, option: int, value: int, /) -> None:
        self.calls.append((level, option, value))
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, OSError("not TCP")])
def test_the_option_is_set_each_time(
    monkeypatch: pytest.MonkeyPatch, error: OSError | None
) -> None:
    monkeypatch.setattr(socket_options, "_QUICK_ACK", 12)
    recorder = Recorder(error)
    ack_quickly = quick_acks(recorder)
    assert recorder.calls == []
    for _ in range(2):
        ack_quickly()
    assert recorder.calls == [(socket.IPPROTO_TCP, 12, 1)] * 2


def test_where_there_is_no_option_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_options, "_QUICK_ACK", None)
    recorder = Recorder()
    quick_acks(recorder)()
    assert recorder.calls == []


def test_a_closed_socket_is_no_matter() -> None:
    with socket.socket() as tcp:
        ack_quickly = quick_acks(tcp)
    ack_quickly()


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="the system has no quick acks")
def test_linux_takes_the_option() -> None:
    option = socket.TCP_QUICKACK
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as tcp,
    ):
        tcp.setsockopt(socket.IPPROTO_TCP, option, 0)
        assert tcp.getsockopt(socket.IPPROTO_TCP, option) == 0
        quick_acks(tcp)()
        assert tcp.getsockopt(socket.IPPROTO_TCP, option) == 1


def test_the_bound_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_options, "_NOT_SENT", 25)
    recorder = Recorder()
    bound_unsent(recorder)
    assert recorder.calls == [(socket.IPPROTO_TCP, 25, UNSENT_BYTES)]


def test_a_socket_that_takes_no_bound_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_options, "_NOT_SENT", 25)
    recorder = Recorder(OSError("no such option"))
    bound_unsent(recorder)
    assert len(recorder.calls) == 1


def test_a_system_without_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_options, "_NOT_SENT", None)
    recorder = Recorder()
    bound_unsent(recorder)
    assert recorder.calls == []


@pytest.mark.skipif(not hasattr(socket, "TCP_NOTSENT_LOWAT"), reason="the system has no such bound")
def test_the_system_takes_the_bound() -> None:
    with socket.socket() as tcp:
        bound_unsent(tcp)
        option = socket.TCP_NOTSENT_LOWAT
        assert tcp.getsockopt(socket.IPPROTO_TCP, option) == UNSENT_BYTES
