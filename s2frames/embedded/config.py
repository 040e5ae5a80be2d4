"""Basin and stream configurations: layers of defaults, and changes to them.

A stream's configuration is its own layer over the basin's default over the system's default. A
value that is None is not set at its layer. Creating and reconfiguring read the same JSON: a key
that is missing changes nothing, null clears.

Shapes and defaults are those of the server's `api/src/v1/config.rs` and `common/src/config.rs`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from attrs import asdict, evolve, field, frozen

from s2frames.config import Cipher, TimestampingMode
from s2frames.embedded.error_bodies import service_error
from s2frames.embedded.json_values import (
    JsonError,
    as_bool,
    as_choice,
    as_object,
    as_text,
    as_u64,
    optional,
)

__all__ = ["DEFAULT_STREAM_CONFIG", "BasinConfig", "StreamConfig"]

_TIMESTAMPING_MODES = tuple(mode.value for mode in TimestampingMode)
_CIPHERS = tuple(cipher.value for cipher in Cipher)


def _timestamping_mode(value: Any, what: str) -> str:
    return as_choice(value, what, _TIMESTAMPING_MODES)


def _retention_policy(value: Any, what: str) -> Mapping[str, Any]:
    policy = as_object(value, what)
    if set(policy) == {"infinite"}:
        as_object(policy["infinite"], "infinite")
        return {"infinite": {}}
    if set(policy) != {"age"}:
        raise JsonError(f"{what} is an object with age or infinite")
    if not as_u64(policy["age"], "age"):
        raise service_error("invalid", "the retention policy's age must be above 0 seconds")
    return {"age": policy["age"]}


# Where each field of a `StreamConfig` is in the JSON, and what reads it. A mapping is an object.
_STREAM_FIELDS: Mapping[str, Any] = {
    "storage_class": ("storage_class", as_text),
    "retention_policy": ("retention_policy", _retention_policy),
    "timestamping": {
        "mode": ("timestamping_mode", _timestamping_mode),
        "uncapped": ("uncapped_timestamps", as_bool),
    },
    "delete_on_empty": {"min_age_secs": ("delete_on_empty_secs", as_u64)},
}


@frozen
class StreamConfig:
    """A layer of a stream's configuration."""

    #: Kept and told, not acted on.
    storage_class: str | None = None
    #: ``{"age": seconds}`` or ``{"infinite": {}}``; kept and told, not acted on.
    retention_policy: Mapping[str, Any] | None = None
    timestamping_mode: str | None = None
    #: Whether a record's timestamp may lie in the future.
    uncapped_timestamps: bool | None = None
    #: Kept and told, not acted on.
    delete_on_empty_secs: int | None = None

    def reconfigured(self, value: Any) -> StreamConfig:
        """This layer with the changes in `value` (parsed JSON; None clears everything)."""
        if value is None:
            return StreamConfig()
        return evolve(self, **_read_changes(_STREAM_FIELDS, value, "a stream's configuration"))

    def over(self, defaults: StreamConfig) -> StreamConfig:
        """This layer, with `defaults` where it sets nothing."""
        own = {name: value for name, value in asdict(self).items() if value is not None}
        return evolve(defaults, **own)

    def to_json(self) -> dict[str, Any]:
        """This layer as S2 writes it."""
        timestamping = {"mode": self.timestamping_mode, "uncapped": self.uncapped_timestamps}
        min_age = self.delete_on_empty_secs
        return {
            "storage_class": self.storage_class,
            "retention_policy": self.retention_policy,
            "timestamping": None if set(timestamping.values()) == {None} else timestamping,
            "delete_on_empty": None if min_age is None else {"min_age_secs": min_age},
        }


#: The system's default: express storage, a week's retention.
DEFAULT_STREAM_CONFIG = StreamConfig(
    storage_class="express",
    retention_policy={"age": 7 * 24 * 60 * 60},
    timestamping_mode="client-prefer",
    uncapped_timestamps=False,
    delete_on_empty_secs=0,
)


@frozen
class BasinConfig:
    """A basin's configuration."""

    default_stream_config: StreamConfig = field(factory=StreamConfig)
    create_stream_on_append: bool = False
    create_stream_on_read: bool = False

    def reconfigured(self, value: Any) -> BasinConfig:
        """This configuration with the changes in `value` (parsed JSON).

        A cipher is refused: the embedded service stores what it is given.
        """
        changes = as_object(value, "a basin's configuration")
        config = self
        if "default_stream_config" in changes:
            default = self.default_stream_config.reconfigured(changes["default_stream_config"])
            config = evolve(config, default_stream_config=default)
        for name in ("create_stream_on_append", "create_stream_on_read"):
            if name in changes:
                flag: dict[str, Any] = {name: as_bool(changes[name], name)}
                config = evolve(config, **flag)
        if optional(changes.get("stream_cipher"), "stream_cipher", _cipher) is not None:
            raise service_error("invalid", "stream_cipher: this service does not encrypt")
        return config

    def to_json(self) -> dict[str, Any]:
        """The configuration as S2 writes it."""
        default = self.default_stream_config
        return {
            "default_stream_config": None if default == StreamConfig() else default.to_json(),
            "stream_cipher": None,
            "create_stream_on_append": self.create_stream_on_append,
            "create_stream_on_read": self.create_stream_on_read,
        }


def _cipher(value: Any, what: str) -> str:
    return as_choice(value, what, _CIPHERS)


def _read_changes(fields: Mapping[str, Any], value: Any, what: str) -> dict[str, Any]:
    """The attributes of a `StreamConfig` that `value` sets, and to what."""
    changes: dict[str, Any] = {}
    for key, given in as_object(value, what).items():
        known = fields.get(key)
        if known is None:
            continue  # as the server does with keys it does not know
        if key == "min_age_secs":
            # Alone of all values it cannot be cleared by itself.
            as_u64(given, key)
        if not isinstance(known, Mapping):
            attribute, parse = known
            changes[attribute] = optional(given, key, parse)
        elif given is None:
            changes.update(dict.fromkeys(attribute for attribute, _ in known.values()))
        else:
            changes.update(_read_changes(known, given, key))
    return changes
