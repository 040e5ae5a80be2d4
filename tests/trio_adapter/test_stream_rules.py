from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pytest
import trio
import trio.testing
from attrs import frozen
from h2.errors import ErrorCodes
from h2.events import RequestReceived
from hyperframe.frame import (
    AltSvcFrame,
    DataFrame,
    ExtensionFrame,
    Frame,
    PriorityFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from s2frames import RemoteProtocolError, S2FramesError, TransportError
from s2frames_trio.connection_state import ConnectionState
from s2frames_trio.h2_connection import Http2Connection
from s2frames_trio.h2_setup import CONNECTION_WINDOW
from s2frames_trio.h2_stream import Http2Stream
from s2frames_trio.receive_window import STREAM_WINDOW
from s2frames_trio.stream_rules import (
    Breach,
    BreachError,
    Place,
    Scope,
    expected_length,
    is_taken,
    join_fields,
)
from trio_adapter.peers import HEADERS, Peer, connected, open_stream

Field = tuple[str, str]

OK: list[Field] = [(":status", "200")]


async def settled() -> None:
    await trio.testing.wait_all_tasks_blocked()


#: What a peer says on a stream of a number, or on another one.
Saying = Callable[[Peer, int], bytes]


def raw(kind: int, flags: int, body: bytes, *, on: int | None = None) -> Saying:
    def say(_: Peer, number: int) -> bytes:
        stream_id = number if on is None else on
        first = (len(body).to_bytes(3, "big"), bytes((kind, flags)), stream_id.to_bytes(4, "big"))
        return b"".join((*first, body))

    return say


def head(fields: Iterable[Field], *, end: bool = False, on: int | None = None) -> Saying:
    """A head or trailers. What they put into the header table is there for all streams."""

    def say(peer: Peer, number: int) -> bytes:
        return raw(1, 4 | end, peer.h2.encoder.encode(fields), on=on)(peer, number)

    return say


def data(body: bytes, *, end: bool = False, on: int | None = None) -> Saying:
    return raw(0, int(end), body, on=on)


def update(increment: int, *, on: int | None = None) -> Saying:
    return raw(8, 0, increment.to_bytes(4, "big"), on=on)


def with_length(length: str) -> list[Field]:
    return [*OK, ("content-length", length)]


@frozen
class Row:
    """What a peer says on a stream, and what rule it breaks with it."""

    breach: Breach
    said: list[Saying]
    #: What the one who asked has got before it is told.
    answer: Sequence[Any] = ()
    #: Whether it is told at all: an answer that was complete remains so.
    is_told: bool = True


ROWS: dict[str, Row] = {
    "data first": Row(Breach.DATA_BEFORE_HEAD, [data(b"x")]),
    "data after an interim head": Row(
        Breach.DATA_BEFORE_HEAD,
        [head([(":status", "103")]), data(b"x", end=True)],
    ),
    **{
        f"head: {fields}": Row(Breach.MALFORMED_HEAD, [head(fields)])
        for fields in (
            [("a", "b")],
            [(":status", "2x0")],
            [(":status", "101")],
            [("a", "b"), *OK],
            [*OK, *OK],
            [*OK, (":path", "/")],
            [*OK, ("Upper", "x")],
            [*OK, ("", "x")],
            [*OK, ("a b", "x")],
            [*OK, ("x", "line\nbreak")],
            [*OK, ("x", " blank")],
            [*OK, ("x", "blank\t")],
            [*OK, ("connection", "close")],
            [*OK, ("transfer-encoding", "chunked")],
            *map(with_length, ["", "x", "-1", "+1", "1, 2", "9" * 20, "1,"]),
        )
    },
    "interim and end": Row(Breach.INTERIM_THAT_ENDS, [head([(":status", "100")], end=True)]),
    "second head": Row(Breach.TRAILERS_THAT_DO_NOT_END, [head(OK), head(OK)], [200]),
    "interim after the head": Row(
        Breach.TRAILERS_THAT_DO_NOT_END,
        [head(OK), head([(":status", "103")])],
        [200],
    ),
    "trailers before the end": Row(
        Breach.TRAILERS_THAT_DO_NOT_END,
        [head(OK), data(b"body"), head([("a", "b")])],
        [200, b"body"],
    ),
    "trailers with a status": Row(Breach.MALFORMED_TRAILERS, [head(OK), head(OK, end=True)], [200]),
    "trailers with a bad name": Row(
        Breach.MALFORMED_TRAILERS,
        [head(OK), head([("A", "b")], end=True)],
        [200],
    ),
    "too long": Row(
        Breach.BODY_TOO_LONG,
        [head(with_length("3")), data(b"abc"), data(b"d")],
        [200, b"abc"],
    ),
    "too long at the end": Row(
        Breach.BODY_TOO_LONG,
        [head(with_length("3")), data(b"abcd", end=True)],
        [200],
    ),
    "body where there is none": Row(
        Breach.BODY_TOO_LONG, [head([(":status", "204")]), data(b"x")], [204]
    ),
    "too short": Row(
        Breach.BODY_TOO_SHORT,
        [head(with_length("9")), data(b"abcd", end=True)],
        [200, b"abcd"],
    ),
    "too short without a body": Row(
        Breach.BODY_TOO_SHORT, [head(with_length("9"), end=True)], [200]
    ),
    "too short with trailers": Row(
        Breach.BODY_TOO_SHORT,
        [head(with_length("1")), head([("a", "b")], end=True)],
        [200],
    ),
    "data after the end": Row(
        Breach.AFTER_THE_END,
        [head(OK, end=True), data(b"x")],
        [200, None],
        is_told=False,
    ),
    "head after the end": Row(
        Breach.AFTER_THE_END,
        [head(OK, end=True), head(OK)],
        [200, None],
        is_told=False,
    ),
    "beyond the window": Row(
        Breach.STREAM_WINDOW_EXCEEDED,
        [head(OK), data(bytes(STREAM_WINDOW + 1))],
        [200],
    ),
    "increment of 0": Row(Breach.NO_INCREMENT, [update(0)]),
    "window too large": Row(Breach.STREAM_WINDOW_OVERFLOW, [update(2**31 - 1)]),
    "priority of 4 bytes": Row(Breach.PRIORITY_OF_ANOTHER_SIZE, [raw(2, 0, bytes(4))]),
    # What ends the connection
    "beyond the connection's window": Row(
        Breach.CONNECTION_WINDOW_EXCEEDED,
        [data(bytes(2**20))] * (CONNECTION_WINDOW // 2**20 + 1),
    ),
    "the connection's increment of 0": Row(
        Breach.NO_CONNECTION_INCREMENT, [update(0, on=0)], is_told=False
    ),
    "the connection's window too large": Row(
        Breach.CONNECTION_WINDOW_OVERFLOW, [update(2**31 - 1, on=0)], is_told=False
    ),
    "bad header block": Row(Breach.UNREADABLE_HEADERS, [raw(1, 4, b"\xff" * 6)]),
    "header bomb": Row(
        Breach.TOO_MANY_HEADERS,
        # A field of 4000 bytes put into the table, and then named again and again.
        [raw(1, 4, b"\x88\x40\x01a\x7f\xa1\x1e" + b"x" * 4000 + b"\xbe" * 99)],
    ),
    "data of no stream": Row(Breach.OF_NO_STREAM, [data(b"x", on=99)], is_told=False),
    "head of no stream": Row(Breach.OF_NO_STREAM, [head(OK, on=99)], is_told=False),
    "head of the peer's stream": Row(Breach.OF_NO_STREAM, [head(OK, on=2)], is_told=False),
    "window of no stream": Row(Breach.OF_NO_STREAM, [update(1, on=99)], is_told=False),
    "reset of no stream": Row(Breach.OF_NO_STREAM, [raw(3, 0, bytes(4), on=99)], is_told=False),
    "push": Row(
        Breach.PUSH,
        [raw(5, 4, b"\0\0\0\2\x82")],
    ),
    "naked continuation": Row(
        Breach.NAKED_CONTINUATION,
        [raw(9, 4, b"\x88")],
    ),
}


async def answer_of(stream: Http2Stream) -> list[Any]:
    """All there is of an answer: the status, the body and None, or the error that ended it."""
    got: list[Any] = []
    try:
        got.append((await stream.receive_response()).status)
        while (body := await stream.receive_data()) is not None:
            got.append(body)
        got.append(None)
    except S2FramesError as error:
        got.append(error)
    return got


# What RFC 9113 says of each: 4.3, 5.1, 6.3, 6.6, 6.9, 6.9.1, 6.10, 8.1.1.
MUST_BE = {
    (Scope.STREAM, ErrorCodes.PROTOCOL_ERROR): {
        *(Breach.DATA_BEFORE_HEAD, Breach.MALFORMED_HEAD, Breach.INTERIM_THAT_ENDS),
        *(Breach.TRAILERS_THAT_DO_NOT_END, Breach.MALFORMED_TRAILERS),
        *(Breach.BODY_TOO_LONG, Breach.BODY_TOO_SHORT, Breach.NO_INCREMENT),
    },
    (Scope.STREAM, ErrorCodes.STREAM_CLOSED): {Breach.AFTER_THE_END},
    (Scope.STREAM, ErrorCodes.FLOW_CONTROL_ERROR): {
        *(Breach.STREAM_WINDOW_EXCEEDED, Breach.STREAM_WINDOW_OVERFLOW),
    },
    (Scope.STREAM, ErrorCodes.FRAME_SIZE_ERROR): {Breach.PRIORITY_OF_ANOTHER_SIZE},
    (Scope.CONNECTION, ErrorCodes.FLOW_CONTROL_ERROR): {
        *(Breach.CONNECTION_WINDOW_EXCEEDED, Breach.CONNECTION_WINDOW_OVERFLOW),
    },
    (Scope.CONNECTION, ErrorCodes.PROTOCOL_ERROR): {
        *(Breach.NO_CONNECTION_INCREMENT, Breach.OF_NO_STREAM),
        *(Breach.PUSH, Breach.NAKED_CONTINUATION),
    },
    (Scope.CONNECTION, ErrorCodes.COMPRESSION_ERROR): {Breach.UNREADABLE_HEADERS},
    (Scope.CONNECTION, ErrorCodes.ENHANCE_YOUR_CALM): {Breach.TOO_MANY_HEADERS},
}


def test_what_each_breach_costs() -> None:
    found: dict[tuple[Scope, ErrorCodes], set[Breach]] = {}
    for breach in Breach:
        found.setdefault((breach.scope, breach.code), set()).add(breach)
    assert found == MUST_BE


def test_every_rule_has_a_row() -> None:
    assert {row.breach for row in ROWS.values()} == set(Breach)


OF_A_STREAM = {name: row for name, row in ROWS.items() if row.breach.scope is Scope.STREAM}
OF_ALL = {name: row for name, row in ROWS.items() if row.breach.scope is Scope.CONNECTION}


@pytest.mark.parametrize("is_asking", [True, False], ids=["asking", "asked"])
@pytest.mark.parametrize("row", OF_A_STREAM.values(), ids=OF_A_STREAM)
async def test_a_breach_of_a_stream_breaks_that_stream_alone(row: Row, is_asking: bool) -> None:
    async with connected() as (connection, peer):
        peer.h2.config.validate_outbound_headers = False
        innocent, other = await open_stream(connection, peer)
        guilty, number = await open_stream(connection, peer, end=not is_asking)
        await peer.answer(other)
        await peer.data(other, b"before")
        await peer.send_bytes(b"".join(say(peer, number) for say in row.said))
        *got, error = await answer_of(guilty)
        if row.is_told:
            assert got == list(row.answer)
            assert type(error) is RemoteProtocolError
            assert "broke HTTP/2: http://peer" in str(error)
            assert row.breach.words in str(error)
            assert await is_refused(guilty)
        else:
            assert [*got, error] == list(row.answer)
        # The connection goes on, whole: windows, header tables, the other stream.
        assert connection.state is ConnectionState.OPEN
        await settled()
        await peer.receive()
        assert peer.resets().get(number) in (row.breach.code, None)
        assert (number in peer.resets()) is not is_over(row, peer, number, is_asking)
        assert list(connection._streams) == [other]
        await peer.data(other, b"after", end=True)
        assert await answer_of(innocent) == [200, b"beforeafter", None]
        await check_usable(connection, peer)


def is_over(row: Row, peer: Peer, number: int, is_asking: bool) -> bool:
    """Whether both sides had ended the stream, so that there was nothing to reset."""
    last = row.said[-1](peer, number)
    ends = last[3] in (0, 1) and last[4] & 1
    return not is_asking and (bool(ends) or row.breach is Breach.AFTER_THE_END)


async def is_refused(stream: Http2Stream) -> bool:
    """Whether no more of a request is taken."""
    return stream._is_ending or not await stream.send_data([b"more"])


async def check_usable(connection: Http2Connection, peer: Peer) -> None:
    """Requests are answered, and both sides remember the same headers."""
    for _ in range(2):
        stream = connection.open_stream([*HEADERS, ("x-for-the-table", "value")], end=True)
        await peer.next(RequestReceived)
        fields = [*OK, ("x-for-the-table-too", "value")]
        await peer.send_bytes(head(fields, end=True)(peer, stream.stream_id))
        assert (await stream.receive_response()).headers == {"x-for-the-table-too": "value"}
        assert await stream.receive_data() is None


@pytest.mark.parametrize("row", OF_ALL.values(), ids=OF_ALL)
async def test_a_breach_of_the_connection_blames_one_stream_at_most(
    row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connected() as (connection, peer):
        peer.h2.config.validate_outbound_headers = False
        innocent, other = await open_stream(connection, peer)
        guilty, number = await open_stream(connection, peer)
        await peer.answer(other)
        await peer.data(other, b"before")
        if row.breach is Breach.CONNECTION_WINDOW_EXCEEDED:
            # What comes late is not credited either, for this test.
            monkeypatch.setattr(Http2Connection, "_credit_connection", lambda _self, _size: None)
        await peer.send_bytes(b"".join(say(peer, number) for say in row.said))
        blamed, spared = (await answer_of(guilty))[-1], await answer_of(innocent)
        # What had come is whole, and the rest may be asked for over another connection.
        assert spared[:-1] == [200, b"before"]
        assert type(spared[-1]) is TransportError
        for error in (blamed, spared[-1]):
            assert "broke HTTP/2: http://peer" in str(error)
        assert type(blamed) is (RemoteProtocolError if row.is_told else TransportError)
        assert connection.state is ConnectionState.LOST
    await peer.serve()
    assert peer.goaways() == [row.breach.code]


LATE: dict[str, Saying] = {
    "head": head([*OK, ("x-late", "for the table")]),
    "interim head": head([(":status", "103"), ("x-late", "for the table")]),
    "malformed head": head([("A", "for the table")]),
    "data": data(b"x"),
    "end": data(b"", end=True),
    "window": update(1),
    "increment of 0": update(0),
    "window too large": update(2**31 - 1),
    "reset": raw(3, 0, bytes(4)),
    "priority": raw(2, 0, bytes(3)),
    "unknown": raw(0xFA, 0, b"?"),
    "alternative": raw(10, 0, bytes(2)),
}


@pytest.mark.parametrize("said", LATE.values(), ids=LATE)
@pytest.mark.parametrize("how", ["reset", "answered", "reset by the peer", "long ago"])
async def test_what_comes_late_is_passed_over(said: Saying, how: str) -> None:
    async with connected() as (connection, peer):
        peer.h2.config.validate_outbound_headers = False
        stream, number = await open_stream(connection, peer, end=how == "answered")
        if how == "answered":
            await peer.answer(number, end=True)
            await stream.receive_response()
        elif how == "reset by the peer":
            await peer.send(RstStreamFrame(number))
            await settled()
        else:
            stream.reset()
        if how == "long ago":
            await settled()
            await peer.receive()
            await check_usable(connection, peer)
        await peer.send_bytes(said(peer, number))
        await settled()
        peer.frames.clear()
        await check_usable(connection, peer)
        # Nothing is said to it.
        assert peer.resets().get(number, ErrorCodes.CANCEL) == ErrorCodes.CANCEL


async def test_late_data_is_credited_to_the_connection() -> None:
    async with connected() as (connection, peer):
        stream, number = await open_stream(connection, peer)
        stream.reset()
        window = connection._h2.inbound_flow_control_window
        await peer.send(DataFrame(number, b"x" * 100, pad_length=9, flags=["PADDED"]))
        await settled()
        assert connection._arrived_bytes == 110
        assert connection._h2.inbound_flow_control_window == window - 110


# The rules alone


@pytest.mark.parametrize("place", Place)
@pytest.mark.parametrize("frame", [PriorityFrame(1), ExtensionFrame(0xFA, 1), AltSvcFrame(1)])
def test_what_says_nothing_may_come_at_any_time(place: Place, frame: Frame) -> None:
    assert is_taken(frame, place) is (place not in (Place.NOT_OPEN, Place.OVER))


@pytest.mark.parametrize(
    ("length", "expected"),
    [("0", 0), ("12", 12), ("007", 7), ("5, 5", 5), ("5,5 ,\t5", 5), ("9" * 19, int("9" * 19))],
)
def test_lengths(length: str, expected: int) -> None:
    assert expected_length(200, {"content-length": length}) == expected
    assert expected_length(204, {"content-length": length}) == 0


def test_no_length() -> None:
    assert expected_length(200, {}) is None


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9))))
def test_any_fields_are_a_head_or_a_breach(fields: list[tuple[bytes, bytes]]) -> None:
    for headers in (fields, [(b":status", b"200"), *fields]):
        try:
            assert join_fields(headers)[":status"]
        except BreachError as error:
            breach, words = error.breach, str(error)
        else:
            continue
        assert breach is Breach.MALFORMED_HEAD
        assert words.encode()


# Any sequence of frames on streams that are not the innocent one's


@frozen
class Said:
    """A frame to be sent, or something that is done to its stream."""

    what: str
    stream: int
    size: int
    fields: tuple[Field, ...]
    end: bool


WHAT = ["head", "head", "parts", "data", "data", "padded", "update", "rst", "priority", "unknown"]
DONE = ["reset", "end", "take"]
FIELDS = [
    *(":status", "200"),
    *(":status", "103"),
    *(":status", "x"),
    *("content-length", "3"),
    *("content-length", "x"),
    *("x-a", "b"),
    *("X", "c"),
    *("connection", "close"),
]

SAID = st.builds(
    Said,
    what=st.sampled_from(WHAT + DONE),
    stream=st.integers(0, 2),
    size=st.sampled_from([0, 0, 1, 2, 3, 4, 5, 200, STREAM_WINDOW, 2**20 - 100]),
    fields=st.lists(
        st.sampled_from(list(zip(FIELDS[::2], FIELDS[1::2], strict=True))), max_size=3
    ).map(tuple),
    end=st.booleans(),
)


def frames_of(said: Said, peer: Peer, number: int) -> bytes:
    if said.what == "parts":
        block = peer.h2.encoder.encode(said.fields)
        parts = (raw(1, int(said.end), block[:2]), raw(9, 4, block[2:]))
        return b"".join(say(peer, number) for say in parts)
    sayings = {
        "head": head(said.fields, end=said.end),
        "data": data(bytes(said.size), end=said.end),
        "padded": raw(0, 8 | said.end, b"\x07" + bytes(said.size + 7)),
        "update": update(2**31 - 1 if said.end else said.size),
        "rst": raw(3, 0, said.size.to_bytes(4, "big")),
        "priority": raw(2, 0, bytes(said.size % 7)),
        "unknown": raw(0xFA, 0, bytes(said.size)),
    }
    return sayings[said.what](peer, number)


async def talk(all_said: list[Said], innocent_first: bool) -> None:
    async with connected() as (connection, peer):
        peer.h2.config.validate_outbound_headers = False
        streams = [await open_stream(connection, peer) for _ in range(4)]
        innocent, other = streams.pop(0 if innocent_first else -1)
        await peer.answer(other)
        sent: list[bytes] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.serve)
            for count, said in enumerate(all_said):
                stream, number = streams[said.stream]
                if said.what in DONE:
                    await do(said, stream)
                else:
                    await peer.send_bytes(frames_of(said, peer, number))
                sent.append(b"record %d" % count)
                await peer.send(DataFrame(other, sent[-1]), WindowUpdateFrame(other, 1))
                assert await innocent.receive_data() == sent[-1]
                assert await innocent.send_data([sent[-1]])
            assert connection.state is ConnectionState.OPEN
            await peer.send(DataFrame(other, b"", flags=["END_STREAM"]))
            assert await innocent.receive_data() is None
            await settled()
            assert peer.data_of(other) == b"".join(sent)
            nursery.cancel_scope.cancel()
        await settled()
        await check_usable(connection, peer)
        for stream, _ in streams:
            stream.reset()
        # What was granted to a broken stream has gone back.
        assert connection._grants.left == type(connection._grants)().left


async def do(said: Said, stream: Http2Stream) -> None:
    """What the client does to the stream, if it still can."""
    if said.what == "reset":
        stream.reset()
    elif stream._is_closed:
        return
    elif said.what == "end" and not stream._is_ending:
        await stream.end_data()
    elif said.what == "take" and stream.has_data:
        with contextlib.suppress(RemoteProtocolError, TransportError):
            await stream.receive_data()


@given(st.lists(SAID, max_size=25), st.booleans())
def test_no_frames_on_other_streams_disturb_a_stream(
    all_said: list[Said], innocent_first: bool
) -> None:
    clock = trio.testing.MockClock(autojump_threshold=0)
    trio.run(partial(talk, all_said, innocent_first), clock=clock)
