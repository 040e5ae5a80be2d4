"""Between the words of trio, ssl, the system and h2, and the core's: one table."""

from __future__ import annotations

import copy
import socket
import ssl
from collections.abc import Iterator

import h2.events
import trio
from h2.errors import ErrorCodes
from h2.exceptions import H2Error, ProtocolError
from hpack.exceptions import HPACKError
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import GoAwayFrame

from s2frames.errors import (
    CertificateError,
    ConnectError,
    LocalProtocolError,
    Outcome,
    RemoteProtocolError,
    S2FramesError,
    TransportError,
)
from s2frames.tls_faults import tls_error

__all__ = [
    "FOREIGN_ERRORS",
    "another",
    "breach_error",
    "code_name",
    "reset_error",
    "to_our_error",
    "unprocessed_error",
]

#: What a connection may raise. A UnicodeError is a host name that no DNS name can be.
FOREIGN_ERRORS = (
    OSError,
    UnicodeError,
    trio.BrokenResourceError,
    trio.ClosedResourceError,
    trio.TooSlowError,
    H2Error,
    HPACKError,
    HyperframeError,
)

_BREACH = "the peer broke HTTP/2"

# The first row that fits the error, or one behind it, counts: what it is to us while the connection
# is made and afterwards, and what is said of it.
_ERRORS: tuple[
    tuple[type[BaseException], type[S2FramesError], type[S2FramesError], str, str], ...
] = (
    (
        ssl.SSLCertVerificationError,
        CertificateError,
        CertificateError,
        *("the certificate is not to be trusted",) * 2,
    ),
    (ssl.SSLError, ConnectError, TransportError, "TLS failed", "TLS failed"),
    (
        socket.gaierror,
        ConnectError,
        TransportError,
        *("the host name cannot be resolved",) * 2,
    ),
    (
        ConnectionRefusedError,
        ConnectError,
        TransportError,
        "the connection was refused",
        "the connection broke",
    ),
    (UnicodeError, LocalProtocolError, LocalProtocolError, *("the URL cannot be used",) * 2),
    # What was broken is the connection, and not what its streams are about: they may go on over
    # another one. `breach_error` is for the stream that is to blame.
    (H2Error, ConnectError, TransportError, "cannot connect", _BREACH),
    (HPACKError, ConnectError, TransportError, "cannot connect", _BREACH),
    (HyperframeError, ConnectError, TransportError, "cannot connect", _BREACH),
    (BaseException, ConnectError, TransportError, "cannot connect", "the connection broke"),
)


def to_our_error(error: BaseException, where: str, *, is_connecting: bool = False) -> S2FramesError:
    """The error of ours for a foreign one; `where` is the origin it happened with.

    While the connection is made nothing was sent, and the error says so.
    """
    behind = list(_all_behind(error))
    for culprit in behind:
        if isinstance(culprit, ssl.SSLError):
            told = tls_error(culprit, where, is_connecting=is_connecting)
            if told is not None:
                told.__cause__ = error
                return told
    for theirs, connecting, connected, words_connecting, words_connected in _ERRORS:
        for culprit in behind:
            if isinstance(culprit, theirs):
                kind = connecting if is_connecting else connected
                words = words_connecting if is_connecting else words_connected
                ours = kind(f"{words}: {where}: {str(culprit) or type(culprit).__name__}")
                ours.__cause__ = error
                return ours
    raise AssertionError("the last row fits every error")


def _all_behind(error: BaseException | None) -> Iterator[BaseException]:
    """`error`, what caused it, and what they are groups of."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for member in error.exceptions:
                yield from _all_behind(member)
        error = error.__cause__


def another(error: S2FramesError) -> S2FramesError:
    """The same error once more, for another task: each adds its own traceback and outcome."""
    twin = copy.copy(error)
    twin.__cause__ = error.__cause__
    return twin


def breach_error(error: ProtocolError, where: str) -> RemoteProtocolError:
    """The error of the stream with which the peer broke a rule."""
    ours = RemoteProtocolError(f"{_BREACH}: {where}: {error}")
    ours.__cause__ = error
    return ours


def reset_error(event: h2.events.StreamReset, where: str) -> S2FramesError:
    """The error of a stream that the peer reset."""
    name = code_name(event.error_code or 0)
    if event.error_code == ErrorCodes.REFUSED_STREAM:
        return _unprocessed(f"the peer refused to look at the request: {where}: {name}")
    return TransportError(f"the peer broke the request off: {where}: {name}")


def unprocessed_error(frame: GoAwayFrame, where: str) -> S2FramesError:
    """The error of a stream that came after the last one that a leaving peer looks at."""
    name = code_name(frame.error_code)
    return _unprocessed(
        f"the connection is closing and the request was not looked at: {where}: {name}"
    )


def _unprocessed(message: str) -> ConnectError:
    # The peer promises it (RFC 9113, 8.7): it is as if the connection had not been made.
    error = ConnectError(message)
    error.outcome = Outcome.NOT_APPLIED
    return error


def code_name(code: int) -> str:
    """HTTP/2's name of an error."""
    try:
        return ErrorCodes(code).name
    except ValueError:
        return f"error {code}"
