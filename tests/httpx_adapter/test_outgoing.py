from __future__ import annotations

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.http import Request
from s2frames.session import Action, CloseRequest, EndData, OpenRequest, SendData
from s2frames.writes import MAX_WRITE_BYTES, Writes
from s2frames_httpx.outgoing import Asked, Body, Outgoing

REQUEST = Request("POST", "http://localhost/", {"authorization": "Bearer secret"})

# So much is handed to httpx at once.
PIECE_BYTES = MAX_WRITE_BYTES

sizes = st.one_of(
    st.integers(0, 300),
    st.sampled_from([PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES]),
)


def make(*buffers: bytes, request: Request = REQUEST) -> Outgoing:
    outgoing = Outgoing.begin(OpenRequest(7, request))
    outgoing.extend(buffers)
    return outgoing


def pieces_of(outgoing: Outgoing) -> list[bytes]:
    return list(outgoing.pieces(Writes(PIECE_BYTES)))


# The body


@given(st.lists(sizes, max_size=8))
def test_the_body_is_the_buffers_in_pieces_of_one_size(lengths: list[int]) -> None:
    buffers = [bytes([65 + n]) * length for n, length in enumerate(lengths)]
    outgoing = make(*buffers)
    pieces = pieces_of(outgoing)
    assert b"".join(pieces) == b"".join(buffers)
    assert all(len(piece) == PIECE_BYTES for piece in pieces[:-1])
    assert all(1 <= len(piece) <= PIECE_BYTES for piece in pieces[-1:])
    assert outgoing.headers()["content-length"] == str(sum(lengths))


@given(st.lists(sizes, max_size=8), st.lists(st.integers(1, 100_000), min_size=1, max_size=9))
def test_each_piece_is_as_large_as_writes_are_then(lengths: list[int], widths: list[int]) -> None:
    outgoing = make(*(bytes(length) for length in lengths))
    writes, left = Writes(widths[0]), sum(lengths)
    for number, piece in enumerate(outgoing.pieces(writes), 1):
        # What was gathered for a larger one is not cut again.
        assert len(piece) <= max(widths)
        assert len(piece) >= min(writes.size, left)
        left -= len(piece)
        writes.size = widths[number % len(widths)]
    assert left == 0
    assert outgoing.size == sum(lengths)


def test_a_body_that_is_whole_comes_first() -> None:
    outgoing = make(b"b", b"c", request=Request("POST", "http://localhost/", {}, b"a"))
    assert b"".join(pieces_of(outgoing)) == b"abc"
    assert outgoing.headers() == {"content-length": "3"}


@pytest.mark.parametrize(
    ("method", "body", "length"),
    [
        ("GET", b"", None),
        ("DELETE", b"", None),
        ("POST", b"", "0"),
        ("PUT", b"", "0"),
        ("PUT", b"{}", "2"),
        ("DELETE", b"{}", "2"),
    ],
)
def test_the_length_is_told_where_there_is_a_body(
    method: str, body: bytes, length: str | None
) -> None:
    request = Request(method, "http://localhost/", {"accept": "x"}, body)
    assert make(request=request).headers().get("content-length") == length


def test_a_wish_for_another_connection_ends_the_old_one() -> None:
    outgoing = Outgoing.begin(OpenRequest(7, REQUEST, on_new_connection=True))
    assert outgoing.headers()["connection"] == "close"
    assert "connection" not in make().headers()


def test_neither_bytes_nor_token_are_shown() -> None:
    shown = repr(make(b"payload")) + repr(Asked(request=make(b"payload")))
    assert "payload" not in shown
    assert "Bearer" not in shown


def test_httpx_takes_the_same_body_both_ways() -> None:
    body = Body(iter([b"a", b"b"]))
    assert isinstance(body, httpx.SyncByteStream)
    assert isinstance(body, httpx.AsyncByteStream)
    assert list(body) == [b"a", b"b"]
    assert list(body) == []


# What is asked

OPEN, END = OpenRequest(3, REQUEST), EndData(3)


@pytest.mark.parametrize(
    ("actions", "closes", "body"),
    [
        ([], False, None),
        ([CloseRequest(2)], True, None),
        ([OPEN, END], False, b""),
        ([OPEN, SendData(3, [b"a", b"b"]), SendData(3, [b"c"]), END], False, b"abc"),
        ([CloseRequest(2), OPEN, SendData(3, [b"a"]), END], True, b"a"),
        # Given up before it was sent.
        ([OPEN, SendData(3, [b"a"]), END, CloseRequest(3)], True, None),
        # For a request whose answer is over already.
        ([SendData(2, [b"a"]), EndData(2)], False, None),
    ],
)
def test_what_actions_amount_to(actions: list[Action], closes: bool, body: bytes | None) -> None:
    asked = Asked.collect(actions)
    assert asked.closes is closes
    if asked.request is None:
        assert body is None
    else:
        assert asked.request.opened == OPEN
        assert b"".join(pieces_of(asked.request)) == body
