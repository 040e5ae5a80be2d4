from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
import trustme

from s2frames_trio.tls import TlsStream
from trio_adapter.peers import CancelAt


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def contexts(authority: trustme.CA) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The client's and the server's."""
    client = ssl.create_default_context()
    authority.configure_trust(client)
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("peer").configure_cert(server)
    return client, server


@asynccontextmanager
async def shaken(
    authority: trustme.CA, *, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3
) -> AsyncIterator[tuple[TlsStream, trio.SSLStream[trio.abc.Stream], trio.abc.Stream]]:
    """Both sides after the handshake, and the transport under the server's."""
    client, server = contexts(authority)
    client.maximum_version = newest
    ours, theirs = trio.testing.memory_stream_pair()
    tls = TlsStream(ours, client, "peer")
    peer: trio.SSLStream[trio.abc.Stream] = trio.SSLStream(theirs, server, server_side=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tls.do_handshake)
        nursery.start_soon(peer.do_handshake)
    yield tls, peer, theirs


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("newest", VERSIONS)
async def test_both_directions_at_once(authority: trustme.CA, newest: ssl.TLSVersion) -> None:
    sizes = [1, 0, 5, 16_384, 16_385, 300_000, 3]
    async with shaken(authority, newest=newest) as (tls, peer, _):
        received: dict[str, bytearray] = {"tls": bytearray(), "peer": bytearray()}

        async def send(stream: trio.abc.Stream) -> None:
            for size in sizes:
                await stream.send_all(memoryview(bytes(range(256)) * 2000)[:size])

        async def receive(name: str, stream: trio.abc.Stream) -> None:
            while len(received[name]) < sum(sizes):
                received[name] += await stream.receive_some(100_000)

        async with trio.open_nursery() as nursery:
            for name, stream in (("tls", tls), ("peer", peer)):
                nursery.start_soon(send, stream)
                nursery.start_soon(receive, name, stream)
        expected = b"".join((bytes(range(256)) * 2000)[:size] for size in sizes)
        assert received == {"tls": expected, "peer": expected}


async def test_many_records_come_at_once(authority: trustme.CA) -> None:
    async with shaken(authority) as (tls, peer, _):
        await peer.send_all(bytes(200_000))
        # The tickets of the handshake may be in front.
        assert await tls.receive_some(256 * 1024) == bytes(200_000)


@pytest.mark.parametrize("most", [1, 7, 16_384, 20_000])
async def test_no_more_than_was_asked_for(authority: trustme.CA, most: int) -> None:
    data = bytes(range(256)) * 160
    async with shaken(authority) as (tls, peer, _):
        await peer.send_all(data)
        received = bytearray()
        while len(received) < min(len(data), 40 * most):
            part = await tls.receive_some(most)
            assert 0 < len(part) <= most
            received += part
        assert data.startswith(received)


@pytest.mark.parametrize("is_polite", [True, False])
async def test_the_end(authority: trustme.CA, is_polite: bool) -> None:
    async with shaken(authority) as (tls, peer, theirs):
        await peer.send_all(b"last")
        await (peer if is_polite else theirs).aclose()
        assert await tls.receive_some() == b"last"
        for _ in range(2):
            assert await tls.receive_some() == b""


async def test_an_end_inside_a_record(authority: trustme.CA) -> None:
    async with shaken(authority) as (tls, peer, theirs):
        await peer.send_all(b"good")
        await theirs.send_all(b"\x17\x03\x03\x40\x00abc")
        await theirs.aclose()
        assert await tls.receive_some() == b"good"
        assert await tls.receive_some() == b""


async def test_a_bad_record_hides_nothing_that_came_before(authority: trustme.CA) -> None:
    async with shaken(authority) as (tls, peer, theirs):
        await peer.send_all(b"good")
        await theirs.send_all(b"\x17\x03\x03\x00\x20" + bytes(32))
        assert await tls.receive_some() == b"good"
        for _ in range(2):
            with pytest.raises(ssl.SSLError):
                await tls.receive_some()


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x03", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_handshake_that_fails(authority: trustme.CA, said: bytes) -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await theirs.send_all(said)
    await theirs.send_eof()
    with pytest.raises(ssl.SSLError):
        await TlsStream(ours, contexts(authority)[0], "peer").do_handshake()


async def test_goodbye_is_said_and_not_waited_for(authority: trustme.CA) -> None:
    async with shaken(authority) as (tls, peer, _):
        await tls.send_all(b"x")
        await tls.aclose()
        # Without the goodbye, the end would be an error to the other side.
        await tls.aclose()
        assert await peer.receive_some() == b"x"
        assert await peer.receive_some() == b""
        with pytest.raises(trio.ClosedResourceError):
            await tls.receive_some()
        with pytest.raises(trio.ClosedResourceError):
            await tls.wait_send_all_might_not_block()


async def test_nothing_follows_half_a_record(authority: trustme.CA) -> None:
    client, server = contexts(authority)
    ours, theirs = trio.testing.lockstep_stream_pair()
    tls = TlsStream(ours, client, "peer")
    peer = trio.SSLStream(theirs, server, server_side=True, https_compatible=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tls.do_handshake)
        nursery.start_soon(peer.do_handshake)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tls.receive_some)
        nursery.start_soon(peer.send_all, b"x")
    with trio.move_on_after(1) as scope:
        await tls.send_all(bytes(1000))
    assert scope.cancelled_caught
    # It would wait for ever to send more.
    await tls.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await theirs.send_all(b"x")


async def test_closing_closes_the_transport_even_if_cancelled(authority: trustme.CA) -> None:
    for number in (1, 2):
        async with shaken(authority) as (tls, _, theirs):
            with trio.CancelScope() as scope:
                instrument = CancelAt(trio.lowlevel.current_task(), number, scope)
                trio.lowlevel.add_instrument(instrument)
                try:
                    await tls.aclose()
                finally:
                    trio.lowlevel.remove_instrument(instrument)
            with pytest.raises(trio.BrokenResourceError):
                await theirs.send_all(b"x")


async def test_a_peer_that_is_gone(authority: trustme.CA) -> None:
    async with shaken(authority) as (tls, _, theirs):
        await theirs.aclose()
        with pytest.raises(trio.BrokenResourceError):
            await tls.send_all(b"x")
        await tls.aclose()


async def test_receiving_is_a_checkpoint_whether_data_is_there_or_not(
    authority: trustme.CA,
) -> None:
    async with shaken(authority) as (tls, peer, _):
        await peer.send_all(b"abc")
        # From the transport, from what is decrypted, and twice the end.
        for expected in (b"ab", b"c"):
            with trio.testing.assert_checkpoints():
                assert bytes(await tls.receive_some(2)) == expected
        await peer.aclose()
        for _ in range(2):
            with trio.testing.assert_checkpoints():
                assert not await tls.receive_some(2)


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_receive_that_is_cancelled_loses_nothing(
    authority: trustme.CA, is_first: bool
) -> None:
    async with shaken(authority) as (tls, peer, _):
        await peer.send_all(b"abc")
        expected = b"abc" if is_first else b"bc"
        if not is_first:
            assert await tls.receive_some(1) == b"a"
        with trio.CancelScope() as scope:
            scope.cancel()
            await tls.receive_some(2)
        assert scope.cancelled_caught
        with trio.fail_after(1):
            assert await tls.receive_some(2) == expected[:2]
