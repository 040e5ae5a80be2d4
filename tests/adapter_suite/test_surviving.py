"""Sessions and calls that lose connections, with every adapter: nobody notices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from live_service import LiveService, refused_url
from s2frames import (
    Appended,
    Endpoints,
    LocalProtocolError,
    Outcome,
    S2FramesError,
    ServiceError,
    Settings,
    TransportError,
)
from s2frames.errors import ConnectError
from s2frames.retry import Retry
from s2frames.session import Retrying
from s2frames_httpx import AsyncClient, AsyncStream
from scenes import (
    HTTPX_EMBEDDED_SCENES,
    Flavour,
    World,
    every_flavour,
    open_client,
    together,
)

# Tries again at once.
FAST = Retry(min_delay=0, max_delay=0)

# What is lost here is lost by a transport of httpx.
embedded = pytest.mark.parametrize(
    "s2",
    [pytest.param((scene, {"retry": FAST}), id=str(scene)) for scene in HTTPX_EMBEDDED_SCENES],
    indirect=True,
)


def stream_of(client: AsyncClient, s2: World) -> AsyncStream:
    return client.stream(s2.basin, "room/1")


async def read_all(s2: World) -> tuple[list[bytes], int]:
    """The messages, and how many repeats were dropped."""
    async with s2.stream.read_session() as messages:
        received = [message async for message in messages]
        return received, messages.stats.duplicates


# A server that is gone for a while

OUTAGE_SECONDS = 5.0
NUM_MESSAGES = 1000


@every_flavour
async def test_a_server_that_is_gone_for_five_seconds(flavour: Flavour) -> None:
    expected = [b"%d " % n * 200 for n in range(NUM_MESSAGES)]
    received: list[bytes] = []
    retries: dict[str, list[Retrying]] = {"append": [], "read": []}
    with LiveService(speaks_http2=not flavour.uses_httpx) as service:

        def messages() -> Iterator[bytes]:
            for n, message in enumerate(expected):
                if n == NUM_MESSAGES // 2:
                    service.be_gone_for(OUTAGE_SECONDS)
                yield message

        async with open_client(flavour, Settings(endpoints=Endpoints.at(service.url))) as client:
            await client.create_basin("test-basin")
            stream = client.stream("test-basin", "room/1")
            await stream.create()

            async def write() -> None:
                bursts: Any = {"burst_batches": 2} if flavour.uses_httpx else {}
                async with stream.append_session(
                    linger=0, on_retry=retries["append"].append, **bursts
                ) as session:
                    # Goes through before, so that an outage is what follows.
                    await session.append(b"first")
                    await session.append_many(messages())
                    assert session.durable_messages == NUM_MESSAGES + 1

            async def read() -> None:
                async with stream.read_session(
                    follow=True, limit=NUM_MESSAGES + 1, on_retry=retries["read"].append
                ) as reading:
                    received.extend([message async for message in reading])

            await together(flavour, write, read)
    assert received == [b"first", *expected]
    for told in retries.values():
        assert any(isinstance(retrying.error, ConnectError) for retrying in told)


# Lost answers


@embedded
@pytest.mark.parametrize("lost", [{0}, {0, 1, 2}, {1, 3}, range(0, 100, 2)])
@pytest.mark.parametrize("burst_batches", [1, 2])
async def test_lost_acks_lose_and_double_nothing(s2: World, lost: Any, burst_batches: int) -> None:
    messages = [b"%d" % n for n in range(4500)] + [b"x" * 2_500_000, b"last"]
    durable: list[Appended] = []
    async with (
        s2.losing_client(lost) as client,
        stream_of(client, s2).append_session(burst_batches=burst_batches) as session,
    ):
        await session.append_many(messages, durable.append)
        assert session.durable_messages == len(messages)
    received, duplicates = await read_all(s2)
    assert received == messages
    assert duplicates > 0
    assert len(durable) == len(messages)
    assert [a.start for a in durable] == sorted({a.start for a in durable})


@embedded
@pytest.mark.parametrize("lost", [{1}, {1, 2, 3}, {2, 5}, range(1, 100, 3)])
@pytest.mark.parametrize("keep_bytes", [None, 20])
async def test_an_exclusive_writer_leaves_no_repeat_in_the_stream(
    s2: World, lost: Any, keep_bytes: int | None
) -> None:
    messages = [b"%d" % n for n in range(4500)] + [b"x" * 2_500_000, b"last"]
    async with (
        s2.losing_client(lost, keep_bytes) as client,
        stream_of(client, s2).append_session(exclusive=True, burst_batches=2) as session,
    ):
        appended = await session.append_many(messages)
    assert await read_all(s2) == (messages, 0)
    tail = (await s2.stream.check_tail()).seq_num
    assert (appended, tail) == (Appended(0, tail), 4501 + 3)


@embedded
@pytest.mark.parametrize("keep_bytes", [None, 0, 3, 100, 1_000_000, 3_000_000])
async def test_a_read_goes_on_at_the_next_record(s2: World, keep_bytes: int | None) -> None:
    messages = [b"%d" % n * 1000 for n in range(1000)] + [b"x" * 2_500_000, b"last"]
    async with s2.stream.append_session() as session:
        await session.append_many(messages)
    told: list[Retrying] = []
    async with (
        s2.losing_client({0, 1}, keep_bytes) as client,
        stream_of(client, s2).read_session(on_retry=told.append) as reading,
    ):
        assert [message async for message in reading] == messages
        assert reading.stats.duplicates == 0
    assert told
    assert {str(retrying.error).partition(";")[0] for retrying in told} == {
        "the connection broke: http://embedded.localhost: the answer is lost"
    }


@embedded
@pytest.mark.parametrize("form", ["messages", "frames", "batches"])
async def test_an_on_retry_that_raises_costs_no_message_of_a_read(s2: World, form: str) -> None:
    messages = [b"%d" % n * 1000 for n in range(100)]
    async with s2.stream.append_session() as session:
        await session.append_many(messages)
    told: list[Retrying] = []

    def fail(retrying: Retrying) -> None:
        told.append(retrying)
        raise KeyError(len(told))

    received: list[bytes] = []
    raised: list[object] = []
    async with (
        s2.losing_client({0, 2}, 20_000) as client,
        stream_of(client, s2).read_session(on_retry=fail) as reading,
    ):
        items = aiter(reading if form == "messages" else getattr(reading, form)())
        while True:
            try:
                item = await anext(items)
            except KeyError as error:
                raised += error.args
                continue
            except StopAsyncIteration:
                break
            received += {"messages": [item], "batches": item}.get(form) or [item.message]
    assert received == messages
    # Each was told once, and what it raised came out of the call.
    assert raised == list(range(1, len(told) + 1))
    assert told


@embedded
async def test_batches_before_the_error_that_ends_a_session_are_handed_out(s2: World) -> None:
    messages = [b"%d" % n * 1000 for n in range(1000)] + [b"x" * 2_500_000, b"last"]
    async with s2.stream.append_session() as session:
        await session.append_many(messages)
    received: list[bytes] = []
    async with (
        s2.losing_client({0}, 2_000_000) as client,
        stream_of(client, s2).read_session(retry=Retry(max_attempts=1)) as reading,
    ):
        batches = aiter(reading.batches())
        error: TransportError | None = None
        while error is None:
            try:
                batch = await anext(batches)
            except TransportError as raised:
                error = raised
            else:
                assert batch
                received += batch
        assert "the answer is lost" in str(error)
        checkpoint = reading.checkpoint()
    assert 0 < len(received) < len(messages)
    async with s2.stream.read_session(start=checkpoint) as rest:
        assert received + [message async for message in rest] == messages


# When to stop


@embedded
async def test_an_append_gives_up_in_the_end_and_another_session_goes_on(s2: World) -> None:
    told: list[Retrying] = []
    async with s2.losing_client(range(100)) as client:
        session = stream_of(client, s2).append_session(
            retry=Retry(max_attempts=3, min_delay=0, max_delay=0), on_retry=told.append
        )
        with pytest.raises(TransportError) as raised:
            await session.append_many([b"a", b"b" * 2_000_000])
    error = raised.value
    assert (error.attempts, error.outcome, error.durable_messages) == (3, Outcome.UNKNOWN, 0)
    assert str(error).endswith("; tried 3 times; 0 messages durable, more may be")
    assert [retrying.attempts for retrying in told] == [1, 2]
    pending = session.pending()
    assert [message.payload for message in pending.messages] == [b"a", b"b" * 2_000_000]
    assert pending.state is not None
    async with s2.stream.append_session(resume=pending.state) as another:
        for message in pending.messages:
            await another.append(message.payload, message.headers, message.timestamp)
        await another.append(b"c")
    received, _ = await read_all(s2)
    assert received == [b"a", b"b" * 2_000_000, b"c"]


@embedded
async def test_a_read_gives_up_in_the_end(s2: World) -> None:
    async with (
        s2.losing_client(range(100)) as client,
        stream_of(client, s2).read_session(retry=Retry(max_attempts=1)) as reading,
    ):
        with pytest.raises(TransportError, match="answer is lost") as raised:
            await anext(aiter(reading))
    assert raised.value.attempts == 1


@embedded
async def test_without_dedupe_what_may_have_landed_is_not_sent_again(s2: World) -> None:
    async with s2.losing_client({0}) as client:
        session = stream_of(client, s2).append_session(dedupe=False)
        with pytest.raises(TransportError) as raised:
            await session.append(b"a")
        assert raised.value.outcome is Outcome.UNKNOWN
        with pytest.raises(TransportError):
            await session.close()
    assert await read_all(s2) == ([b"a"], 0)


@embedded
async def test_without_dedupe_duplicates_may_be_allowed(s2: World) -> None:
    async with (
        s2.losing_client({0}) as client,
        stream_of(client, s2).append_session(dedupe=False, allow_duplicates=True) as session,
    ):
        await session.append(b"a")
    assert await read_all(s2) == ([b"a", b"a"], 0)


Work = Callable[[AsyncClient], Awaitable[object]]


async def call(client: AsyncClient) -> object:
    return await client.basin_config("test-basin")


async def append(client: AsyncClient) -> object:
    stream = client.stream("test-basin", "room/1")
    async with stream.append_session(dedupe=False) as session:
        return await session.append(b"x")


async def read(client: AsyncClient) -> object:
    async with client.stream("test-basin", "room/1").read_session() as messages:
        return [message async for message in messages]


@every_flavour
@pytest.mark.parametrize("work", [call, append, read])
async def test_an_address_that_never_answered_is_given_up_soon(
    flavour: Flavour, work: Work
) -> None:
    # Else this would take an hour.
    retry = Retry(connect_seconds=0.3, max_seconds=3600)
    with refused_url() as url:
        settings = Settings(endpoints=Endpoints.at(url), retry=retry)
        async with open_client(flavour, settings) as client:
            with pytest.raises(ConnectError) as raised:
                await work(client)
    assert raised.value.attempts is not None
    assert raised.value.attempts > 1
    if work is append:
        assert raised.value.outcome is Outcome.NOT_APPLIED


@every_flavour
@pytest.mark.parametrize("work", [call, append, read])
async def test_what_starts_a_moment_before_its_server_waits_for_it(
    flavour: Flavour, work: Work
) -> None:
    with LiveService(speaks_http2=not flavour.uses_httpx) as service:
        settings = Settings(endpoints=Endpoints.at(service.url))
        async with open_client(flavour, settings) as client:
            await client.create_basin("test-basin")
            await client.stream("test-basin", "room/1").create()
            service.be_gone_for(0.5)
            await work(client)


@embedded
async def test_a_client_that_is_closed_between_two_attempts(s2: World) -> None:
    async with s2.losing_client(range(100)) as client:
        http: Any = client.http

        def close(_retrying: Retrying) -> None:
            # What `close` sets; closing for good takes an event loop in one flavour.
            http._state = type(http._state).CLOSED

        session = stream_of(client, s2).append_session(on_retry=close)
        with pytest.raises(LocalProtocolError, match="client is closed") as raised:
            await session.append(b"a")
    assert raised.value.outcome is Outcome.UNKNOWN


# Calls


@embedded
async def test_a_stream_is_created_once(s2: World) -> None:
    async with s2.losing_client({0, 1}) as client:
        stream = client.stream(s2.basin, "new")
        await stream.create()
        with pytest.raises(ServiceError, match="resource_already_exists"):
            await stream.create()


@embedded
async def test_a_basin_is_created_once(s2: World) -> None:
    async with s2.losing_client({0, 1}) as client:
        await client.create_basin("new-basin")
        with pytest.raises(ServiceError, match="resource_already_exists"):
            await client.create_basin("new-basin")


@embedded
async def test_what_is_gone_already_was_deleted_by_the_attempt_before(s2: World) -> None:
    async with s2.losing_client({0}) as client:
        await stream_of(client, s2).delete()
        with pytest.raises(ServiceError, match="stream_not_found"):
            await stream_of(client, s2).delete()
    async with s2.losing_client({0}) as client:
        await client.delete_basin(s2.basin)
        with pytest.raises(ServiceError, match="basin_not_found"):
            await client.delete_basin(s2.basin)


@embedded
async def test_a_fence_that_expects_a_token_survives_a_lost_answer(s2: World) -> None:
    async with s2.losing_client({0}) as client:
        await stream_of(client, s2).fence("mine", expect="")
    assert await s2.stream.fencing_token() == "mine"


@embedded
async def test_a_fence_that_expects_nothing_is_not_sent_twice(s2: World) -> None:
    async with s2.losing_client({0}) as client:
        with pytest.raises(TransportError, match="answer is lost") as raised:
            await stream_of(client, s2).fence("mine")
    assert raised.value.outcome is Outcome.UNKNOWN
    assert (await s2.stream.check_tail()).seq_num == 1


@embedded
async def test_other_stream_calls_survive_lost_answers(s2: World) -> None:
    async with s2.stream.append_session(exclusive=True) as session:
        await session.append_many([b"a", b"b"])
        writer_id = session.writer_id
    assert writer_id is not None
    async with s2.losing_client({0, 2, 3, 5, 7, 8}) as client:
        stream = stream_of(client, s2)
        assert (await stream.check_tail()).seq_num == 2
        assert await stream.fencing_token() == ""
        await stream.trim(1)
        state = await stream.recover_writer(writer_id, search_from=1)
        assert (state.writer_id, state.next_dedupe_seq) == (writer_id, 2)
    async with s2.stream.append_session(exclusive=True, resume=state) as session:
        await session.append(b"c")
    received, duplicates = await read_all(s2)
    assert (received[-1], duplicates) == (b"c", 0)


@embedded
async def test_a_list_goes_on_after_a_lost_page(s2: World) -> None:
    async with s2.losing_client({0}) as client:
        assert [info.name async for info in client.list_streams(s2.basin)] == ["room/1"]


# Secrets

KEY = b"key-that-is-secret-of-32-bytes.."


@embedded
@pytest.mark.parametrize("keep_bytes", [None, 3])
async def test_errors_after_retries_tell_no_secret(s2: World, keep_bytes: int | None) -> None:
    told: list[object] = []
    changes = {"access_token": "token-that-is-secret", "retry": Retry(max_attempts=2)}
    async with s2.losing_client(range(100), keep_bytes, **changes) as client:
        stream = client.stream(
            s2.basin, "room/1", encryption_key=b"key-that-is-secret-of-32-bytes.."
        )
        session = stream.append_session(on_retry=told.append)
        async with stream.read_session(on_retry=told.append) as messages:
            for work in (
                lambda: session.append(b"x"),
                lambda: anext(aiter(messages)),
                stream.fencing_token,
                lambda: stream.recover_writer("someone"),
            ):
                with pytest.raises(S2FramesError) as raised:
                    await work()
                told += [raised.value, str(raised.value)]
    assert len(told) == 10
    assert "is-secret" not in repr(told)
