"""`s2frames read`: messages to standard output, or to files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from s2frames.cli.address import FORM, StreamAddress, stream_address
from s2frames.cli.exit_codes import ExitCode
from s2frames.cli.failures import Failure, count, explain, say, say_error
from s2frames.cli.options import Connection, connection_options, u64
from s2frames.cli.outputs import Directory, Output, Stdout
from s2frames.cli.progress import progress_count
from s2frames.errors import FrameLost, TransportError
from s2frames.options import ReadOptions
from s2frames_httpx import ReadSession

__all__ = ["read"]


@click.command(short_help="Print messages, or store them as files.")
@click.argument("address", metavar=FORM, type=stream_address)
@click.option(
    "--start",
    metavar="N",
    type=u64,
    help="Begin at this sequence number; without it, at the oldest record.",
)
@click.option(
    "--timestamp",
    metavar="MS",
    type=u64,
    help="Begin at the first record of this time or later, in milliseconds since 1970.",
)
@click.option("--follow", is_flag=True, help="Go on live at the tail, until Ctrl-C.")
@click.option("--limit", metavar="N", type=click.IntRange(1), help="End after N messages.")
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Write each message to a file in DIR, named by its sequence number.",
)
@connection_options
def read(
    address: StreamAddress,
    start: int | None,
    timestamp: int | None,
    follow: bool,
    limit: int | None,
    output: Path | None,
    connection: Connection,
) -> int:
    """Print the messages of a stream, each followed by a newline.

    A message that cannot be put together is told on stderr; the others are read, and the exit code
    is 1.
    """
    if start is not None and timestamp is not None:
        raise click.UsageError("--start and --timestamp exclude each other")
    options: ReadOptions = {"timestamp": timestamp, "follow": follow, "limit": limit}
    if start is not None:
        options["start"] = start
    with connection.stream(address) as stream:
        target: Output = Stdout(is_live=follow) if output is None else Directory(output)
        copying = _Copying(address, target)
        try:
            with stream.read_session(**options) as session, progress_count("reading") as step:
                copying.run(session, step)
        except KeyboardInterrupt:
            # There is no other way to end a reader that follows.
            if not follow:
                return ExitCode.INTERRUPTED
    copying.say_what_was_left_out()
    if output is not None:
        say(f"{count(copying.num_messages, 'message')} in {output}")
    return ExitCode.FAILED if copying.num_lost else ExitCode.DONE


class _Copying:
    """Moves messages from a session to an output."""

    def __init__(self, address: StreamAddress, output: Output) -> None:
        self._address = address
        self._output = output
        self.num_messages = 0
        self.num_lost = 0
        self.num_others = 0
        self.num_gaps = 0

    def run(self, session: ReadSession[bytes], step: Callable[[int], None]) -> None:
        """Move all there is. Raises `Failure` with where to go on when the connection is lost."""
        try:
            self._move_all(session, step)
        finally:
            self.num_others = session.stats.other_records
            self.num_gaps = session.stats.gaps

    def _move_all(self, session: ReadSession[bytes], step: Callable[[int], None]) -> None:
        while True:
            try:
                self._move(session, step)
            except FrameLost as lost:
                self.num_lost += 1
                say_error(f"{self._address}: {lost}")
            except TransportError as error:
                if not self.num_messages:
                    raise
                next_start = session.checkpoint().read_from
                raise Failure(
                    f"{self._address}: {explain(error)}; go on with --start {next_start} "
                    "(which may repeat some)"
                ) from error
            else:
                return

    def say_what_was_left_out(self) -> None:
        """Tell of records that are no messages, and of those that are gone."""
        if self.num_others:
            say(f"{count(self.num_others, 'record')} of no message skipped")
        if self.num_gaps:
            say(f"records were trimmed before they were read, at {count(self.num_gaps, 'place')}")

    def _move(self, session: ReadSession[bytes], step: Callable[[int], None]) -> None:
        """Move the messages up to the end, or up to one that is lost."""
        for frame in session.frames():
            self._output.put(frame.start, frame.message)
            self.num_messages += 1
            step(len(frame.message))
