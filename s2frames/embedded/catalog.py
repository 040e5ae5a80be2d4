"""Which basins and streams there are: creating, configuring and deleting them."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator
from typing import Any

from attrs import evolve

from s2frames.embedded.config import DEFAULT_STREAM_CONFIG, BasinConfig, StreamConfig
from s2frames.embedded.error_bodies import service_error
from s2frames.embedded.store import Basin, Store, StreamInfo, StreamKey
from s2frames.embedded.stream import Stream
from s2frames.errors import ServiceError
from s2frames.rest import Provisioned

__all__ = ["Access", "Catalog"]


class Access(enum.Enum):
    """Why a stream is opened: a basin may create missing streams for either."""

    APPEND = enum.auto()
    READ = enum.auto()


class Catalog:
    """The basins and streams of a store. Each stream in use is one `Stream`.

    Deleting takes effect at once. All methods raise `ServiceError`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._streams: dict[StreamKey, Stream] = {}

    # Basins

    def basins(self, prefix: str, start_after: str) -> Iterator[Basin]:
        """The basins whose names start with `prefix` and come after `start_after`, in order."""
        return self._store.basins(prefix, start_after)

    def basin(self, name: str) -> Basin:
        """The basin of this name."""
        basin = self._store.basin(name)
        if basin is None:
            raise service_error("basin_not_found", f"basin {name!r} not found")
        return basin

    def create_basin(
        self, name: str, config: BasinConfig, token: str | None, now: float
    ) -> tuple[Provisioned, Basin]:
        """A new basin; the existing one when the same create is repeated with the same token."""
        creation_key = _creation_key(token, config.to_json())
        existing = self._store.basin(name)
        if existing is None:
            basin = Basin(name, config, now, creation_key)
            self._store.put_basin(basin)
            return Provisioned.CREATED, basin
        if creation_key is None or creation_key != existing.creation_key:
            raise service_error("resource_already_exists", f"basin {name!r} already exists")
        return Provisioned.NOOP, existing

    def ensure_basin(self, name: str, config: BasinConfig, now: float) -> tuple[Provisioned, Basin]:
        """A basin of this name with this configuration, whatever there was."""
        existing = self._store.basin(name)
        if existing is None:
            return self.create_basin(name, config, None, now)
        if existing.config == config:
            return Provisioned.NOOP, existing
        basin = evolve(existing, config=config)
        self._store.put_basin(basin)
        return Provisioned.UPDATED, basin

    def reconfigure_basin(self, name: str, changes: Any) -> BasinConfig:
        """Change the basin's configuration; streams that exist keep theirs."""
        basin = self.basin(name)
        basin = evolve(basin, config=basin.config.reconfigured(changes))
        self._store.put_basin(basin)
        return basin.config

    def delete_basin(self, name: str, now: float) -> None:
        """Remove a basin and its streams."""
        self._store.delete_basin(self.basin(name).name)
        for key in [key for key in self._streams if key[0] == name]:
            self._streams.pop(key).mark_deleted(now)

    # Streams

    def streams(self, basin: str, prefix: str, start_after: str) -> Iterator[StreamInfo]:
        """A basin's streams whose names start with `prefix` and come after `start_after`."""
        return self._store.streams(self.basin(basin).name, prefix, start_after)

    def stream_info(self, key: StreamKey) -> StreamInfo:
        """The stream of this name."""
        info = self._store.stream(key)
        if info is None:
            raise _stream_not_found(key)
        return info

    def create_stream(
        self, key: StreamKey, config: StreamConfig, token: str | None, now: float
    ) -> tuple[Provisioned, StreamInfo]:
        """A new stream; the existing one when the same create is repeated with the same token."""
        defaults = self._stream_defaults(key)
        creation_key = _creation_key(token, config.to_json())
        existing = self._store.stream(key)
        if existing is None:
            info = StreamInfo(key, config.over(defaults), now, creation_key)
            self._store.put_stream(info)
            return Provisioned.CREATED, info
        if creation_key is None or creation_key != existing.creation_key:
            raise service_error(
                "resource_already_exists", f"stream {key[1]!r} of {key[0]!r} already exists"
            )
        return Provisioned.NOOP, existing

    def ensure_stream(
        self, key: StreamKey, config: StreamConfig, now: float
    ) -> tuple[Provisioned, StreamInfo]:
        """A stream of this name with this configuration, whatever there was."""
        defaults = self._stream_defaults(key)
        existing = self._store.stream(key)
        if existing is None:
            return self.create_stream(key, config, None, now)
        info = evolve(existing, config=config.over(defaults))
        if info == existing:
            return Provisioned.NOOP, existing
        self._replace(info)
        return Provisioned.UPDATED, info

    def reconfigure_stream(self, key: StreamKey, changes: Any) -> StreamConfig:
        """Change the stream's configuration; what is cleared comes from the defaults again."""
        defaults = self._stream_defaults(key)
        info = self.stream_info(key)
        info = evolve(info, config=info.config.reconfigured(changes).over(defaults))
        self._replace(info)
        return info.config

    def delete_stream(self, key: StreamKey, now: float) -> None:
        """Remove a stream and its records."""
        self._store.delete_stream(self.stream_info(key).key)
        stream = self._streams.pop(key, None)
        if stream is not None:
            stream.mark_deleted(now)

    def open_stream(self, key: StreamKey, access: Access, now: float) -> Stream:
        """The stream of this name, created if its basin says so."""
        stream = self._streams.get(key)
        if stream is None:
            info = self._store.stream(key) or self._create_missing(key, access, now)
            stream = self._streams[key] = Stream(self._store, info)
        return stream

    def _create_missing(self, key: StreamKey, access: Access, now: float) -> StreamInfo:
        config = self.basin(key[0]).config
        if access is Access.APPEND:
            may_create = config.create_stream_on_append
        else:
            may_create = config.create_stream_on_read
        if not may_create:
            raise _stream_not_found(key)
        return self.create_stream(key, StreamConfig(), None, now)[1]

    def _stream_defaults(self, key: StreamKey) -> StreamConfig:
        return self.basin(key[0]).config.default_stream_config.over(DEFAULT_STREAM_CONFIG)

    def _replace(self, info: StreamInfo) -> None:
        self._store.put_stream(info)
        if info.key in self._streams:
            self._streams[info.key].info = info


def _creation_key(token: str | None, config: dict[str, Any]) -> str | None:
    """What a repeated create has in common with the first one: token and configuration."""
    return None if token is None else json.dumps([token, config])


def _stream_not_found(key: StreamKey) -> ServiceError:
    return service_error("stream_not_found", f"stream {key[1]!r} of {key[0]!r} not found")
