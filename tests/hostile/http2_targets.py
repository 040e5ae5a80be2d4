"""The HTTP/2 layer: what it makes of frames, right and wrong."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from random import Random

import trio
import trio.testing
from h2.exceptions import ProtocolError
from hyperframe.frame import Frame

from hostile import corpus
from hostile.mutate import Mutator, raw_frame, split
from hostile.targets import Bounds, Target
from s2frames.errors import S2FramesError
from s2frames_trio.frame_buffer import FrameBuffer
from s2frames_trio.h2_connection import Http2Connection
from s2frames_trio.h2_setup import MAX_FRAME_BYTES, make_h2
from s2frames_trio.incoming import Event, Incoming
from trio_adapter.peers import HEADERS

__all__ = ["HTTP2_TARGETS", "spoilt_frames"]

# Bits of the flags that mean something, in one frame or another.
_FLAGS = (0x0, 0x1, 0x4, 0x5, 0x8, 0x9, 0x20, 0x2D, 0xFF)

# Seconds on a clock that jumps: longer than every deadline of a connection.
_PATIENCE = 300


def spoilt_frames(mutator: Mutator, stream_ids: tuple[int, ...] = (1, 3)) -> bytes:
    """What a server says, spoilt: frames lacking, doubled or out of order, wrong within, or cut.

    Of what was meant for streams 1 and 3 everything is for these.
    """
    random = mutator.random
    frames = [f for frames in random.choices(corpus.SERVER_FRAMES, k=2) for f in frames]
    frames = frames[: random.randint(1, len(frames))]
    if random.random() < 0.3:
        frames[1:] = random.choices(frames, k=random.randint(0, 12))
    wire = [_place(frame, stream_ids) for frame in frames]
    # Else most ends with the first frame.
    wire[1:] = [_spoil_frame(mutator, frame, stream_ids) for frame in wire[1:]]
    wire[0] = mutator.maybe(wire[0], 0.05)
    if random.random() < 0.1:
        wire.append(random.choice(wire) * random.choice((20, 300)))
    return mutator.maybe(b"".join(wire), 0.2)


def _place(frame: Frame, stream_ids: tuple[int, ...]) -> bytes:
    wire = frame.serialize()
    if not frame.stream_id:
        return wire
    stream_id = stream_ids[(frame.stream_id == 3) % len(stream_ids)]
    return wire[:5] + stream_id.to_bytes(4, "big") + wire[9:]


def _spoil_frame(mutator: Mutator, wire: bytes, stream_ids: tuple[int, ...]) -> bytes:
    random = mutator.random
    kind, flags, stream_id = wire[3], wire[4], int.from_bytes(wire[5:9], "big")
    body, length = wire[9:], None
    change = random.randrange(12)
    if change == 0:
        kind = random.choice((*range(11), 0xFF))
    elif change == 1:
        flags = random.choice(_FLAGS)
    elif change == 2:
        stream_id = random.choice((0, 1, 2, 3, 5, 2**31 - 1, 2**31, *stream_ids))
    elif change == 3:
        length = mutator.number()
    elif change in (4, 5):
        body = mutator.mutate(body)
    return raw_frame(kind, flags, stream_id, body, length)


def _make_frames(mutator: Mutator) -> tuple[bytes, int]:
    data = spoilt_frames(mutator)
    return data, len(data)


# What cuts frames


def _feed_frame_buffer(data: bytes, random: Random) -> None:
    assert _frames([data]) == _frames(split(random, data))


def _frames(pieces: Iterable[bytes]) -> list[str]:
    """Every frame in words, and the error that ended it."""
    buffer, found = FrameBuffer(), list[str]()
    buffer.max_frame_size = MAX_FRAME_BYTES
    try:
        for piece in pieces:
            buffer.add_data(piece)
            while (frame := buffer.cut()) is not None:
                found.append(f"{type(frame).__name__} {frame.stream_id} {vars(frame)}")
    except ProtocolError as error:
        found.append(f"{type(error).__name__}: {error}")
    return found


# What makes events of them


def _feed_incoming(data: bytes, random: Random) -> None:
    frames = FrameBuffer()
    connection = make_h2(frames)
    for stream_id in (1, 3):
        connection.send_headers(stream_id, HEADERS)
    incoming = Incoming(connection, frames)
    try:
        for piece in split(random, data):
            for event in incoming.receive(piece, 0.0):
                assert isinstance(event, Event)
    except ProtocolError as error:
        str(error).encode()
        assert incoming.is_broken
    # What a peer makes us answer is in proportion to what it said.
    assert len(connection.data_to_send()) <= 3 * len(data) + 1000


# The whole connection


def _feed_connection(data: bytes, random: Random) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(partial(_talk, data, random), clock=clock)


async def _talk(data: bytes, random: Random) -> None:
    """Two streams, each of which ends in a complete answer or in an error of ours."""
    ours, theirs = trio.testing.memory_stream_pair()
    connection = Http2Connection(ours, "http://peer")
    with trio.fail_after(_PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.run)
            nursery.start_soon(_say, theirs, data, random)
            try:
                await connection.wait_open()
                async with trio.open_nursery() as streams:
                    for _ in range(2):
                        streams.start_soon(_take, connection)
            except S2FramesError as error:
                str(error).encode()
            connection.close()


async def _say(stream: trio.abc.Stream, data: bytes, random: Random) -> None:
    leaves = random.random() < 0.7
    try:
        for piece in split(random, data):
            await stream.send_all(piece)
        if leaves:
            await stream.aclose()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        """The client has had enough."""


async def _take(connection: Http2Connection) -> None:
    try:
        async with connection.open_stream(HEADERS, end=True) as stream:
            response = await stream.receive_response()
            assert 0 <= response.status <= 999
            while await stream.receive_data() is not None:
                """Until it is complete."""
    except S2FramesError as error:
        str(error).encode()


# A CONTINUATION of nothing takes 9 bytes, and an object until its header block ends.
HTTP2_TARGETS: list[Target] = [
    Target("frame buffer", _make_frames, _feed_frame_buffer, Bounds(20_000, 20, 50_000, 150)),
    Target("incoming", _make_frames, _feed_incoming, Bounds(20_000, 50, 200_000, 150)),
    Target("connection", _make_frames, _feed_connection, Bounds(150_000, 60, 600_000, 150)),
]
