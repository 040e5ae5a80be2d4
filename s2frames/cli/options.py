"""Options that commands share, and the client that they describe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import click
from attrs import frozen

from s2frames.cli.address import StreamAddress
from s2frames.cli.failures import explained
from s2frames.errors import LocalProtocolError
from s2frames.settings import Endpoints
from s2frames.u64 import U64_MAX
from s2frames_httpx import Client, Stream

__all__ = ["Connection", "connection_options", "u64"]

# Digits of 2**64 - 1.
_U64_DIGITS = 20


@frozen
class Connection:
    """How to reach the service: the environment, and the options that go before it."""

    endpoint: str | None = None
    allow_insecure: bool = False

    def client(self) -> Client:
        """A client. Raises `LocalProtocolError` for settings that cannot be used."""
        changes: dict[str, Any] = {"allow_insecure": self.allow_insecure}
        if self.endpoint is not None:
            changes["endpoints"] = _endpoints_at(self.endpoint)
        return Client.from_env(**changes)

    @contextmanager
    def stream(self, address: StreamAddress) -> Iterator[Stream]:
        """The stream at `address`. Errors of the library become failures that name it.

        Raises `click.UsageError` for settings that cannot be used.
        """
        try:
            client = self.client()
        except LocalProtocolError as error:
            raise click.UsageError(str(error)) from error
        with client, explained(address):
            yield client.stream(address.basin, address.stream)


def _endpoints_at(url: str) -> Endpoints:
    try:
        return Endpoints.at(url)
    except LocalProtocolError as error:
        raise LocalProtocolError(f"--endpoint: {error}") from None


def u64(text: str) -> int:
    """A sequence number or timestamp; the `type` of such options."""
    is_short = text.isascii() and text.isdigit() and len(text) <= _U64_DIGITS
    if not (is_short and int(text) <= U64_MAX):
        raise click.UsageError(f"{text!r} is no number from 0 to {U64_MAX}")
    return int(text)


def connection_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options to reach the service; it gets them as `connection`."""

    @click.option(
        "--endpoint",
        metavar="URL",
        help="Where the service is, account and basins alike.",
    )
    @click.option(
        "--allow-insecure",
        is_flag=True,
        help="Send the access token over plain http to another machine.",
    )
    @wraps(command)
    def with_connection(*, endpoint: str | None, allow_insecure: bool, **others: object) -> int:
        return command(connection=Connection(endpoint, allow_insecure), **others)

    return with_connection
