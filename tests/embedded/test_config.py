from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.embedded.config import DEFAULT_STREAM_CONFIG, BasinConfig, StreamConfig
from s2frames.embedded.json_values import JsonError
from s2frames.errors import ServiceError

stream_configs = st.builds(
    StreamConfig,
    st.none() | st.sampled_from(["standard", "express", "another"]),
    st.none() | st.just({"infinite": {}}) | st.integers(1, 2**64 - 1).map(lambda n: {"age": n}),
    st.none() | st.sampled_from(["client-prefer", "client-require", "arrival"]),
    st.none() | st.booleans(),
    st.none() | st.integers(0, 2**64 - 1),
)


@given(stream_configs)
def test_a_layer_survives_json(config: StreamConfig) -> None:
    assert StreamConfig().reconfigured(config.to_json()) == config


@given(stream_configs, stream_configs)
def test_a_complete_layer_replaces_another(config: StreamConfig, other: StreamConfig) -> None:
    complete = config.over(DEFAULT_STREAM_CONFIG)
    assert other.reconfigured(complete.to_json()) == complete


@given(stream_configs)
def test_layers(config: StreamConfig) -> None:
    merged = config.over(DEFAULT_STREAM_CONFIG)
    assert config.over(StreamConfig()) == config
    assert StreamConfig().over(config) == config
    assert merged.over(DEFAULT_STREAM_CONFIG) == merged
    assert merged.storage_class == (config.storage_class or "express")


def test_the_systems_default() -> None:
    assert DEFAULT_STREAM_CONFIG.to_json() == {
        "storage_class": "express",
        "retention_policy": {"age": 604_800},
        "timestamping": {"mode": "client-prefer", "uncapped": False},
        "delete_on_empty": {"min_age_secs": 0},
    }


FULL = StreamConfig("standard", {"age": 5}, "arrival", True, 7)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, FULL),
        ({"unknown": [1]}, FULL),
        ({"storage_class": None}, StreamConfig(None, {"age": 5}, "arrival", True, 7)),
        (
            {"retention_policy": {"infinite": {}}},
            StreamConfig("standard", {"infinite": {}}, "arrival", True, 7),
        ),
        ({"timestamping": None}, StreamConfig("standard", {"age": 5}, None, None, 7)),
        (
            {"timestamping": {"mode": None}},
            StreamConfig("standard", {"age": 5}, None, True, 7),
        ),
        (
            {"timestamping": {"uncapped": False}},
            StreamConfig("standard", {"age": 5}, "arrival", False, 7),
        ),
        ({"delete_on_empty": None}, StreamConfig("standard", {"age": 5}, "arrival", True, None)),
        (
            {"delete_on_empty": {"min_age_secs": 0}},
            StreamConfig("standard", {"age": 5}, "arrival", True, 0),
        ),
        (None, StreamConfig()),
    ],
)
def test_reconfiguring(changes: Any, expected: StreamConfig) -> None:
    assert FULL.reconfigured(changes) == expected


@pytest.mark.parametrize(
    "changes",
    [
        [],
        "x",
        {"storage_class": 5},
        {"retention_policy": "7days"},
        {"retention_policy": {}},
        {"retention_policy": {"age": -1}},
        {"retention_policy": {"age": 1, "infinite": {}}},
        {"retention_policy": {"infinite": True}},
        {"timestamping": []},
        {"timestamping": {"mode": "client"}},
        {"timestamping": {"uncapped": 1}},
        {"delete_on_empty": {"min_age_secs": -1}},
        {"delete_on_empty": {"min_age_secs": None}},
        {"delete_on_empty": 5},
    ],
)
def test_what_is_no_stream_config(changes: Any) -> None:
    with pytest.raises(JsonError):
        FULL.reconfigured(changes)


def test_a_retention_age_of_nothing_is_invalid() -> None:
    with pytest.raises(ServiceError) as raised:
        FULL.reconfigured({"retention_policy": {"age": 0}})
    assert (raised.value.status, raised.value.code) == (422, "invalid")


def test_a_basins_config() -> None:
    config = BasinConfig()
    assert config.to_json() == {
        "default_stream_config": None,
        "stream_cipher": None,
        "create_stream_on_append": False,
        "create_stream_on_read": False,
    }
    changed = config.reconfigured(
        {
            "create_stream_on_read": True,
            "default_stream_config": {"timestamping": {"uncapped": True}},
            "stream_cipher": None,
        }
    )
    assert changed.to_json() == {
        "default_stream_config": {
            "storage_class": None,
            "retention_policy": None,
            "timestamping": {"mode": None, "uncapped": True},
            "delete_on_empty": None,
        },
        "stream_cipher": None,
        "create_stream_on_append": False,
        "create_stream_on_read": True,
    }
    assert changed.reconfigured({}) == changed
    assert changed.reconfigured({"default_stream_config": None}) == BasinConfig(
        create_stream_on_read=True
    )


@pytest.mark.parametrize("cipher", ["aegis-256", "aes-256-gcm"])
def test_encryption_is_refused(cipher: str) -> None:
    with pytest.raises(ServiceError, match="does not encrypt") as raised:
        BasinConfig().reconfigured({"stream_cipher": cipher})
    assert raised.value.status == 422


@pytest.mark.parametrize(
    "changes",
    [
        None,
        [],
        {"create_stream_on_append": None},
        {"create_stream_on_read": "true"},
        {"default_stream_config": []},
        {"stream_cipher": "rot13"},
    ],
)
def test_what_is_no_basin_config(changes: Any) -> None:
    with pytest.raises(JsonError):
        BasinConfig().reconfigured(changes)
