from __future__ import annotations

from typing import Any

import pytest

from httpx_adapter.gates import Recorder
from s2frames import LocalProtocolError
from s2frames.records import MAX_BATCH_BYTES
from s2frames.settings import AppendSettings
from s2frames_httpx import Client, EmbeddedTransport
from s2frames_httpx.burst import BurstOptions, burst_settings
from s2frames_httpx.embedded import EMBEDDED_SETTINGS
from scenes import SCENES, World

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
