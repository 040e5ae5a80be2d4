"""How basins and streams behave, as values and as S2's JSON.

Shapes are those of the server's `api/src/v1/config.rs`. What a newer server says beside what is
known here is kept, so that reading a config and sending it back loses nothing.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

from attrs import Attribute, field, frozen

from s2frames.brief import brief
from s2frames.errors import LocalProtocolError
from s2frames.peer_json import as_object, take, take_choice, take_u64
from s2frames.u64 import U64_MAX, is_u64

__all__ = [
    "BasinConfig",
    "Cipher",
    "Retention",
    "StorageClass",
    "StreamConfig",
    "TimestampingMode",
]

_Validator: TypeAlias = "Callable[[object, Attribute[Any], Any], None]"


class StorageClass(enum.Enum):
    """How fast appends to a stream are."""

    STANDARD = "standard"
    EXPRESS = "express"


class Retention(enum.Enum):
    """How long records are kept, where that is no number of seconds."""

    INFINITE = "infinite"


class TimestampingMode(enum.Enum):
    """Whose time a record gets."""

    CLIENT_PREFER = "client-prefer"
    CLIENT_REQUIRE = "client-require"
    ARRIVAL = "arrival"


class Cipher(enum.Enum):
    """How a stream's records are encrypted."""

    AEGIS_256 = "aegis-256"
    AES_256_GCM = "aes-256-gcm"


def _check_optional(kind: type) -> _Validator:
    def check(_instance: object, attribute: Attribute[Any], value: Any) -> None:
        if value is not None and type(value) is not kind:
            raise LocalProtocolError(
                f"{attribute.name} is a {kind.__name__} or None, not {brief(value)}"
            )

    return check


def _check_seconds(minimum: int) -> _Validator:
    def check(_instance: object, attribute: Attribute[Any], value: Any) -> None:
        if value is None or (value is Retention.INFINITE and attribute.name == "retention"):
            return
        if not is_u64(value, minimum):
            raise LocalProtocolError(
                f"{attribute.name} is an int from {minimum} to {U64_MAX} seconds, "
                f"not {brief(value)}"
            )

    return check


def _check_extra(_instance: object, _attribute: object, value: object) -> None:
    if not (isinstance(value, Mapping) and all(isinstance(name, str) for name in value)):
        raise LocalProtocolError(f"extra maps names to JSON values; it is {type(value).__name__}")


@frozen(kw_only=True)
class StreamConfig:
    """How a stream behaves. What is None is left to the basin's default, then to the service's."""

    storage_class: StorageClass | None = field(
        default=None, validator=_check_optional(StorageClass)
    )
    #: Seconds after which records are trimmed, at least 1; the service's default is 7 days.
    retention: int | Literal[Retention.INFINITE] | None = field(
        default=None, validator=_check_seconds(1)
    )
    timestamping: TimestampingMode | None = field(
        default=None, validator=_check_optional(TimestampingMode)
    )
    #: Whether a writer's timestamps may be later than the arrival.
    uncapped: bool | None = field(default=None, validator=_check_optional(bool))
    #: Seconds after which an empty stream is deleted; 0 never.
    delete_on_empty: int | None = field(default=None, validator=_check_seconds(0))
    #: What a newer server says beside that, in its own words; sent back as it is.
    extra: Mapping[str, Any] = field(factory=dict, validator=_check_extra, hash=False)

    def to_json(self) -> dict[str, Any]:
        """The config as S2's JSON object, without what is unset."""
        known = {
            "storage_class": _value_of(self.storage_class),
            "retention_policy": _retention_to_json(self.retention),
            "timestamping": self._section(
                "timestamping", mode=_value_of(self.timestamping), uncapped=self.uncapped
            ),
            "delete_on_empty": self._section("delete_on_empty", min_age_secs=self.delete_on_empty),
        }
        return {**self.extra, **_without_unset(known)}

    def _section(self, name: str, **known: object) -> dict[str, Any] | None:
        unknown = self.extra.get(name)
        section = dict(unknown) if isinstance(unknown, Mapping) else {}
        return section | _without_unset(known) or None

    @classmethod
    def from_json(cls, value: object) -> StreamConfig:
        """The config in S2's JSON object. Raises `RemoteProtocolError` for anything else."""
        what = "a stream's config"
        rest = dict(as_object(value, what))
        timestamping = dict(take(rest, what, "timestamping", dict) or {})
        emptiness = dict(take(rest, what, "delete_on_empty", dict) or {})
        known: dict[str, Any] = {
            "storage_class": take_choice(rest, what, "storage_class", StorageClass),
            "retention": _take_retention(rest, what),
            "timestamping": take_choice(timestamping, what, "mode", TimestampingMode),
            "uncapped": take(timestamping, what, "uncapped", bool),
            "delete_on_empty": take_u64(emptiness, what, "min_age_secs", 0),
        }
        left = {"timestamping": timestamping or None, "delete_on_empty": emptiness or None}
        return cls(**known, extra=rest | _without_unset(left))


@frozen(kw_only=True)
class BasinConfig:
    """How a basin and its new streams behave. What is None is left to the service."""

    default_stream_config: StreamConfig | None = field(
        default=None, validator=_check_optional(StreamConfig)
    )
    #: How streams made from now on are encrypted.
    stream_cipher: Cipher | None = field(default=None, validator=_check_optional(Cipher))
    #: Whether an append makes the stream that it names.
    create_stream_on_append: bool | None = field(default=None, validator=_check_optional(bool))
    #: Whether a read makes the stream that it names.
    create_stream_on_read: bool | None = field(default=None, validator=_check_optional(bool))
    #: What a newer server says beside that, in its own words; sent back as it is.
    extra: Mapping[str, Any] = field(factory=dict, validator=_check_extra, hash=False)

    def to_json(self) -> dict[str, Any]:
        """The config as S2's JSON object, without what is unset."""
        streams = self.default_stream_config
        known = {
            "default_stream_config": None if streams is None else streams.to_json(),
            "stream_cipher": _value_of(self.stream_cipher),
            "create_stream_on_append": self.create_stream_on_append,
            "create_stream_on_read": self.create_stream_on_read,
        }
        return {**self.extra, **_without_unset(known)}

    @classmethod
    def from_json(cls, value: object) -> BasinConfig:
        """The config in S2's JSON object. Raises `RemoteProtocolError` for anything else."""
        what = "a basin's config"
        rest = dict(as_object(value, what))
        streams = take(rest, what, "default_stream_config", dict)
        return cls(
            default_stream_config=None if streams is None else StreamConfig.from_json(streams),
            stream_cipher=take_choice(rest, what, "stream_cipher", Cipher),
            create_stream_on_append=take(rest, what, "create_stream_on_append", bool),
            create_stream_on_read=take(rest, what, "create_stream_on_read", bool),
            extra=rest,
        )


def _retention_to_json(retention: int | Retention | None) -> dict[str, Any] | None:
    if retention is None:
        return None
    return {"infinite": {}} if isinstance(retention, Retention) else {"age": retention}


def _value_of(choice: enum.Enum | None) -> str | None:
    return None if choice is None else choice.value


def _without_unset(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _take_retention(rest: dict[str, Any], what: str) -> int | Literal[Retention.INFINITE] | None:
    policy = take(rest, what, "retention_policy", dict)
    if policy is None:
        return None
    age = take_u64(dict(policy), what, "age", 1)
    if age is not None:
        return age
    if "infinite" in policy:
        return Retention.INFINITE
    rest["retention_policy"] = policy
    return None
