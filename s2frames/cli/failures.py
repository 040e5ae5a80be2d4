"""What goes wrong, in one line each: what it was about, what happened, what to do about it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

import click

from s2frames.cli.address import StreamAddress
from s2frames.cli.exit_codes import ExitCode
from s2frames.errors import (
    CertificateError,
    ConnectError,
    FencingTokenMismatch,
    Outcome,
    RangeNotSatisfiable,
    RemoteProtocolError,
    S2FramesError,
    ServiceError,
    TransportError,
)
from s2frames.settings import (
    ACCESS_TOKEN_VARIABLE,
    ACCOUNT_ENDPOINT_VARIABLE,
    BASIN_ENDPOINT_VARIABLE,
)

__all__ = [
    "Failure",
    "count",
    "describe",
    "explain",
    "explained",
    "is_terminal",
    "one_line",
    "say",
    "say_error",
    "say_interrupted",
]

# Characters shown of what an error says. S2 says far less; what others answer may be a page.
_MAX_SAID_CHARS = 500
_LAST_CHARS = 100

_ENDPOINTS = f"{ACCOUNT_ENDPOINT_VARIABLE} and {BASIN_ENDPOINT_VARIABLE}, or --endpoint,"
_DELETING = "it is being deleted: try again later, or use another name"

# Codes of what is likely to pass.
_PASSING = (
    "hot_server",
    "rate_limited",
    "request_timeout",
    "server_draining",
    "transaction_conflict",
    "unavailable",
    "upstream_timeout",
)


class Failure(click.ClickException):
    """The service or the data said no: one line."""

    exit_code = ExitCode.FAILED


# What to do about it


def _is_code(*codes: str) -> Callable[[S2FramesError], bool]:
    return lambda error: isinstance(error, ServiceError) and error.code in codes


def _is_a(kind: type[S2FramesError]) -> Callable[[S2FramesError], bool]:
    return lambda error: isinstance(error, kind)


def _is_status(status: int) -> Callable[[S2FramesError], bool]:
    return lambda error: isinstance(error, ServiceError) and error.status == status


def _may_be_repeated(error: S2FramesError) -> bool:
    # Appending again what may be durable would double it.
    is_untouched = not error.durable_messages and error.outcome is not Outcome.UNKNOWN
    is_passing = isinstance(error, TransportError) or _is_code(*_PASSING)(error)
    return is_untouched and is_passing


def _is_not_s2(error: S2FramesError) -> bool:
    # S2 gives every error a code, but 412 and 416, which have types of their own.
    return isinstance(error, RemoteProtocolError) or (
        isinstance(error, ServiceError) and error.code is None
    )


# The first that fits counts.
_HINTS: tuple[tuple[Callable[[S2FramesError], bool], str], ...] = (
    (
        _is_code("basin_not_found"),
        f"create the basin, or check its name and {BASIN_ENDPOINT_VARIABLE}",
    ),
    (_is_code("stream_not_found"), "create the stream, or check its name"),
    (_is_code("basin_deletion_pending", "stream_deletion_pending"), _DELETING),
    (_is_code("authn"), f"set {ACCESS_TOKEN_VARIABLE} to a valid access token"),
    (
        _is_code("permission_denied"),
        f"set {ACCESS_TOKEN_VARIABLE} to an access token that allows this",
    ),
    (_is_code("quota_exhausted"), "the account allows no more"),
    (
        _is_code("decryption_failed"),
        "the stream is encrypted: read it with the library, which takes the key",
    ),
    (_is_a(FencingTokenMismatch), "another writer has fenced the stream"),
    (_is_a(RangeNotSatisfiable), "start there or before"),
    (_is_a(CertificateError), f"SSL_CERT_FILE names what to trust; {_ENDPOINTS} say where it is"),
    (_is_a(ConnectError), f"is the service running there? {_ENDPOINTS} say where it is"),
    (_may_be_repeated, "try again in a while"),
    # What is in the way is said by the error itself.
    (_is_status(413), ""),
    (_is_not_s2, f"is that an S2 endpoint? {_ENDPOINTS} say where it is"),
)


def explain(error: S2FramesError) -> str:
    """One line about `error`: what happened, what is durable, what to do."""
    hint = next((hint for fits, hint in _HINTS if fits(error)), None)
    return "; ".join(part for part in (describe(error), hint) if part)


def describe(error: S2FramesError) -> str:
    """What `error` says: what happened, and what is durable. A long text loses its middle."""
    said = _without_token(str(error))
    if len(said) > _MAX_SAID_CHARS:
        # What is durable is said last.
        said = f"{said[: _MAX_SAID_CHARS - _LAST_CHARS]}...{said[-_LAST_CHARS:]}"
    return said


def _without_token(text: str) -> str:
    """`text` without the access token, which a service may have repeated."""
    token = os.environ.get(ACCESS_TOKEN_VARIABLE)
    return text.replace(token, "[secret]") if token else text


@contextmanager
def explained(address: StreamAddress) -> Iterator[None]:
    """Raise a `Failure` about `address` for errors of the library."""
    try:
        yield
    except S2FramesError as error:
        raise Failure(f"{address}: {explain(error)}") from error


# Lines


def is_terminal(stream: TextIO | None) -> bool:
    """Whether people look at `stream`, which is None when it was closed."""
    return stream is not None and stream.isatty()


def count(number: int, noun: str) -> str:
    """`number` and the noun in its form: "1 message", "2 messages"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def one_line(text: str) -> str:
    """`text` for a terminal: one line, and nothing that could steer it."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def say(text: str) -> None:
    """Write a line to stderr."""
    click.echo(one_line(text), err=True)


def say_error(text: str) -> None:
    """Write an error's line to stderr."""
    say(f"error: {text}")


def say_interrupted(durable_messages: int) -> ExitCode:
    """Tell what is durable after Ctrl-C; returns the exit code."""
    if is_terminal(sys.stderr):
        # The cursor is behind the terminal's "^C".
        click.echo(err=True)
    # What was sent and not acked may be durable, too.
    say(f"interrupted: {count(durable_messages, 'message')} known to be durable")
    return ExitCode.INTERRUPTED
