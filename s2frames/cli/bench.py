"""`s2frames bench`: how fast messages are appended and read, and how soon they are durable."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from itertools import islice
from math import ceil
from typing import Any

import click
from attrs import frozen
from rich.table import Table

from s2frames.cli.address import FORM, StreamAddress, stream_address
from s2frames.cli.chain import MIN_MESSAGE_BYTES, Chain, ChainCheck
from s2frames.cli.exit_codes import ExitCode
from s2frames.cli.failures import Failure, explain, explained, say, say_interrupted
from s2frames.cli.follower import Arrivals, Following, following
from s2frames.cli.options import Connection, connection_options
from s2frames.cli.progress import progress_bar, retry_lines
from s2frames.cli.tables import print_tables
from s2frames.cli.transports import TRANSPORTS, Appending, Transport
from s2frames.errors import S2FramesError, ServiceError
from s2frames.framing import DEFAULT_MAX_FRAME_BYTES
from s2frames.settings import Endpoints, Settings
from s2frames_httpx import Client, Stream

__all__ = ["bench"]

_MIB = 2**20

# Messages appended one at a time, for the latency: the 99th percentile is not the largest.
_NUM_ALONE = 200

# Steps of a progress bar: one for each message would take longer than a message does.
_NUM_STEPS = 100

_EMBEDDED = StreamAddress("bench-basin", "bench")

Figures = Mapping[str, Any]


@click.command(short_help="Measure how fast messages are appended and read.")
@click.argument("address", metavar=f"[{FORM}]", type=stream_address, required=False)
@click.option(
    "--size",
    metavar="B",
    type=click.IntRange(MIN_MESSAGE_BYTES, DEFAULT_MAX_FRAME_BYTES),
    default=1000,
    show_default=True,
    help="Bytes of each message.",
)
@click.option(
    "--count",
    "num_messages",
    metavar="N",
    type=click.IntRange(1),
    default=10_000,
    show_default=True,
    help="How many messages are appended.",
)
@click.option(
    "--transport",
    "transport_name",
    type=click.Choice(list(TRANSPORTS)),
    default="trio",
    show_default=True,
    help="The client: over HTTP/2 (trio), or over HTTP/1.1.",
)
@click.option(
    "--live",
    "is_live",
    is_flag=True,
    help="A second process follows meanwhile; this gives the latency from end to end.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as one line of JSON.")
@connection_options
def bench(
    address: StreamAddress | None,
    size: int,
    num_messages: int,
    transport_name: str,
    is_live: bool,
    as_json: bool,
    connection: Connection,
) -> int:
    """Append messages, read them back, and say how fast that was.

    Latency is that of up to 200 further messages, each appended when the one before is durable.
    Every message carries the hash of the one before, and all that is read is compared.

    Without a stream this needs no service: one runs inside the command, in memory. A stream that
    exists keeps what was appended; one that is missing is created, and deleted in the end.
    """
    _check_extra(transport_name)
    num_alone = min(num_messages, _NUM_ALONE)
    chain = Chain(size, num_alone + num_messages, random.SystemRandom().getrandbits(64))
    with _opened(address, connection) as opened:
        transport = TRANSPORTS[transport_name](opened.settings, opened.address, retry_lines())
        try:
            figures = _measure(_Bench(transport_name, transport, chain, num_alone, opened, is_live))
        except KeyboardInterrupt:
            if opened.is_made:
                raise
            return say_interrupted(transport.num_durable())
    _show(figures, as_json=as_json)
    return ExitCode.DONE


# The stream


@frozen
class _Opened:
    """The stream to use."""

    address: StreamAddress
    settings: Settings
    start: int
    #: Whether it goes when the command ends.
    is_made: bool


@contextmanager
def _opened(address: StreamAddress | None, connection: Connection) -> Iterator[_Opened]:
    """The stream that is named, or one of a service of its own."""
    if address is not None:
        with connection.stream(address) as stream, _made_if_missing(stream) as is_made:
            start = stream.check_tail().seq_num
            yield _Opened(address, stream.target.settings, start, is_made)
        return
    if connection != Connection():
        raise click.UsageError(f"--endpoint and --allow-insecure need a stream: {FORM}")
    with (
        _served() as url,
        Client(Settings(endpoints=Endpoints.at(url))) as client,
        explained(_EMBEDDED),
    ):
        client.create_basin(_EMBEDDED.basin)
        client.stream(_EMBEDDED.basin, _EMBEDDED.stream).create()
        yield _Opened(_EMBEDDED, client.settings, 0, is_made=True)


@contextmanager
def _made_if_missing(stream: Stream) -> Iterator[bool]:
    try:
        stream.create()
    except ServiceError as error:
        if error.code != "resource_already_exists":
            raise
        yield False
        return
    try:
        yield True
    finally:
        _delete(stream)


def _delete(stream: Stream) -> None:
    try:
        stream.delete()
    except S2FramesError as error:
        # What was measured, or what went wrong before, matters more.
        say(f"the stream that was made could not be deleted: {explain(error)}")


@contextmanager
def _served() -> Iterator[str]:
    """A service in a thread of this process, so that every transport has a socket to use."""
    try:
        from anyio.from_thread import start_blocking_portal

        from s2frames.embedded import Service
        from s2frames.embedded.serving import serving
    except ImportError as error:
        raise Failure(str(error)) from error
    service = Service(random=random.random)
    interrupt = None
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(serving(service)) as url,
    ):
        try:
            yield url
        except KeyboardInterrupt as error:
            # It is not for the thread, whose tasks would make a group of it.
            interrupt = error
    if interrupt is not None:
        raise interrupt


def _check_extra(transport_name: str) -> None:
    try:
        import_module(TRANSPORTS[transport_name].package)
    except ImportError as error:
        raise Failure(f"--transport {transport_name}: {error}") from error


# Measuring


@frozen
class _Bench:
    """What to measure."""

    transport_name: str
    transport: Transport
    chain: Chain
    num_alone: int
    opened: _Opened
    is_live: bool

    @property
    def num_together(self) -> int:
        return self.chain.num_messages - self.num_alone

    def rates(self, num_messages: int, seconds: float) -> dict[str, float]:
        """Messages and MiB a second."""
        return {
            "msg_s": round(num_messages / seconds, 1),
            "mib_s": round(num_messages * self.chain.size / _MIB / seconds, 2),
        }


def _measure(what: _Bench) -> Figures:
    appending, arrivals = _append(what)
    figures: dict[str, Any] = {
        "transport": what.transport_name,
        "size": what.chain.size,
        "count": what.num_together,
        "append": {
            **what.rates(what.num_together, appending.ended - appending.began),
            **_latency(appending.sent, appending.acked),
        },
    }
    if arrivals is not None:
        figures["live"] = {
            **what.rates(what.num_together, arrivals.last - appending.began),
            **_latency(appending.sent, arrivals.noted),
        }
    figures["read"] = what.rates(what.chain.num_messages, _read(what))
    return {**figures, "rss_mib": _peak_rss_mib()}


def _append(what: _Bench) -> tuple[Appending, Arrivals | None]:
    """Append everything, with a follower when there is to be one."""
    with ExitStack() as stack:
        follower = None
        if what.is_live:
            follower = stack.enter_context(following(_following(what)))
            follower.wait_until_ready()
        messages = iter(what.chain)
        alone = islice(messages, what.num_alone)
        together = stack.enter_context(_shown("appending", messages, what.num_together))
        appending = what.transport.append(alone, together)
        return appending, None if follower is None else follower.arrivals()


def _following(what: _Bench) -> Following:
    return Following(
        transport=what.transport_name,
        settings=what.opened.settings,
        address=what.opened.address,
        start=what.opened.start,
        chain=what.chain,
        num_noted=what.num_alone,
    )


def _read(what: _Bench) -> float:
    """Read everything from the beginning and compare; returns how many seconds it took."""
    check = ChainCheck(what.chain)
    seconds = what.transport.read(
        check.take, {"start": what.opened.start, "limit": what.chain.num_messages}
    )
    check.finish()
    return seconds


@contextmanager
def _shown(what: str, messages: Iterator[bytes], num_messages: int) -> Iterator[Iterator[bytes]]:
    """The same messages, with a progress bar."""
    with progress_bar(what, _NUM_STEPS) as step:
        yield _stepping(messages, num_messages, step)


def _stepping(
    messages: Iterator[bytes], num_messages: int, step: Callable[[], None]
) -> Iterator[bytes]:
    for number in range(_NUM_STEPS):
        begin, end = (num_messages * n // _NUM_STEPS for n in (number, number + 1))
        yield from islice(messages, end - begin)
        step()


def _latency(sent: list[float], arrived: list[float]) -> dict[str, float]:
    """The median and the 99th percentile, in milliseconds."""
    seconds = sorted(end - begin for begin, end in zip(sent, arrived, strict=True))
    return {
        f"p{percent}_ms": round(_percentile(seconds, percent) * 1000, 3) for percent in (50, 99)
    }


def _percentile(values: list[float], percent: int) -> float:
    """The smallest of the sorted `values` that so many percent of them do not exceed."""
    return values[ceil(len(values) * percent / 100) - 1]


def _peak_rss_mib() -> float | None:
    """How much memory this process had at most; None where that cannot be asked."""
    try:
        import resource
    except ImportError:
        # Windows.
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB elsewhere.
    return round(peak / (_MIB if sys.platform == "darwin" else 1024), 1)


# Showing

_UNITS = {"msg_s": "messages/s", "mib_s": "MiB/s", "p50_ms": "ms (median)", "p99_ms": "ms (99 %)"}


def _show(figures: Figures, *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(figures, separators=(",", ":")))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for unit in _UNITS.values():
        table.add_column(unit, justify="right")
    for name in ("append", "live", "read"):
        if name in figures:
            row = figures[name]
            table.add_row(name, *(f"{row[key]:,}" if key in row else "" for key in _UNITS))
    print_tables(table)
    if figures["rss_mib"] is not None:
        click.echo(f"memory at most {figures['rss_mib']:,} MiB")
