"""Where the service is, who is asking, and how long to wait: frozen values, checked when made."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from attrs import Attribute, field, fields, frozen

from s2frames.brief import brief
from s2frames.checkpoint import Checkpoint, check_checkpoint
from s2frames.checks import check_int, check_seconds, check_type
from s2frames.compression import Compression, check_available
from s2frames.errors import LocalProtocolError
from s2frames.framing import DEFAULT_MAX_FRAME_BYTES
from s2frames.reader import DEFAULT_MAX_REREAD, DEFAULT_MAX_WRITERS, FrameReader
from s2frames.records import check_basin_name
from s2frames.retry import Retry
from s2frames.u64 import U64_MAX, is_u64
from s2frames.writer import DEFAULT_MAX_INFLIGHT_BATCHES, DEFAULT_MAX_INFLIGHT_BYTES, FrameWriter
from s2frames.writer_state import WriterState

__all__ = [
    "ACCESS_TOKEN_VARIABLE",
    "ACCOUNT_ENDPOINT_VARIABLE",
    "BASIN_ENDPOINT_VARIABLE",
    "LIVENESS_TIMEOUT",
    "AppendSettings",
    "Endpoints",
    "ReadSettings",
    "Settings",
]

ACCESS_TOKEN_VARIABLE = "S2_ACCESS_TOKEN"
ACCOUNT_ENDPOINT_VARIABLE = "S2_ACCOUNT_ENDPOINT"
BASIN_ENDPOINT_VARIABLE = "S2_BASIN_ENDPOINT"

#: Seconds without any byte after which a read connection counts as dead. The server sends a
#: heartbeat every 5 to 15 s; the official clients wait as long.
LIVENESS_TIMEOUT = 20.0

#: Batches in the largest burst. All their acks must fit the peer's send window while nobody reads.
MAX_BURST_BATCHES = 500

#: Seconds that a session may wait at most. The server takes 32 bits.
MAX_WAIT = 2**31 - 1

#: Bytes at the end of a stream in which its last messages are searched for.
DEFAULT_MAX_SCAN_BYTES = 256 * 1024 * 1024

_BASIN_PLACEHOLDER = "{basin}"


@frozen
class Endpoints:
    """The URLs of the service. The default is s2.dev.

    A basin endpoint may hold `{basin}`; where it does not, requests name the basin in a header.
    """

    account: str = "https://a.s2.dev"
    basin: str = "https://{basin}.b.s2.dev"

    def __attrs_post_init__(self) -> None:
        _check_endpoint("account endpoint", self.account)
        _check_endpoint("basin endpoint", self.basin, may_name_basin=True)

    @classmethod
    def at(cls, url: str) -> Endpoints:
        """One URL for everything, as with `s2 lite`."""
        return cls(url, url)

    def basin_url(self, basin: str) -> str:
        """The URL under which the streams of `basin` are."""
        return self.basin.replace(_BASIN_PLACEHOLDER, check_basin_name(basin)).rstrip("/")

    def account_url(self) -> str:
        """The URL under which the basins are."""
        return self.account.rstrip("/")

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read along: https, or a loopback address."""
        return all(_is_private(url) for url in (self.account, self.basin))


def _check_token(_instance: object, _attribute: object, token: str | None) -> None:
    if token is not None:
        _refuse_bad_token("the access token", token)


def _refuse_bad_token(name: str, token: str) -> None:
    # The token itself stays out of the message.
    check_type(name, token, str)
    if token.strip().lower().startswith("bearer "):
        raise LocalProtocolError(f'{name} must be the token alone, without "Bearer " before it')
    if token != token.strip():
        raise LocalProtocolError(
            f"{name} has white space or a line break around it: it must be printable ASCII without "
            "spaces, and not empty"
        )
    if not (token and token.isascii() and token.isprintable()) or " " in token:
        raise LocalProtocolError(f"{name} must be printable ASCII without spaces, and not empty")


def _seconds(_instance: object, attribute: Attribute[float], value: float) -> None:
    check_seconds(attribute.name, value)


def _seconds_or_zero(_instance: object, attribute: Attribute[float], value: float) -> None:
    check_seconds(attribute.name, value, may_be_zero=True)


def _burst(_instance: object, attribute: Attribute[int | None], value: int | None) -> None:
    if value is not None:
        check_int(attribute.name, value, 1, MAX_BURST_BATCHES)


def _limit(_instance: object, attribute: Attribute[int | None], value: int | None) -> None:
    if value is not None:
        check_int(attribute.name, value, 1)


def _at_least_one(_instance: object, attribute: Attribute[int], value: int) -> None:
    check_int(attribute.name, value, 1)


def _wait(_instance: object, attribute: Attribute[int | None], value: int | None) -> None:
    if value is not None:
        check_int(attribute.name, value, 1, MAX_WAIT)


def _u64(_instance: object, attribute: Attribute[int | None], value: int | None) -> None:
    if value is not None:
        check_int(attribute.name, value)


def _retry(_instance: object, attribute: Attribute[Retry | None], value: Retry | None) -> None:
    if value is not None:
        check_type(attribute.name, value, Retry)


def _flag(_instance: object, attribute: Attribute[bool], value: bool) -> None:
    check_type(attribute.name, value, bool)


@frozen(kw_only=True)
class Settings:
    """What a client needs to talk to S2.

    A token over plain http to another machine is refused unless `allow_insecure`.
    """

    access_token: str | None = field(default=None, repr=False, validator=_check_token)
    endpoints: Endpoints = field(factory=Endpoints)
    allow_insecure: bool = field(default=False, validator=_flag)
    #: How session messages are compressed, both ways.
    compression: Compression = Compression.NONE
    #: Seconds to connect, TLS included; the official clients' value.
    connect_timeout: float = field(default=3.0, validator=_seconds)
    #: Seconds in which something must go on: an answer must begin, or go on; the connection must
    #: take more bytes; an ack must come. The official clients' value. The time that bytes take to
    #: cross the line comes on top of it: of those that are sent and unacked (of an ack, its own; of
    #: what the connection is to take, 4 MiB at most) at 16 kB/s, or at a quarter of the rate that
    #: was seen. So a line that stops is noticed within 71 s of a full batch, and within 267 s at
    #: the worst; within little more than this time where messages are small or the line is fast.
    request_timeout: float = field(default=5.0, validator=_seconds)
    #: How long to keep trying.
    retry: Retry = field(factory=Retry)

    def __attrs_post_init__(self) -> None:
        check_type("retry", self.retry, Retry)
        check_type("endpoints", self.endpoints, Endpoints)
        check_type("compression", self.compression, Compression)
        check_available(self.compression)
        if self.access_token and not (self.endpoints.is_private or self.allow_insecure):
            raise LocalProtocolError(
                "an access token over plain http can be read on the way: use an https endpoint, "
                "or pass allow_insecure=True (--allow-insecure)"
            )

    @classmethod
    def from_env(cls, environ: Mapping[str, str], **changes: object) -> Settings:
        """Settings from S2_ACCESS_TOKEN, S2_ACCOUNT_ENDPOINT and S2_BASIN_ENDPOINT.

        What is unset or empty keeps its default; of the two endpoints both are set or none, since
        the token of one place must not be sent to another. `changes` are further arguments of
        `Settings`. Raises `LocalProtocolError` that names the variable.
        """
        check_type("environ", environ, Mapping)
        names = [attribute.name for attribute in fields(cls)]
        for name in changes:
            if name not in names:
                raise LocalProtocolError(
                    f"there is no setting {name!r}; there are: {', '.join(names)}"
                )
        arguments: dict[str, object] = dict(changes)
        if "access_token" not in changes and (token := environ.get(ACCESS_TOKEN_VARIABLE)):
            _refuse_bad_token(f"the access token ({ACCESS_TOKEN_VARIABLE})", token)
            arguments["access_token"] = token
        if "endpoints" not in changes:
            arguments["endpoints"] = _endpoints_from(environ)
        return cls(**arguments)  # type: ignore[arg-type]  # checked when made

    def account_headers(self) -> dict[str, str]:
        """The headers of every request. Secret: never show them."""
        if self.access_token is None:
            return {}
        return {"authorization": f"Bearer {self.access_token}"}

    def basin_headers(self, basin: str) -> dict[str, str]:
        """The headers of every request to a basin's streams. Secret: never show them."""
        if _BASIN_PLACEHOLDER in self.endpoints.basin:
            return self.account_headers()
        return {**self.account_headers(), "s2-basin": check_basin_name(basin)}


@frozen(kw_only=True)
class AppendSettings:
    """How an append session appends."""

    #: Number the records, so that readers drop the repeats of a retried append. Without, a stream
    #: is for one writer at a time: the records of several look alike, and parts of two messages may
    #: be put together unnoticed.
    dedupe: bool = field(default=True, validator=_flag)
    #: Go on as a writer that there was before, from where `recover_writer` or `pending` say.
    resume: WriterState | None = None
    #: Go on as this writer, from this dedupe sequence. The one needs the other.
    writer_id: str | None = None
    first_dedupe_seq: int | None = None
    #: Append only where the writer left off, starting at the tail: no repeat gets into the stream,
    #: and as soon as somebody else appends the session ends with `SeqNumMismatch`.
    exclusive: bool = field(default=False, validator=_flag)
    #: The same, starting at this sequence number.
    match_seq_num: int | None = None
    #: Append only while this is the stream's fencing token.
    fencing_token: str | None = None
    #: Without dedupe, try again also what may have taken effect.
    allow_duplicates: bool = field(default=False, validator=_flag)
    #: The largest message.
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    #: Seconds that a batch which is not full waits for more; the official clients' value.
    linger: float = field(default=0.005, validator=_seconds_or_zero)
    #: Batches and metered bytes that may be unacked. The queue holds as many bytes again.
    max_inflight_batches: int = DEFAULT_MAX_INFLIGHT_BATCHES
    max_inflight_bytes: int = DEFAULT_MAX_INFLIGHT_BYTES
    #: Batches sent before the first ack is read, for transports that cannot read while they send;
    #: 1 makes every batch a request of its own, None needs a transport that can.
    burst_batches: int | None = field(default=None, validator=_burst)
    #: How long to keep trying; None: as the client's settings say.
    retry: Retry | None = field(default=None, validator=_retry)

    def __attrs_post_init__(self) -> None:
        # The writer checks what it is made of: each rule stands there.
        FrameWriter(
            self.writer_id,
            first_dedupe_seq=0 if self.first_dedupe_seq is None else self.first_dedupe_seq,
            max_frame_bytes=self.max_frame_bytes,
            match_seq_num=self.match_seq_num,
            fencing_token=self.fencing_token,
            max_inflight_batches=self.max_inflight_batches,
            max_inflight_bytes=self.max_inflight_bytes,
        )
        if (self.writer_id is None) != (self.first_dedupe_seq is None):
            raise LocalProtocolError(
                "writer_id and first_dedupe_seq go together: a writer that starts over at 0 under "
                "an id that was used before has its messages dropped as repeats; recover_writer "
                "tells where it goes on"
            )
        if self.resume is not None:
            check_type("resume", self.resume, WriterState)
            if self.writer_id is not None or self.match_seq_num is not None:
                raise LocalProtocolError(
                    "resume says who writes and where: give no writer_id, first_dedupe_seq or "
                    "match_seq_num with it"
                )
        if self.dedupe:
            return
        if self.writer_id is not None or self.resume is not None:
            raise LocalProtocolError("writer_id and resume need dedupe=True")
        if self.exclusive or self.match_seq_num is not None:
            raise LocalProtocolError(
                "exclusive and match_seq_num need dedupe=True: without it the session could not "
                "tell its own records in the stream"
            )

    @property
    def is_exclusive(self) -> bool:
        """Whether every batch is conditioned on its place."""
        is_resumed_so = self.resume is not None and self.resume.is_exclusive
        return self.exclusive or is_resumed_so or self.first_match_seq_num is not None

    @property
    def first_match_seq_num(self) -> int | None:
        """Where the first record is to be, if that is known beforehand."""
        return self.match_seq_num if self.resume is None else self.resume.match_seq_num


@frozen(kw_only=True)
class ReadSettings:
    """How a read session reads."""

    #: The sequence number to start at, or the checkpoint to go on from. 0 is the first there is.
    start: int | Checkpoint = field(default=0)
    #: Start at the first record of this time (milliseconds) or later, instead of at `start`.
    timestamp: int | None = field(default=None, validator=_u64)
    #: Start with so many of the messages that were completed last, instead of at `start`.
    last: int | None = field(default=None, validator=_limit)
    #: Go on at the tail and wait for more, instead of ending there.
    follow: bool = field(default=False, validator=_flag)
    #: The same, but end when no record has come for so many whole seconds.
    wait: int | None = field(default=None, validator=_wait)
    #: End after this many messages.
    limit: int | None = field(default=None, validator=_limit)
    #: End at the first record of this time (milliseconds) or later.
    until: int | None = field(default=None, validator=_u64)
    #: End before this sequence number.
    end: int | None = field(default=None, validator=_u64)
    #: Drop the repeats of retried appends. Without, a stream is for one writer at a time, whose
    #: appends were not repeated: parts of two messages may be put together unnoticed.
    dedupe: bool = field(default=True, validator=_flag)
    #: The largest message.
    max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES
    #: Writers remembered.
    max_writers: int = DEFAULT_MAX_WRITERS
    #: Bytes of incomplete messages held; None allows 256 MiB, or `max_frame_bytes` if that is more.
    max_buffered_bytes: int | None = None
    #: Records that a session which goes on from a checkpoint reads once more at most. A message
    #: that is incomplete for so long is given up; if its writer goes on with it, it is lost.
    max_reread: int = field(default=DEFAULT_MAX_REREAD, validator=_at_least_one)
    #: Bytes at the end of the stream in which the `last` messages are searched for.
    max_scan_bytes: int = field(default=DEFAULT_MAX_SCAN_BYTES, validator=_at_least_one)
    #: How long to keep trying; None: as the client's settings say.
    retry: Retry | None = field(default=None, validator=_retry)

    def __attrs_post_init__(self) -> None:
        is_checkpoint = isinstance(self.start, Checkpoint)
        if not (is_checkpoint or is_u64(self.start)):
            raise LocalProtocolError(
                f"start must be a sequence number from 0 to {U64_MAX} or a Checkpoint, "
                f"not {brief(self.start)}"
            )
        if isinstance(self.start, Checkpoint):
            check_checkpoint(self.start)
        # The reader checks what it is made of: each rule stands there.
        FrameReader(
            max_frame_bytes=self.max_frame_bytes,
            max_writers=self.max_writers,
            max_buffered_bytes=self.max_buffered_bytes,
            max_reread=self.max_reread,
        )
        starts = {
            "start": is_checkpoint or self.start != 0,
            "timestamp": self.timestamp is not None,
            "last": self.last is not None,
        }
        given = [name for name, is_given in starts.items() if is_given]
        if len(given) > 1:
            raise LocalProtocolError(f"{' and '.join(given)} say where to start: give one of them")
        if self.follow and self.wait is not None:
            raise LocalProtocolError("follow never ends and wait does: give one of them")


def _endpoints_from(environ: Mapping[str, str]) -> Endpoints:
    """The endpoints that the environment names. Raises when it names one of them."""
    account = environ.get(ACCOUNT_ENDPOINT_VARIABLE)
    basin = environ.get(BASIN_ENDPOINT_VARIABLE)
    if not account and not basin:
        return Endpoints()
    if not account or not basin:
        there, missing = ACCOUNT_ENDPOINT_VARIABLE, BASIN_ENDPOINT_VARIABLE
        if not account:
            there, missing = missing, there
        raise LocalProtocolError(
            f"{there} is set and {missing} is not: set both (to one URL for s2 lite), or neither"
        )
    _check_endpoint(f"account endpoint ({ACCOUNT_ENDPOINT_VARIABLE})", account)
    _check_endpoint(f"basin endpoint ({BASIN_ENDPOINT_VARIABLE})", basin, may_name_basin=True)
    return Endpoints(account, basin)


def _check_endpoint(which: str, url: str, *, may_name_basin: bool = False) -> None:
    # A URL may hold a password where it should not: what is refused is not shown.
    if isinstance(url, str) and url != url.strip():
        raise LocalProtocolError(
            f"the {which} has white space or a line break around it: leave it out"
        )
    try:
        parts = urlsplit(url.replace(_BASIN_PLACEHOLDER, "basin") if may_name_basin else url)
        host = parts.hostname
    except (ValueError, AttributeError):
        raise LocalProtocolError(f"the {which} is no URL") from None
    if parts.username is not None or parts.query or parts.fragment:
        raise LocalProtocolError(f"the {which} must have no user, query or fragment")
    if parts.scheme not in ("http", "https") or not host:
        raise LocalProtocolError(f"the {which} must be http://HOST or https://HOST")
    if not _has_good_port(parts):
        raise LocalProtocolError(f"the {which} must have a port from 1 to 65535, or none")
    if not (url.isascii() and url.isprintable()) or set(url) & set(' "<>\\^`{|}') - set(
        "{}" if may_name_basin else ""
    ):
        raise LocalProtocolError(f"the {which} has a character that no URL has")


def _has_good_port(parts: SplitResult) -> bool:
    try:
        return parts.port != 0
    except ValueError:
        return False


def _is_private(url: str) -> bool:
    parts = urlsplit(url.replace(_BASIN_PLACEHOLDER, "basin"))
    host = parts.hostname or ""
    if parts.scheme == "https" or host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
