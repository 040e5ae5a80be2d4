from __future__ import annotations

import socket

import pytest

from s2frames.sockets import options
from s2frames.sockets.options import quick_acks


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
    monkeypatch.setattr(options, "_QUICK_ACK", 12)
    recorder = Recorder(error)
    ack_quickly = quick_acks(recorder)
    assert recorder.calls == []
    for _ in range(2):
        ack_quickly()
    assert recorder.calls == [(socket.IPPROTO_TCP, 12, 1)] * 2


def test_where_there_is_no_option_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "_QUICK_ACK", None)
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
