"""Configs: what can be said, and what S2's words for it become."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.config import (
    BasinConfig,
    Cipher,
    Retention,
    StorageClass,
    StreamConfig,
    TimestampingMode,
)
from s2frames.errors import LocalProtocolError, RemoteProtocolError
from s2frames.u64 import U64_MAX
from strategies import any_json

FULL_STREAM_CONFIG = StreamConfig(
    storage_class=StorageClass.EXPRESS,
    retention=3600,
    timestamping=TimestampingMode.CLIENT_REQUIRE,
    uncapped=True,
    delete_on_empty=0,
)
FULL_STREAM_CONFIG_JSON = {
    "storage_class": "express",
    "retention_policy": {"age": 3600},
    "timestamping": {"mode": "client-require", "uncapped": True},
    "delete_on_empty": {"min_age_secs": 0},
}


@pytest.mark.parametrize(
    ("config", "value"),
    [
        (StreamConfig(), {}),
        (FULL_STREAM_CONFIG, FULL_STREAM_CONFIG_JSON),
        (StreamConfig(retention=Retention.INFINITE), {"retention_policy": {"infinite": {}}}),
        (StreamConfig(retention=U64_MAX), {"retention_policy": {"age": U64_MAX}}),
        (StreamConfig(uncapped=False), {"timestamping": {"uncapped": False}}),
        (
            StreamConfig(timestamping=TimestampingMode.ARRIVAL),
            {"timestamping": {"mode": "arrival"}},
        ),
        (StreamConfig(delete_on_empty=0), {"delete_on_empty": {"min_age_secs": 0}}),
        (StreamConfig(extra={"new": [1]}), {"new": [1]}),
        (StreamConfig(extra={"storage_class": "glacier"}), {"storage_class": "glacier"}),
        (
            StreamConfig(extra={"retention_policy": {"until": 7}}),
            {"retention_policy": {"until": 7}},
        ),
        (
            StreamConfig(uncapped=True, extra={"timestamping": {"mode": "moon", "drift": 1}}),
            {"timestamping": {"mode": "moon", "drift": 1, "uncapped": True}},
        ),
        (
            StreamConfig(delete_on_empty=1, extra={"delete_on_empty": {"grace": 2}}),
            {"delete_on_empty": {"min_age_secs": 1, "grace": 2}},
        ),
    ],
)
def test_stream_config_both_ways(config: StreamConfig, value: dict[str, Any]) -> None:
    assert config.to_json() == value
    assert StreamConfig.from_json(value) == config


@pytest.mark.parametrize(
    ("config", "value"),
    [
        (BasinConfig(), {}),
        (
            BasinConfig(default_stream_config=StreamConfig(uncapped=True)),
            {"default_stream_config": {"timestamping": {"uncapped": True}}},
        ),
        (BasinConfig(default_stream_config=StreamConfig()), {"default_stream_config": {}}),
        (BasinConfig(stream_cipher=Cipher.AES_256_GCM), {"stream_cipher": "aes-256-gcm"}),
        (
            BasinConfig(create_stream_on_append=True, create_stream_on_read=False),
            {"create_stream_on_append": True, "create_stream_on_read": False},
        ),
        (
            BasinConfig(extra={"stream_cipher": "rot-13", "x": 1}),
            {"stream_cipher": "rot-13", "x": 1},
        ),
    ],
)
def test_basin_config_both_ways(config: BasinConfig, value: dict[str, Any]) -> None:
    assert config.to_json() == value
    assert BasinConfig.from_json(value) == config


def test_null_is_unset() -> None:
    nulls = dict.fromkeys(FULL_STREAM_CONFIG_JSON)
    assert StreamConfig.from_json(nulls) == StreamConfig()
    inner = {"timestamping": {"mode": None, "uncapped": None}, "delete_on_empty": {}}
    assert StreamConfig.from_json(inner) == StreamConfig()
    assert BasinConfig.from_json({"default_stream_config": None, "stream_cipher": None}) == (
        BasinConfig()
    )


def test_set_field_overrules_what_a_newer_server_said() -> None:
    said = StreamConfig.from_json(
        {"storage_class": "glacier", "retention_policy": {"until": 7}, "new": 1}
    )
    config = attrs.evolve(said, storage_class=StorageClass.STANDARD, retention=60)
    assert config.to_json() == {
        "storage_class": "standard",
        "retention_policy": {"age": 60},
        "new": 1,
    }


def test_reading_leaves_the_value_as_it_was() -> None:
    value = json.loads(json.dumps({"default_stream_config": FULL_STREAM_CONFIG_JSON}))
    assert BasinConfig.from_json(value) == BasinConfig.from_json(value)
    assert value == {"default_stream_config": FULL_STREAM_CONFIG_JSON}


def test_configs_hash_with_extra() -> None:
    assert len({StreamConfig(extra={"a": 1}), StreamConfig(extra={"a": 1})}) == 1
    assert hash(BasinConfig(extra={"a": []})) == hash(BasinConfig(extra={"a": []}))


unknown = st.dictionaries(st.text(min_size=1).map("new_".__add__), any_json, max_size=3)
stream_configs = st.builds(
    StreamConfig,
    storage_class=st.none() | st.sampled_from(StorageClass),
    retention=st.none() | st.just(Retention.INFINITE) | st.integers(1, U64_MAX),
    timestamping=st.none() | st.sampled_from(TimestampingMode),
    uncapped=st.none() | st.booleans(),
    delete_on_empty=st.none() | st.integers(0, U64_MAX),
    extra=unknown,
)
basin_configs = st.builds(
    BasinConfig,
    default_stream_config=st.none() | stream_configs,
    stream_cipher=st.none() | st.sampled_from(Cipher),
    create_stream_on_append=st.none() | st.booleans(),
    create_stream_on_read=st.none() | st.booleans(),
    extra=unknown,
)


@given(basin_configs)
def test_any_config_survives_the_round_trip(config: BasinConfig) -> None:
    assert BasinConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("storage_class", "express"),
        ("storage_class", Cipher.AEGIS_256),
        ("retention", 0),
        ("retention", -1),
        ("retention", U64_MAX + 1),
        ("retention", True),
        ("retention", 1.5),
        ("retention", "infinite"),
        ("timestamping", "arrival"),
        ("uncapped", 1),
        ("uncapped", "yes"),
        ("delete_on_empty", -1),
        ("delete_on_empty", U64_MAX + 1),
        ("delete_on_empty", Retention.INFINITE),
        ("extra", None),
        ("extra", [("a", 1)]),
        ("extra", {1: "a"}),
    ],
)
def test_bad_stream_config(name: str, value: Any) -> None:
    with pytest.raises(LocalProtocolError, match=name):
        StreamConfig(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("default_stream_config", {}),
        ("stream_cipher", "aegis-256"),
        ("create_stream_on_append", 1),
        ("create_stream_on_read", "no"),
        ("extra", 7),
    ],
)
def test_bad_basin_config(name: str, value: Any) -> None:
    with pytest.raises(LocalProtocolError, match=name):
        BasinConfig(**{name: value})


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (None, "a stream's config"),
        ([], "a stream's config"),
        ({"storage_class": 1}, "storage_class"),
        ({"storage_class": "\ud800"}, "storage_class"),
        ({"retention_policy": 3600}, "retention_policy"),
        ({"retention_policy": {"age": "1h"}}, "age"),
        ({"retention_policy": {"age": 0}}, "age"),
        ({"retention_policy": {"age": U64_MAX + 1}}, "age"),
        ({"retention_policy": {"age": True}}, "age"),
        ({"timestamping": "arrival"}, "timestamping"),
        ({"timestamping": {"mode": {}}}, "mode"),
        ({"timestamping": {"uncapped": 0}}, "uncapped"),
        ({"delete_on_empty": 0}, "delete_on_empty"),
        ({"delete_on_empty": {"min_age_secs": -1}}, "min_age_secs"),
        ({"delete_on_empty": {"min_age_secs": 1.5}}, "min_age_secs"),
    ],
)
def test_config_of_another_shape(value: object, named: str) -> None:
    with pytest.raises(RemoteProtocolError, match=named):
        StreamConfig.from_json(value)
    with pytest.raises(RemoteProtocolError):
        BasinConfig.from_json([value])


@given(any_json)
def test_any_json_as_a_config(value: object) -> None:
    for kind in (StreamConfig, BasinConfig):
        try:
            config = kind.from_json(value)
        except RemoteProtocolError:
            continue
        assert kind.from_json(config.to_json()).to_json() == config.to_json()
