"""Public uses as type checkers see them: mypy and pyright read this file, and nobody runs it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, assert_type

from attrs import evolve, frozen

from s2frames import (
    BYTES,
    JSON,
    MSGPACK,
    TEXT,
    Appended,
    AppendProtocol,
    AppendSettings,
    Checkpoint,
    Codec,
    FrameReader,
    FrameReceived,
    FramesDurable,
    FrameWriter,
    Handout,
    Inbox,
    Outbox,
    ReadProtocol,
    ReadSettings,
    ReceivedMessage,
    Retry,
    SequencedRecord,
    Settings,
    StreamTarget,
    WriterState,
    chunk_bytes,
    extract_dedupe_seq,
)
from s2frames_httpx import AsyncClient, Client
from s2frames_trio import open_client


@frozen
class Point:
    x: int

    def to_bytes(self) -> bytes:
        return b"%d" % self.x

    @classmethod
    def from_bytes(cls, payload: bytes) -> Point:
        return cls(int(payload))


# Codecs: the message's type comes from the annotation, or from either callable.

INTS: Codec[int] = Codec(lambda number: b"%d" % number, int)
NAMED: Codec[int] = Codec(lambda number: b"%d" % number, int, name="ints")
BY_KEYWORD: Codec[int] = Codec(encode=lambda number: b"%d" % number, decode=int, name="ints")
POINTS = Codec(Point.to_bytes, Point.from_bytes)
POINTS_BY_KEYWORD = Codec(encode=Point.to_bytes, decode=Point.from_bytes, name="points")


def encode_number(number: int) -> bytearray:
    return bytearray(b"%d" % number)


NUMBERS = Codec(encode_number, int)

assert_type(JSON, Codec[Any])
assert_type(MSGPACK, Codec[Any])
assert_type(TEXT, Codec[str])
assert_type(BYTES, Codec[bytes])
assert_type(POINTS, Codec[Point])
assert_type(POINTS_BY_KEYWORD, Codec[Point])
assert_type(NUMBERS, Codec[int])
assert_type(INTS.decode(b"7"), int)
assert_type(INTS.encode(7), bytes)
assert_type(POINTS.decode(b"7"), Point)
assert_type(POINTS.name, str)
Codec(7, int)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
INTS.encode("7")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# The core


def write_and_read(record: SequencedRecord) -> None:
    writer = FrameWriter("w", first_dedupe_seq=0)
    assert_type(writer.send(b"payload", [(b"name", b"value")], 5), int)
    assert_type(writer.send_many([b"a", b"b"]), range)
    for batch in writer.batches_to_send(flush=True):
        assert_type(batch.wire, bytes)
    reader = FrameReader(start=0)
    for event in reader.receive_records([record]):
        match event:
            case FrameReceived():
                assert_type(event.payload, bytes)
                assert_type(event.writer_id, str | None)
            case _:
                pass
    checkpoint = reader.checkpoint()
    assert_type(checkpoint, Checkpoint)
    assert_type(Checkpoint.from_json(checkpoint.to_json()).stream, str | None)
    assert_type(extract_dedupe_seq(record.headers), tuple[str, int] | None)
    assert_type(chunk_bytes(bytearray(b"abc"), 1), list[memoryview])


def sessions(target: StreamTarget, state: WriterState) -> None:
    append = AppendProtocol(target, AppendSettings(resume=state), random=lambda: 0.5)
    outbox = Outbox(append, POINTS)
    assert_type(outbox, Outbox[Point])
    outbox.put(Point(1), now=0.0)
    read = ReadProtocol(target, ReadSettings(start=Checkpoint(0, 0)), random=lambda: 0.5)
    inbox = Inbox(POINTS, on_corrupt="skip")
    for event in read.events_received():
        assert_type(inbox.take(event), ReceivedMessage[Point] | None)
    handout = Handout(read, inbox)
    while handout.fetch():
        assert_type(handout.hand_out(), Point)
    while handout.fetch():
        assert_type(handout.hand_out_received(), ReceivedMessage[Point])
    while handout.fetch_many():
        assert_type(handout.hand_out_many(), list[Point])
    for happened in append.events_received():
        if isinstance(happened, FramesDurable):
            assert_type(happened.appended(0), Appended)


# The clients


def threads(settings: Settings) -> None:
    with Client(evolve(settings, retry=Retry(max_attempts=1))) as client:
        stream = client.stream("my-basin", "chat/42")
        with stream.append_session(codec=POINTS) as session:
            assert_type(session.append(Point(1)), Appended)
            session.append_many(Point(x) for x in range(3))
        with stream.read_session(codec=POINTS, follow=True) as messages:
            for message in messages:
                assert_type(message, Point)
            for several in messages.batches():
                assert_type(several, list[Point])
            for frame in messages.frames():
                assert_type(frame.message, Point)
            stream.trim(messages.checkpoint())
        for payload in stream.read_session():
            assert_type(payload, bytes)


async def points() -> AsyncIterator[Point]:
    yield Point(1)


async def tasks(settings: Settings) -> None:
    async with AsyncClient(settings) as client:
        stream = client.stream("my-basin", "chat/42")
        async with stream.append_session(codec=INTS) as session:
            assert_type(await session.append(7), Appended)
        async with stream.read_session(codec=INTS) as messages:
            async for message in messages:
                assert_type(message, int)
    async with open_client(settings) as trio_client:
        stream_of_trio = trio_client.stream("my-basin", "chat/42")
        async with stream_of_trio.append_session(codec=POINTS) as points_session:
            ticket = await points_session.submit(Point(1))
            assert_type(await ticket, Appended)
            await points_session.append_many(points())
        async with stream_of_trio.read_session(codec=TEXT) as texts:
            async for text in texts:
                assert_type(text, str)


def run(settings: Settings) -> None:
    asyncio.run(tasks(settings))
