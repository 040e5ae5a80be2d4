from __future__ import annotations

import pytest

from s2frames.embedded.catalog import Access, Catalog
from s2frames.embedded.config import DEFAULT_STREAM_CONFIG, BasinConfig, StreamConfig
from s2frames.embedded.store import MemoryStore
from s2frames.errors import ServiceError
from s2frames.records import Record
from s2frames.rest import Provisioned
from s2frames.wire import AppendInput

BASIN = "basin-one"
KEY = (BASIN, "stream")
NOTHING = ("no-such-basin", "stream")
ARRIVAL = StreamConfig(timestamping_mode="arrival")


def make_catalog(config: BasinConfig | None = None) -> Catalog:
    catalog = Catalog(MemoryStore())
    catalog.create_basin(BASIN, config or BasinConfig(), None, 1.0)
    return catalog


def code_of(error: pytest.ExceptionInfo[ServiceError]) -> str | None:
    return error.value.code


def test_creating_twice_needs_the_same_token_and_configuration() -> None:
    catalog = make_catalog()
    config = BasinConfig()
    assert catalog.create_basin("basin-two", config, "t", 2.0)[0] is Provisioned.CREATED
    provision, basin = catalog.create_basin("basin-two", config, "t", 3.0)
    assert (provision, basin.created_at) == (Provisioned.NOOP, 2.0)
    other = BasinConfig(create_stream_on_read=True)
    for token, again in ((None, config), ("u", config), ("t", other)):
        with pytest.raises(ServiceError) as raised:
            catalog.create_basin("basin-two", again, token, 3.0)
        assert code_of(raised) == "resource_already_exists"
    assert catalog.create_stream(KEY, ARRIVAL, "t", 2.0)[0] is Provisioned.CREATED
    assert catalog.create_stream(KEY, ARRIVAL, "t", 3.0)[0] is Provisioned.NOOP
    for token, again_config in ((None, ARRIVAL), ("u", ARRIVAL), ("t", StreamConfig())):
        with pytest.raises(ServiceError) as raised:
            catalog.create_stream(KEY, again_config, token, 3.0)
        assert code_of(raised) == "resource_already_exists"


def test_a_create_without_token_is_never_repeated() -> None:
    catalog = make_catalog()
    with pytest.raises(ServiceError) as raised:
        catalog.create_basin(BASIN, BasinConfig(), None, 2.0)
    assert code_of(raised) == "resource_already_exists"


def test_ensuring_creates_changes_or_does_nothing() -> None:
    catalog = make_catalog()
    config = BasinConfig(create_stream_on_append=True)
    assert catalog.ensure_basin("basin-two", config, 2.0)[0] is Provisioned.CREATED
    assert catalog.ensure_basin("basin-two", config, 3.0)[0] is Provisioned.NOOP
    provision, basin = catalog.ensure_basin("basin-two", BasinConfig(), 4.0)
    assert (provision, basin.created_at) == (Provisioned.UPDATED, 2.0)
    assert catalog.basin("basin-two").config == BasinConfig()
    assert catalog.ensure_stream(KEY, ARRIVAL, 2.0)[0] is Provisioned.CREATED
    assert catalog.ensure_stream(KEY, ARRIVAL, 3.0)[0] is Provisioned.NOOP
    provision, info = catalog.ensure_stream(KEY, StreamConfig(), 4.0)
    assert (provision, info.created_at, info.config) == (
        Provisioned.UPDATED,
        2.0,
        DEFAULT_STREAM_CONFIG,
    )


def test_a_streams_configuration_is_complete_and_its_own() -> None:
    catalog = make_catalog(BasinConfig(ARRIVAL))
    catalog.create_stream(KEY, StreamConfig(storage_class="standard"), None, 2.0)
    expected = StreamConfig("standard", {"age": 604_800}, "arrival", False, 0)
    assert catalog.stream_info(KEY).config == expected
    catalog.reconfigure_basin(BASIN, {"default_stream_config": None})
    assert catalog.stream_info(KEY).config == expected
    config = catalog.reconfigure_stream(KEY, {"timestamping": None})
    assert config.timestamping_mode == "client-prefer"


def test_a_stream_in_use_obeys_its_new_configuration() -> None:
    catalog = make_catalog()
    catalog.create_stream(KEY, StreamConfig(), None, 1.0)
    stream = catalog.open_stream(KEY, Access.APPEND, 1.0)
    catalog.reconfigure_stream(KEY, {"timestamping": {"mode": "client-require"}})
    with pytest.raises(ServiceError, match="requires a timestamp"):
        stream.append(AppendInput([Record()]), 2.0)
    catalog.ensure_stream(KEY, StreamConfig(), 2.0)
    stream.append(AppendInput([Record()]), 2.0)


def test_a_stream_in_use_is_one_object() -> None:
    catalog = make_catalog()
    catalog.create_stream(KEY, StreamConfig(), None, 1.0)
    stream = catalog.open_stream(KEY, Access.READ, 1.0)
    assert catalog.open_stream(KEY, Access.APPEND, 2.0) is stream


@pytest.mark.parametrize(
    ("access", "config", "is_created"),
    [
        (Access.APPEND, BasinConfig(create_stream_on_append=True), True),
        (Access.READ, BasinConfig(create_stream_on_read=True), True),
        (Access.APPEND, BasinConfig(create_stream_on_read=True), False),
        (Access.READ, BasinConfig(create_stream_on_append=True), False),
    ],
)
def test_missing_streams_are_created_as_the_basin_says(
    access: Access, config: BasinConfig, is_created: bool
) -> None:
    catalog = make_catalog(config)
    if is_created:
        assert catalog.open_stream(KEY, access, 5.0).info.created_at == 5.0
        assert catalog.stream_info(KEY).config == DEFAULT_STREAM_CONFIG
        return
    with pytest.raises(ServiceError) as raised:
        catalog.open_stream(KEY, access, 5.0)
    assert code_of(raised) == "stream_not_found"


def test_deleting_ends_the_streams_in_use() -> None:
    catalog = make_catalog()
    other = (BASIN, "other")
    for key in (KEY, other):
        catalog.create_stream(key, StreamConfig(), None, 1.0)
    streams = [catalog.open_stream(key, Access.READ, 1.0) for key in (KEY, other)]
    catalog.delete_stream(KEY, 2.0)
    streams[1].check_exists()
    catalog.delete_basin(BASIN, 3.0)
    for stream in streams:
        with pytest.raises(ServiceError, match="was deleted"):
            stream.check_exists()
    catalog.create_basin(BASIN, BasinConfig(), None, 4.0)
    catalog.create_stream(KEY, StreamConfig(), None, 4.0)
    assert catalog.open_stream(KEY, Access.READ, 4.0) is not streams[0]


def test_what_is_not_there() -> None:
    catalog = make_catalog()
    for use, code in (
        (lambda: catalog.basin(NOTHING[0]), "basin_not_found"),
        (lambda: catalog.delete_basin(NOTHING[0], 1.0), "basin_not_found"),
        (lambda: catalog.reconfigure_basin(NOTHING[0], {}), "basin_not_found"),
        (lambda: catalog.streams(NOTHING[0], "", ""), "basin_not_found"),
        (lambda: catalog.create_stream(NOTHING, ARRIVAL, None, 1.0), "basin_not_found"),
        (lambda: catalog.ensure_stream(NOTHING, ARRIVAL, 1.0), "basin_not_found"),
        (lambda: catalog.reconfigure_stream(NOTHING, {}), "basin_not_found"),
        (lambda: catalog.open_stream(NOTHING, Access.READ, 1.0), "basin_not_found"),
        (lambda: catalog.stream_info(NOTHING), "stream_not_found"),
        (lambda: catalog.stream_info(KEY), "stream_not_found"),
        (lambda: catalog.delete_stream(KEY, 1.0), "stream_not_found"),
        (lambda: catalog.reconfigure_stream(KEY, {}), "stream_not_found"),
        (lambda: catalog.open_stream(KEY, Access.APPEND, 1.0), "stream_not_found"),
    ):
        with pytest.raises(ServiceError) as raised:
            use()
        assert code_of(raised) == code
