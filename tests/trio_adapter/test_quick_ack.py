from __future__ import annotations

import socket

import pytest
import trio
import trio.testing

from s2frames.system import socket_options
from s2frames_trio.quick_ack import quick_acks


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


async def tcp_stream() -> tuple[trio.SocketStream, trio.SocketListener]:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    host, port = listener.socket.getsockname()
    return await trio.open_tcp_stream(host, port), listener


@pytest.mark.usefixtures("real_clock")
@pytest.mark.parametrize("is_tls", [False, True])
async def test_the_option_is_set_on_tcp(monkeypatch: pytest.MonkeyPatch, is_tls: bool) -> None:
    import ssl

    monkeypatch.setattr(socket_options, "_QUICK_ACK", 12)
    tcp, listener = await tcp_stream()
    async with tcp, listener:
        recorder = Recorder()
        real, tcp.socket = tcp.socket, recorder  # type: ignore[assignment]
        stream: trio.abc.Stream = tcp
        if is_tls:
            stream = trio.SSLStream(tcp, ssl.create_default_context(), server_hostname="x")
        ack_quickly = quick_acks(stream)
        assert recorder.calls == []
        for _ in range(2):
            ack_quickly()
        tcp.socket = real
    assert recorder.calls == [(socket.IPPROTO_TCP, 12, 1)] * 2


@pytest.mark.usefixtures("real_clock")
async def test_a_closed_socket_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_options, "_QUICK_ACK", 12)
    tcp, listener = await tcp_stream()
    ack_quickly = quick_acks(tcp)
    await tcp.aclose()
    await listener.aclose()
    ack_quickly()


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="the system has no quick acks")
@pytest.mark.usefixtures("real_clock")
async def test_linux_takes_the_option() -> None:
    option = socket.TCP_QUICKACK
    tcp, listener = await tcp_stream()
    async with tcp, listener:
        tcp.setsockopt(socket.IPPROTO_TCP, option, 0)
        assert tcp.getsockopt(socket.IPPROTO_TCP, option) == 0
        quick_acks(tcp)()
        assert tcp.getsockopt(socket.IPPROTO_TCP, option) == 1


@pytest.mark.usefixtures("real_clock")
async def test_where_there_is_no_option_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket_options, "_QUICK_ACK", None)
    tcp, listener = await tcp_stream()
    async with tcp, listener:
        recorder = Recorder()
        real, tcp.socket = tcp.socket, recorder  # type: ignore[assignment]
        quick_acks(tcp)()
        tcp.socket = real
    assert recorder.calls == []


async def test_other_streams_have_no_option() -> None:
    stream, _ = trio.testing.memory_stream_pair()
    quick_acks(stream)()
