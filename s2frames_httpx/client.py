"""`Client`: S2 for scripts and threads."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar, Unpack, overload

import httpx

from s2frames import rest
from s2frames.append import AppendProtocol
from s2frames.codecs import BYTES, Codec
from s2frames.config import BasinConfig, StreamConfig
from s2frames.errors import LocalProtocolError
from s2frames.inbox import Inbox, OnCorrupt
from s2frames.options import ReadOptions
from s2frames.read import ReadProtocol
from s2frames.records import StreamPosition
from s2frames.settings import ReadSettings, Settings
from s2frames.target import StreamTarget
from s2frames_httpx.append import AppendSession
from s2frames_httpx.burst import BurstOptions, burst_settings
from s2frames_httpx.embedded import EMBEDDED_SETTINGS, EmbeddedTransport
from s2frames_httpx.mapping import client_options, lower_headers, map_exceptions
from s2frames_httpx.read import ReadSession

__all__ = ["Client", "Stream"]

T = TypeVar("T")

# Only for writer ids, which must never meet: the system's source.
_random = random.SystemRandom().random


class Client:
    """S2 for synchronous code. Threads may share one; use it in a `with` block, or close it.

    Args:
        settings: where the service is, and who asks.
        transport: another way to send requests than over the network.
    """

    def __init__(
        self, settings: Settings | None = None, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.settings = Settings() if settings is None else settings
        #: The client underneath.
        self.http = httpx.Client(transport=transport, **client_options(self.settings))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **changes: Any) -> Client:
        """A client as S2_ACCESS_TOKEN, S2_ACCOUNT_ENDPOINT and S2_BASIN_ENDPOINT say.

        `changes` are arguments of `Settings`.
        """
        return cls(Settings.from_env(os.environ if environ is None else environ, **changes))

    @classmethod
    def embedded(cls) -> Client:
        """A client with a service of its own, in memory, for trying and for tests."""
        return cls(EMBEDDED_SETTINGS, transport=EmbeddedTransport())

    def stream(self, basin: str, name: str, *, encryption_key: bytes | None = None) -> Stream:
        """The stream `name` of `basin`. No request is made."""
        return Stream(self, StreamTarget(self.settings, basin, name, encryption_key))

    def call(self, call: rest.Call[T]) -> T:
        """Make a control call of `s2frames.rest`."""
        if self.http.is_closed:
            raise LocalProtocolError("the client is closed")
        asked = call.request
        body = bytearray()
        with (
            map_exceptions(asked.url),
            self.http.stream(
                asked.method, asked.url, headers=asked.headers, content=asked.body
            ) as response,
        ):
            for data in response.iter_raw():
                body += data
                if len(body) > rest.MAX_ANSWER_BYTES:
                    break
        return call.parse(response.status_code, lower_headers(response.headers), bytes(body))

    def list_basins(self, prefix: str = "") -> Iterator[rest.BasinInfo]:
        """The basins whose names start with `prefix`, in order."""
        start_after: str | None = ""
        while start_after is not None:
            page = self.call(
                rest.list_basins(self.settings, prefix=prefix, start_after=start_after)
            )
            yield from page.items
            start_after = page.next_start_after

    def create_basin(self, name: str, config: BasinConfig | None = None) -> None:
        """Make a basin. Raises `ServiceError` (409) when there is one of that name."""
        self.call(rest.create_basin(self.settings, name, config))

    def ensure_basin(self, name: str, config: BasinConfig | None = None) -> rest.Provisioned:
        """Make a basin, or give the one there is this config, all of it."""
        return self.call(rest.ensure_basin(self.settings, name, config))

    def basin_config(self, name: str) -> BasinConfig:
        """The config of a basin."""
        return self.call(rest.get_basin_config(self.settings, name))

    def delete_basin(self, name: str) -> None:
        """Remove a basin and all its streams."""
        self.call(rest.delete_basin(self.settings, name))

    def list_streams(self, basin: str, prefix: str = "") -> Iterator[rest.StreamInfo]:
        """The streams of a basin whose names start with `prefix`, in order."""
        start_after: str | None = ""
        while start_after is not None:
            page = self.call(
                rest.list_streams(self.settings, basin, prefix=prefix, start_after=start_after)
            )
            yield from page.items
            start_after = page.next_start_after

    def close(self) -> None:
        """Close every connection. Idempotent."""
        self.http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class Stream:
    """A stream of messages. Made by `Client.stream`."""

    def __init__(self, client: Client, target: StreamTarget) -> None:
        self._client = client
        self._target = target

    def __repr__(self) -> str:
        return f"Stream('s2://{self._target.basin}/{self._target.stream}')"

    @property
    def target(self) -> StreamTarget:
        """Which stream this is."""
        return self._target

    def create(self, config: StreamConfig | None = None) -> None:
        """Make the stream. Raises `ServiceError` (409) when it exists."""
        target = self._target
        self._client.call(rest.create_stream(target.settings, target.basin, target.stream, config))

    def ensure(self, config: StreamConfig | None = None) -> rest.Provisioned:
        """Make the stream, or give the one there is this config, all of it."""
        target = self._target
        return self._client.call(
            rest.ensure_stream(target.settings, target.basin, target.stream, config)
        )

    def config(self) -> StreamConfig:
        """The config of the stream."""
        target = self._target
        return self._client.call(
            rest.get_stream_config(target.settings, target.basin, target.stream)
        )

    def delete(self) -> None:
        """Remove the stream and all it holds."""
        target = self._target
        self._client.call(rest.delete_stream(target.settings, target.basin, target.stream))

    def check_tail(self) -> StreamPosition:
        """The sequence number that comes next, and the last record's timestamp."""
        target = self._target
        return self._client.call(rest.check_tail(target.settings, target.basin, target.stream))

    @overload
    def append_session(
        self, *, codec: Codec[T], **options: Unpack[BurstOptions]
    ) -> AppendSession[T]: ...

    @overload
    def append_session(self, **options: Unpack[BurstOptions]) -> AppendSession[bytes]: ...

    def append_session(
        self, *, codec: Codec[Any] = BYTES, **options: Unpack[BurstOptions]
    ) -> AppendSession[Any]:
        """A session to append messages with. Options: `AppendSettings`, and `burst_batches`.

        Nothing is sent before the first message.
        """
        protocol = AppendProtocol(self._target, burst_settings(options), random=_random)
        return AppendSession(self._client.http, protocol, codec)

    @overload
    def read_session(
        self, *, codec: Codec[T], on_corrupt: OnCorrupt = "raise", **options: Unpack[ReadOptions]
    ) -> ReadSession[T]: ...

    @overload
    def read_session(
        self, *, on_corrupt: OnCorrupt = "raise", **options: Unpack[ReadOptions]
    ) -> ReadSession[bytes]: ...

    def read_session(
        self,
        *,
        codec: Codec[Any] = BYTES,
        on_corrupt: OnCorrupt = "raise",
        **options: Unpack[ReadOptions],
    ) -> ReadSession[Any]:
        """The messages of the stream, from `start` to the tail or on. Options: `ReadSettings`.

        `on_corrupt` says whether a message that is lost is an error. Nothing is sent before the
        first message is asked for.
        """
        protocol = ReadProtocol(self._target, ReadSettings(**options))
        inbox = Inbox(codec, on_corrupt)
        return ReadSession(self._client.http, protocol, inbox)
