"""`s2frames demo`: write a chat, read it back, and compare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from time import perf_counter

import click

from s2frames.cli.address import FORM, StreamAddress, stream_address
from s2frames.cli.chat import ChatMessage, chat
from s2frames.cli.exit_codes import ExitCode
from s2frames.cli.failures import Failure, count, explained, say_interrupted
from s2frames.cli.options import Connection, connection_options
from s2frames.cli.progress import progress_bar, retry_lines
from s2frames.cli.tables import figures_table, print_tables
from s2frames.errors import FrameLost, ServiceError
from s2frames.events import GapDetected
from s2frames.inbox import ReceivedMessage
from s2frames.reader import ReaderStats
from s2frames_httpx import AppendSession, Client, ReadSession, Stream

__all__ = ["compare", "demo"]

# So many are at hand at once, and take about half a gigabyte.
_MAX_MESSAGES = 1_000_000

_EMBEDDED = StreamAddress("demo-basin", "chat")


@click.command(short_help="Write a chat, read it back, compare.")
@click.argument("address", metavar=f"[{FORM}]", type=stream_address, required=False)
@click.option(
    "--messages",
    "num_messages",
    metavar="N",
    type=click.IntRange(1, _MAX_MESSAGES),
    default=1000,
    show_default=True,
    help="How many messages the chat has.",
)
@click.option(
    "--seed",
    metavar="N",
    type=int,
    default=0,
    show_default=True,
    help="Which chat: the same seed makes the same messages.",
)
@connection_options
def demo(
    address: StreamAddress | None, num_messages: int, seed: int, connection: Connection
) -> int:
    """Write a chat (text, code, a 5 MiB image), read it back, and compare each message.

    Without a stream this needs no service: one runs inside the command, in memory. The stream
    that is named is created if it is missing; its basin must be there.
    """
    with _opened(address, connection) as stream:
        session = stream.append_session(on_retry=retry_lines())
        try:
            messages = list(chat(num_messages, seed))
            start = stream.check_tail().seq_num
            seconds_written = _write(session, messages)
            seconds_read, stats = _read_back(stream, start, session.writer_id, messages)
        except KeyboardInterrupt:
            return say_interrupted(session.durable_messages)
    _show(messages, stats, seconds_written, seconds_read)
    return ExitCode.DONE


@contextmanager
def _opened(address: StreamAddress | None, connection: Connection) -> Iterator[Stream]:
    """The stream to use: the one that is named, or one of a service of its own."""
    if address is not None:
        with connection.stream(address) as stream:
            _create_if_missing(stream)
            yield stream
        return
    if connection != Connection():
        raise click.UsageError(f"--endpoint and --allow-insecure need a stream: {FORM}")
    with Client.embedded() as client, explained(_EMBEDDED):
        client.create_basin(_EMBEDDED.basin)
        stream = client.stream(_EMBEDDED.basin, _EMBEDDED.stream)
        stream.create()
        yield stream


def _create_if_missing(stream: Stream) -> None:
    # Ensuring it would give a stream that exists another config.
    try:
        stream.create()
    except ServiceError as error:
        if error.code != "resource_already_exists":
            raise


def _write(session: AppendSession[bytes], messages: Sequence[ChatMessage]) -> float:
    """Append the messages; returns how many seconds it took."""
    with progress_bar("writing", len(messages)) as step:
        began = perf_counter()
        with session:
            session.append_many(
                (message.payload for message in messages), on_durable=lambda _: step()
            )
        return perf_counter() - began


def _read_back(
    stream: Stream, start: int, writer_id: str | None, messages: Sequence[ChatMessage]
) -> tuple[float, ReaderStats]:
    """Read and compare the messages; returns how many seconds it took, and the counters."""
    digests = [sha256(message.payload).digest() for message in messages]
    on_retry = retry_lines()
    with progress_bar("reading", len(messages)) as step:
        began = perf_counter()
        with stream.read_session(start=start, on_retry=on_retry) as session:
            compare(_written_by(writer_id, session), messages, digests, step)
        return perf_counter() - began, session.stats


def _written_by(
    writer_id: str | None, session: ReadSession[bytes]
) -> Iterator[ReceivedMessage[bytes]]:
    """What one writer wrote: others may use the stream, too."""
    frames = session.frames()
    while True:
        try:
            frame = next(frames, None)
        except FrameLost as lost:
            # What was removed unread may be anybody's.
            if isinstance(lost.event, GapDetected) or lost.event.writer_id == writer_id:
                raise
            continue
        if frame is None:
            return
        if frame.writer_id == writer_id:
            yield frame


def compare(
    received: Iterator[ReceivedMessage[bytes]],
    messages: Sequence[ChatMessage],
    digests: Sequence[bytes],
    step: Callable[[], None],
) -> None:
    """See that `received` are the messages, in order. Raises a `Failure` for the first that is not.

    `digests` are the SHA-256 of the messages; `step` is called for each that is the same.
    """
    for number, (message, digest) in enumerate(zip(messages, digests, strict=True), 1):
        size = count(len(message.payload), "byte")
        which = f"message {number} of {len(messages)} ({message.kind}, {size})"
        frame = next(received, None)
        if frame is None:
            raise Failure(f"{which} did not come back")
        if sha256(frame.message).digest() != digest:
            raise Failure(
                f"{which} did not come back intact: at sequence number {frame.start} there is "
                f"another one of {count(len(frame.message), 'byte')}"
            )
        step()
    extra = next(received, None)
    if extra is not None:
        raise Failure(f"one message too many came back, at sequence number {extra.start}")


def _show(
    messages: Sequence[ChatMessage], stats: ReaderStats, seconds_written: float, seconds_read: float
) -> None:
    num_bytes = sum(len(message.payload) for message in messages)
    mib = num_bytes / 2**20
    table = figures_table()
    table.add_row("messages", f"{len(messages):,}")
    table.add_row("bytes", f"{num_bytes:,}")
    table.add_row("records", f"{stats.records:,}")
    table.add_row("written", f"{mib / seconds_written:,.1f} MiB/s")
    table.add_row("read", f"{mib / seconds_read:,.1f} MiB/s")
    table.add_row("duplicates dropped", f"{stats.duplicates:,}")
    print_tables(table, "[green]every message came back intact, in order")
