from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from httpx_adapter.gates import Recorder
from s2frames import LocalProtocolError
from s2frames.http import Request
from s2frames.records import MAX_BATCH_BYTES
from s2frames.session import EndData, OpenRequest, SendData
from s2frames.settings import AppendSettings
from s2frames_httpx import Client, EmbeddedTransport
from s2frames_httpx.burst import Burst, BurstOptions, burst_settings
from s2frames_httpx.embedded import EMBEDDED_SETTINGS
from scenes import SCENES, World

REQUEST = Request("POST", "http://localhost/", {"authorization": "Bearer secret"})

# So much is handed to httpx at once.
PIECE_BYTES = 256 * 1024

sizes = st.one_of(
    st.integers(0, 300),
    st.sampled_from([PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES]),
)


def make_burst(*buffers: bytes) -> Burst:
    return Burst(7, REQUEST, list(buffers))


# The body


@given(st.lists(sizes, max_size=8))
def test_the_body_is_the_buffers_in_pieces_of_one_size(lengths: list[int]) -> None:
    buffers = [bytes([65 + n]) * length for n, length in enumerate(lengths)]
    accepted: list[int] = []
    burst = make_burst(*buffers)
    pieces = list(burst.body(accepted.append))
    assert b"".join(pieces) == b"".join(buffers)
    assert all(len(piece) == PIECE_BYTES for piece in pieces[:-1])
    assert all(1 <= len(piece) <= PIECE_BYTES for piece in pieces[-1:])
    assert accepted == [len(piece) for piece in pieces]
    assert burst.headers()["content-length"] == str(sum(lengths))


def test_a_piece_is_accepted_when_the_next_one_is_asked_for() -> None:
    accepted: list[int] = []
    body = make_burst(b"x" * PIECE_BYTES, b"y").body(accepted.append)
    next(body)
    assert accepted == []
    next(body)
    assert accepted == [PIECE_BYTES]
    assert list(body) == []
    assert accepted == [PIECE_BYTES, 1]


def test_a_burst_shows_neither_its_bytes_nor_the_token() -> None:
    shown = repr(make_burst(b"payload"))
    assert "payload" not in shown
    assert "Bearer" not in shown


# Collecting


def test_collecting_without_a_request() -> None:
    assert Burst.collect([]) is None


def test_collecting_joins_what_is_sent() -> None:
    burst = Burst.collect(
        [OpenRequest(3, REQUEST), SendData(3, [b"a", b"b"]), SendData(3, [b"c"]), EndData(3)]
    )
    assert burst is not None
    assert burst.request_id == 3
    assert b"".join(burst.body(lambda _size: None)) == b"abc"


# Settings


def test_the_defaults() -> None:
    settings = burst_settings({})
    assert (settings.burst_batches, settings.max_inflight_batches) == (64, 64)
    assert settings.max_inflight_bytes == 32 * MAX_BATCH_BYTES


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"burst_batches": 5},
            AppendSettings(
                burst_batches=5,
                max_inflight_batches=5,
                max_inflight_bytes=32 * MAX_BATCH_BYTES,
                linger=0.05,
            ),
        ),
        (
            {"burst_batches": 5, "max_inflight_batches": 2, "linger": 0.1},
            AppendSettings(
                burst_batches=5,
                max_inflight_batches=2,
                max_inflight_bytes=32 * MAX_BATCH_BYTES,
                linger=0.1,
            ),
        ),
    ],
)
def test_options_replace_the_defaults(options: BurstOptions, expected: AppendSettings) -> None:
    assert burst_settings(options) == expected


@pytest.mark.parametrize("number", [0, -1, 501])
def test_bursts_of_a_size_that_cannot_be(number: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"burst_batches.*1 to 500.*{number}"):
        burst_settings({"burst_batches": number})


# In use


@pytest.mark.parametrize("s2", SCENES, indirect=True, ids=str)
@pytest.mark.parametrize("number", [1, 2, 64])
async def test_bursts_of_any_size(s2: World, number: int) -> None:
    messages = [b"small"] * 1100 + [b"x" * 2_500_000] + [b"y" * 700_000] * 3
    async with s2.stream.append_session(burst_batches=number) as session:
        await session.append_many(messages)
        assert session.durable_messages == len(messages)
    async with s2.stream.read_session() as received:
        assert [message async for message in received] == messages


def record_appends(options: Any) -> list[tuple[str, int]]:
    """Content type and length of each request for six messages that fill a batch each."""
    recorder = Recorder(EmbeddedTransport())
    with Client(EMBEDDED_SETTINGS, transport=recorder) as client:
        client.create_basin("test-basin")
        stream = client.stream("test-basin", "room/1")
        stream.create()
        recorder.requests.clear()
        with stream.append_session(**options) as session:
            session.append_many([b"x" * 1_000_000] * 6)
    return [
        (request.headers["content-type"], int(request.headers["content-length"]) // 1_000_000)
        for request in recorder.requests
    ]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"burst_batches": 1}, [("application/protobuf", 1)] * 6),
        ({"burst_batches": 2}, [("s2s/proto", 2)] * 3),
        ({"burst_batches": 4}, [("s2s/proto", 4), ("s2s/proto", 2)]),
        ({}, [("s2s/proto", 6)]),
        ({"max_inflight_batches": 3}, [("s2s/proto", 3)] * 2),
    ],
)
def test_how_many_batches_are_in_a_request(options: Any, expected: list[tuple[str, int]]) -> None:
    assert record_appends(options) == expected
