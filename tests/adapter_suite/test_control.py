"""Basins and streams, with every adapter and in every place."""

from __future__ import annotations

import pytest

from s2frames import (
    BasinConfig,
    LocalProtocolError,
    Provisioned,
    Retention,
    ServiceError,
    StorageClass,
    StreamConfig,
    TimestampingMode,
)
from scenes import EMBEDDED_SCENES, World, in_block

STREAM_CONFIG = StreamConfig(
    storage_class=StorageClass.STANDARD,
    retention=3600,
    timestamping=TimestampingMode.CLIENT_REQUIRE,
    uncapped=True,
    delete_on_empty=60,
)


async def test_ensure_tells_what_it_did(s2: World) -> None:
    stream = s2.client.stream(s2.basin, "ensured")
    assert await stream.ensure(STREAM_CONFIG) is Provisioned.CREATED
    assert await stream.ensure(STREAM_CONFIG) is Provisioned.NOOP
    assert await stream.ensure(StreamConfig(retention=60)) is Provisioned.UPDATED


async def test_a_streams_config_comes_back(s2: World) -> None:
    stream = s2.client.stream(s2.basin, "configured")
    await stream.create(STREAM_CONFIG)
    config = await stream.config()
    assert config == STREAM_CONFIG
    await stream.ensure(StreamConfig(retention=Retention.INFINITE))
    assert (await stream.config()).retention is Retention.INFINITE


async def test_a_basins_config_comes_back(s2: World) -> None:
    config = BasinConfig(
        default_stream_config=STREAM_CONFIG,
        create_stream_on_append=True,
        create_stream_on_read=False,
    )
    assert await s2.client.ensure_basin(s2.basin, config) is Provisioned.UPDATED
    read = await s2.client.basin_config(s2.basin)
    assert read == config
    assert await s2.client.ensure_basin(s2.basin, read) is Provisioned.NOOP


async def test_a_stream_can_be_made_by_appending(s2: World) -> None:
    await s2.client.ensure_basin(s2.basin, BasinConfig(create_stream_on_append=True))
    stream = s2.client.stream(s2.basin, "made by appending")
    async with stream.append_session() as session:
        await session.append(b"x")
    assert (await stream.check_tail()).seq_num == 1


async def test_creating_twice_is_an_error(s2: World) -> None:
    with pytest.raises(ServiceError) as again:
        await s2.stream.create()
    with pytest.raises(ServiceError) as basin_again:
        await s2.client.create_basin(s2.basin)
    for error in (again.value, basin_again.value):
        assert (error.status, error.code) == (409, "resource_already_exists")


@pytest.mark.parametrize("name", ["a", "room/1/../2", "ä b?c#d%2F", "x" * 512])
async def test_names_of_streams(s2: World, name: str) -> None:
    stream = s2.client.stream(s2.basin, name)
    await stream.ensure()
    async with stream.append_session() as session:
        await session.append(b"x")
    assert (await stream.check_tail()).seq_num == 1
    assert name in [info.name async for info in s2.client.list_streams(s2.basin)]


async def test_check_tail(s2: World) -> None:
    assert (await s2.stream.check_tail()).seq_num == 0
    async with s2.stream.append_session() as session:
        await session.append(b"x", timestamp=5000)
    tail = await s2.stream.check_tail()
    assert (tail.seq_num, tail.timestamp) == (1, 5000)


async def test_lists_are_in_order_and_can_be_narrowed(s2: World) -> None:
    for name in ("b", "a/2", "a/1"):
        await s2.client.stream(s2.basin, name).create()
    names = [info.name async for info in s2.client.list_streams(s2.basin)]
    assert names == ["a/1", "a/2", "b", "room/1"]
    narrowed = [info.name async for info in s2.client.list_streams(s2.basin, "a/")]
    assert narrowed == ["a/1", "a/2"]
    basins = [info.name async for info in s2.client.list_basins(s2.basin)]
    assert basins == [s2.basin]


@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_a_list_longer_than_a_page(s2: World) -> None:
    expected = [f"s{n:04}" for n in range(1001)]
    for name in expected:
        await s2.client.stream(s2.basin, name).create()
    listed = [info.name async for info in s2.client.list_streams(s2.basin, "s")]
    assert listed == expected


async def test_a_deleted_stream_is_gone(s2: World) -> None:
    await s2.stream.delete()
    with pytest.raises(ServiceError):
        await s2.stream.check_tail()
    listed = [info async for info in s2.client.list_streams(s2.basin)]
    # Deleting may take a while; until then it is said when it began.
    assert all(info.deleted_at is not None for info in listed)


async def test_a_deleted_basin_is_gone(s2: World) -> None:
    await s2.client.delete_basin(s2.basin)
    with pytest.raises(ServiceError):
        await s2.client.stream(s2.basin, "new").create()


# What is not there


async def test_a_missing_stream(s2: World) -> None:
    stream = s2.client.stream(s2.basin, "missing")
    async with stream.read_session() as reading, in_block(stream.append_session()) as session:
        for call in (
            stream.check_tail,
            stream.config,
            lambda: anext(aiter(reading)),
            # The last: whoever refuses a request before it is complete may hang up.
            lambda: session.append(b"x"),
        ):
            with pytest.raises(ServiceError) as raised:
                await call()
            assert (raised.value.status, raised.value.code) == (404, "stream_not_found")


async def test_a_missing_basin(s2: World) -> None:
    stream = s2.client.stream("no-such-basin", "room/1")
    async with stream.read_session() as reading, in_block(stream.append_session()) as session:
        for call in (
            stream.check_tail,
            stream.create,
            lambda: anext(aiter(reading)),
            lambda: s2.client.basin_config("no-such-basin"),
            lambda: session.append(b"x"),
        ):
            with pytest.raises(ServiceError) as raised:
                await call()
            assert (raised.value.status, raised.value.code) == (404, "basin_not_found")


@pytest.mark.parametrize(
    ("basin", "name"),
    [
        ("short", "x"),
        ("UPPERCASE", "x"),
        ("a" * 49, "x"),
        (5, "x"),
        ("test-basin", ""),
        ("test-basin", "."),
        ("test-basin", "x" * 513),
        ("test-basin", "\ud800"),
        ("test-basin", b"x"),
        ("test-basin", None),
    ],
)
@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_names_that_nothing_can_have(s2: World, basin: str, name: str) -> None:
    with pytest.raises(LocalProtocolError):
        s2.client.stream(basin, name)


@pytest.mark.parametrize("key", [b"", b"x" * 31, "x" * 32])
@pytest.mark.parametrize("s2", EMBEDDED_SCENES, indirect=True, ids=str)
async def test_an_encryption_key_that_cannot_be_one(s2: World, key: bytes) -> None:
    with pytest.raises(LocalProtocolError, match="32 bytes"):
        s2.client.stream(s2.basin, "x", encryption_key=key)
