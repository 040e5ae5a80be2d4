"""`s2frames write`: files, or lines, as messages."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

import click
from attrs import define, field

from s2frames.cli.address import FORM, StreamAddress, stream_address
from s2frames.cli.exit_codes import ExitCode
from s2frames.cli.failures import Failure, count, say, say_interrupted
from s2frames.cli.inputs import STDIN, InputError, Lines, whole_files
from s2frames.cli.options import Connection, connection_options
from s2frames.cli.progress import progress_count, retry_lines
from s2frames.events import Appended
from s2frames.framing import DEFAULT_MAX_FRAME_BYTES
from s2frames_httpx import AppendSession

__all__ = ["write"]


@click.command(short_help="Append files, or lines, as messages.")
@click.argument("address", metavar=FORM, type=stream_address)
@click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(allow_dash=True))
@click.option(
    "--lines",
    "as_lines",
    is_flag=True,
    help="Each line is a message, without its newline, and goes out as soon as it is there. "
    "Empty lines are skipped.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help='Print {"start":..,"end":..,"bytes":..} for each message, as soon as it is durable.',
)
@connection_options
def write(
    address: StreamAddress,
    files: tuple[str, ...],
    as_lines: bool,
    as_json: bool,
    connection: Connection,
) -> int:
    """Append each FILE as one message; without FILE, or where it is -, standard input."""
    names, on_retry = files or (STDIN,), retry_lines()
    with ExitStack() as stack:
        report = _Report(as_json, stack.enter_context(progress_count("writing")))
        lines = stack.enter_context(Lines(names, DEFAULT_MAX_FRAME_BYTES)) if as_lines else None
        bunches = lines.bunches() if lines else whole_files(names, DEFAULT_MAX_FRAME_BYTES)
        stream = stack.enter_context(connection.stream(address))
        session = stream.append_session(max_frame_bytes=DEFAULT_MAX_FRAME_BYTES, on_retry=on_retry)
        try:
            _append(session, bunches, report)
        except KeyboardInterrupt:
            return say_interrupted(session.durable_messages)
        except InputError as error:
            durable = count(session.durable_messages, "message")
            raise Failure(f"{error}; {durable} durable") from error
        except OSError as error:
            # Only the report can have raised it, and then nothing more was sent.
            known = count(session.durable_messages, "message")
            why = error.strerror or error
            raise Failure(f"standard output: {why}; {known} known to be durable") from error
    report.summarize(session.durable_messages, lines.num_empty if lines else 0)
    return ExitCode.DONE


def _append(
    session: AppendSession[bytes], bunches: Iterator[Iterator[bytes]], report: _Report
) -> None:
    with session:
        for bunch in bunches:
            # Returns when all of it is durable.
            session.append_many(report.counting(bunch), on_durable=report.tell)


@define
class _Report:
    """What became of the messages."""

    _as_json: bool
    _step: Callable[[int], None]
    _num_bytes: int = 0
    # Of the messages on their way, in order.
    _sizes: deque[int] = field(factory=deque)

    def counting(self, messages: Iterable[bytes]) -> Iterator[bytes]:
        """The same messages, noted."""
        for message in messages:
            self._sizes.append(len(message))
            yield message

    def tell(self, appended: Appended) -> None:
        """The next message is durable."""
        size = self._sizes.popleft()
        self._num_bytes += size
        self._step(size)
        if self._as_json:
            position = {"start": appended.start, "end": appended.end, "bytes": size}
            click.echo(json.dumps(position, separators=(",", ":")))

    def summarize(self, num_messages: int, num_empty: int) -> None:
        """Say what was done, as far as that was not said message by message."""
        parts = []
        if not self._as_json:
            written = f"{count(num_messages, 'message')}, {count(self._num_bytes, 'byte')} durable"
            parts.append(written)
        if num_empty:
            parts.append(f"{count(num_empty, 'empty line')} skipped")
        if parts:
            say("; ".join(parts))
