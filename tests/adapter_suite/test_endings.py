"""How append sessions end: with an error that is told, and callbacks that raise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from live_service import refused_url
from s2frames import Endpoints, S2FramesError, SeqNumMismatch, Settings
from s2frames.errors import ConnectError
from s2frames.retry import Retry
from s2frames.session import Retrying
from scenes import EMBEDDED_SCENES, Flavour, World, every_flavour, open_client

embedded = pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)

Call = Callable[[Any], Awaitable[object]]

CALLS: dict[str, Call] = {
    "append": lambda session: session.append(b"x"),
    "append_many": lambda session: session.append_many([b"x"]),
    "flush": lambda session: session.flush(),
    "close": lambda session: session.close(),
}


@embedded
async def test_an_error_handled_inside_the_block_is_not_raised_by_leaving_it(s2: World) -> None:
    async with s2.stream.append_session(match_seq_num=7) as session:
        with pytest.raises(SeqNumMismatch) as first:
            await session.append(b"x")
        raised: list[S2FramesError] = [first.value]
        for call in CALLS.values():
            for _ in range(2):
                with pytest.raises(SeqNumMismatch) as caught:
                    await call(session)
                raised.append(caught.value)
    words = {str(error) for error in raised}
    assert words == {
        "match_seq_num does not hold: the next sequence number is 0; 0 messages durable"
    }
    assert len({id(error) for error in raised}) == len(raised)


@every_flavour
@pytest.mark.parametrize("call", ["append", "append_many", "flush", "close"])
async def test_what_on_retry_raises_comes_out_of_the_call_that_runs(
    flavour: Flavour, call: str
) -> None:
    """The session goes on: with the attempts that are left, to the error that it ends in."""
    told: list[Retrying] = []

    def refuse(retrying: Retrying) -> None:
        told.append(retrying)
        if len(told) == 1:
            raise KeyError("mine")

    retry = Retry(max_attempts=3, min_delay=0, max_delay=0)
    with refused_url() as url:
        async with open_client(flavour, Settings(endpoints=Endpoints.at(url))) as client:
            stream = client.stream("my-basin", "my-stream")
            async with stream.append_session(retry=retry, on_retry=refuse) as session:
                if call in ("flush", "close"):
                    put(session)
                with pytest.raises(KeyError, match=r"^'mine'$"):
                    await CALLS[call](session)
                with pytest.raises(ConnectError, match=r"; tried 3 times; 0 messages durable$"):
                    await session.flush()
    assert [retrying.attempts for retrying in told] == [1, 2]


def put(session: Any) -> None:
    """Accept a message, and wait for nothing."""
    getattr(session, "_wrapped", session)._outbox.put(b"x", now=0.0)
