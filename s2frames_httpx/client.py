"""`Client`: S2 for scripts and threads."""

from __future__ import annotations

import os
import random
import ssl
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, TypeVar, Unpack, overload

import httpx

from s2frames import rest
from s2frames.append import AppendProtocol
from s2frames.checkpoint import Checkpoint
from s2frames.codecs import BYTES, Codec
from s2frames.commands import fence_stream, probe_fencing_token, trim_stream
from s2frames.config import BasinConfig, StreamConfig
from s2frames.handout import Handout
from s2frames.inbox import Inbox, OnCorrupt
from s2frames.operation import Operation, Plan
from s2frames.options import ReadOptions
from s2frames.outbox import Outbox
from s2frames.read import ReadProtocol
from s2frames.records import StreamPosition
from s2frames.recover import recover_writer
from s2frames.rest_plans import call_plan, make_request_token
from s2frames.session import Retrying
from s2frames.settings import ReadSettings, Settings
from s2frames.target import StreamTarget
from s2frames.writer_state import WriterState
from s2frames_httpx.answers import Answers
from s2frames_httpx.append import AppendSession
from s2frames_httpx.burst import BurstOptions, burst_settings
from s2frames_httpx.embedded import EMBEDDED_SETTINGS, EmbeddedTransport
from s2frames_httpx.exchange import Exchange
from s2frames_httpx.mapping import client_options
from s2frames_httpx.reach import Reach, check_own_transport
from s2frames_httpx.read import ReadSession
from s2frames_httpx.transport import Transport

__all__ = ["Client", "Stream"]

T = TypeVar("T")

# For writer ids and tokens, which must never meet: the system's source.
_random = random.SystemRandom().random


class Client:
    """S2 for synchronous code. Threads may share one; use it in a `with` block, or close it.

    Args:
        settings: where the service is, and who asks.
        ssl_context: whom to trust, instead of the system's certificates or what SSL_CERT_FILE and
            SSL_CERT_DIR say. It is changed to offer HTTP/1.1 alone.
        proxy: a proxy for every request, instead of what HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and
            NO_PROXY say; its URL may hold a name and a password.
        transport: another way to send requests than over the network. It must allow any number of
            connections: each session has one for as long as it lasts.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: httpx.Proxy | httpx.URL | str | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.settings = Settings() if settings is None else settings
        if transport is None:
            transport = Transport(Reach.make(self.settings, ssl_context, proxy))
        else:
            check_own_transport(transport, httpx.BaseTransport, ssl_context, proxy)
        #: The client underneath.
        self.http = httpx.Client(transport=transport, **client_options(self.settings))
        self._answers = Answers(self.http)

    @classmethod
    def from_env(
        cls,
        environ: Mapping[str, str] | None = None,
        *,
        ssl_context: ssl.SSLContext | None = None,
        proxy: httpx.Proxy | httpx.URL | str | None = None,
        **changes: Any,
    ) -> Client:
        """A client as S2_ACCESS_TOKEN, S2_ACCOUNT_ENDPOINT and S2_BASIN_ENDPOINT say.

        `changes` are arguments of `Settings`.
        """
        settings = Settings.from_env(os.environ if environ is None else environ, **changes)
        return cls(settings, ssl_context=ssl_context, proxy=proxy)

    @classmethod
    def embedded(cls) -> Client:
        """A client with a service of its own, in memory, for trying and for tests."""
        return cls(EMBEDDED_SETTINGS, transport=EmbeddedTransport())

    def stream(self, basin: str, name: str, *, encryption_key: bytes | None = None) -> Stream:
        """The stream `name` of `basin`. No request is made."""
        target = StreamTarget(self.settings, basin, name, encryption_key)
        return Stream(self, self._answers, target)

    def call(self, call: rest.Call[T]) -> T:
        """Make a control call of `s2frames.rest`, again where that is safe and may help."""
        return self.run(call_plan(call))

    def run(self, plan: Plan[T]) -> T:
        """Carry out a plan of requests; see `s2frames.operation`."""
        operation = Operation(plan, self.settings, random=_random)
        exchange = Exchange(self._answers, operation)
        try:
            while not operation.is_over:
                exchange.step()
        finally:
            exchange.close()
        return operation.result()

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
        token = make_request_token(_random)
        self.call(rest.create_basin(self.settings, name, config, request_token=token))

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
        """Close every connection. Idempotent.

        Sessions and calls that are under way in other threads end in an error that says so.
        """
        self._answers.closing.set()
        self._answers.close_forgotten()
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

    def __init__(self, client: Client, answers: Answers, target: StreamTarget) -> None:
        self._client = client
        self._answers = answers
        self._target = target

    def __repr__(self) -> str:
        return f"Stream('s2://{self._target.basin}/{self._target.stream}')"

    @property
    def target(self) -> StreamTarget:
        """Which stream this is."""
        return self._target

    def create(self, config: StreamConfig | None = None) -> None:
        """Make the stream. Raises `ServiceError` (409) when it exists."""
        target, token = self._target, make_request_token(_random)
        self._client.call(
            rest.create_stream(
                target.settings, target.basin, target.stream, config, request_token=token
            )
        )

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

    def fence(
        self, token: str, *, expect: str | None = None, trim: Checkpoint | int | None = None
    ) -> None:
        """Give the stream a fencing token, "" for none: appends with another one are refused.

        With `expect` only if that is its token now, or if it has the new one already; this alone
        is tried again when its answer is lost. With `trim` the stream is trimmed too, as by `trim`,
        both or neither.
        """
        self._client.run(fence_stream(self._target, token, expect=expect, trim=trim))

    def trim(self, before: Checkpoint | int) -> None:
        """Remove the records before a sequence number, some time soon.

        Before a checkpoint: all that a reader that goes on from there does not need.
        """
        self._client.run(trim_stream(self._target, before))

    def fencing_token(self) -> str:
        """The fencing token of the stream, "" if it has none. Appends nothing."""
        return self._client.run(probe_fencing_token(self._target, _random))

    def recover_writer(
        self, writer_id: str, *, search_from: int = 0, may_be_new: bool = False
    ) -> WriterState:
        """Where an exclusive writer that is gone left off: `append_session(resume=...)` takes it.

        What it had on its way is kept from landing afterwards. Its records are looked for from
        sequence number `search_from` on; `WriterNotFound` is raised where there may be some before,
        or were before the stream was trimmed. With `may_be_new` a writer of which no record is
        found is taken for a new one also there.
        """
        plan = recover_writer(self._target, writer_id, search_from, may_be_new=may_be_new)
        return self._client.run(plan)

    @overload
    def append_session(
        self,
        *,
        codec: Codec[T],
        on_retry: Callable[[Retrying], None] | None = None,
        **options: Unpack[BurstOptions],
    ) -> AppendSession[T]: ...

    @overload
    def append_session(
        self,
        *,
        on_retry: Callable[[Retrying], None] | None = None,
        **options: Unpack[BurstOptions],
    ) -> AppendSession[bytes]: ...

    def append_session(
        self,
        *,
        codec: Codec[Any] = BYTES,
        on_retry: Callable[[Retrying], None] | None = None,
        **options: Unpack[BurstOptions],
    ) -> AppendSession[Any]:
        """A session to append messages with. Options: `AppendSettings`, and `burst_batches`.

        Nothing is sent before the first message. `on_retry` is told of each attempt that failed
        and is followed by another.
        """
        protocol = AppendProtocol(self._target, burst_settings(options), random=_random)
        return AppendSession(self._answers, protocol, Outbox(protocol, codec, on_retry=on_retry))

    @overload
    def read_session(
        self,
        *,
        codec: Codec[T],
        on_corrupt: OnCorrupt = "raise",
        on_retry: Callable[[Retrying], None] | None = None,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
        **options: Unpack[ReadOptions],
    ) -> ReadSession[T]: ...

    @overload
    def read_session(
        self,
        *,
        on_corrupt: OnCorrupt = "raise",
        on_retry: Callable[[Retrying], None] | None = None,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
        **options: Unpack[ReadOptions],
    ) -> ReadSession[bytes]: ...

    def read_session(
        self,
        *,
        codec: Codec[Any] = BYTES,
        on_corrupt: OnCorrupt = "raise",
        on_retry: Callable[[Retrying], None] | None = None,
        on_caught_up: Callable[[StreamPosition], None] | None = None,
        **options: Unpack[ReadOptions],
    ) -> ReadSession[Any]:
        """The messages of the stream, from `start` to the tail or on. Options: `ReadSettings`.

        `on_corrupt` says whether a message that is lost is an error. `on_retry` is told of each
        attempt that failed and is followed by another, `on_caught_up` of the tail when everything
        up to it was handed out. Nothing is sent before the first message is asked for.
        """
        protocol = ReadProtocol(self._target, ReadSettings(**options), random=_random)
        inbox = Inbox(codec, on_corrupt, on_retry=on_retry, on_caught_up=on_caught_up)
        return ReadSession(self._answers, protocol, Handout(protocol, inbox))
