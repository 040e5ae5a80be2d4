"""`s2frames read`: messages to standard output, or to files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import click

from s2frames.checkpoint import Checkpoint
from s2frames.cli.address import FORM, StreamAddress, stream_address
from s2frames.cli.checkpoint_file import CheckpointFile
from s2frames.cli.exit_codes import ExitCode
from s2frames.cli.failures import Failure, count, explain, say, say_error
from s2frames.cli.options import Connection, connection_options, u64
from s2frames.cli.outputs import Directory, Output, Stdout
from s2frames.cli.progress import progress_count, retry_lines
from s2frames.errors import FrameLost, TransportError
from s2frames.events import GapDetected
from s2frames.options import ReadOptions
from s2frames_httpx import ReadSession

__all__ = ["read"]

# Seconds between two writes of the checkpoint file: as much may be read again after a kill.
_SAVE_INTERVAL = 1.0


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
@click.option(
    "--last",
    metavar="N",
    type=click.IntRange(1),
    help="Begin at the Nth message from the end.",
)
@click.option(
    "--checkpoint",
    "checkpoint_path",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Go on where the last run with this FILE stopped, and note in it where this one does.",
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
    last: int | None,
    checkpoint_path: Path | None,
    follow: bool,
    limit: int | None,
    output: Path | None,
    connection: Connection,
) -> int:
    """Print the messages of a stream, each followed by a newline.

    A message that cannot be put together is told on stderr; the others are read, and the exit code
    is 1.
    """
    beginnings = {
        "--start": start,
        "--timestamp": timestamp,
        "--last": last,
        "--checkpoint": checkpoint_path,
    }
    given = [name for name, value in beginnings.items() if value is not None]
    if len(given) > 1:
        raise click.UsageError(f"{given[0]} and {given[1]} exclude each other")
    options: ReadOptions = {"timestamp": timestamp, "last": last, "follow": follow, "limit": limit}
    if start is not None:
        options["start"] = start
    file = None if checkpoint_path is None else CheckpointFile(checkpoint_path)
    if file is not None and (stopped_at := file.load()) is not None:
        options["start"] = stopped_at
    # What the file says was read must have been written.
    is_live = follow or file is not None
    on_retry = retry_lines()
    with connection.stream(address) as stream:
        target: Output = Stdout(is_live=is_live) if output is None else Directory(output)
        copying = _Copying(address, target, file)
        try:
            with (
                stream.read_session(on_retry=on_retry, **options) as session,
                progress_count("reading") as step,
            ):
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

    def __init__(
        self, address: StreamAddress, output: Output, file: CheckpointFile | None = None
    ) -> None:
        self._address = address
        self._output = output
        self._file = file
        # What the file is to hold, and when it is written next.
        self._stopped_at: Checkpoint | None = None
        self._save_at = time.monotonic() + _SAVE_INTERVAL
        self.num_messages = 0
        self.num_lost = 0
        self.num_others = 0
        # Gaps that were not told of as losses.
        self.num_gaps = 0

    def run(self, session: ReadSession[bytes], step: Callable[[int], None]) -> None:
        """Move all there is. Raises `Failure` with where to go on when the connection is lost."""
        try:
            self._move_all(session, step)
        finally:
            self.num_others = session.stats.other_records
            self.num_gaps += session.stats.gaps
            self._save()

    def _move_all(self, session: ReadSession[bytes], step: Callable[[int], None]) -> None:
        while True:
            try:
                self._move(session, step)
            except FrameLost as lost:
                self.num_lost += 1
                self.num_gaps -= isinstance(lost.event, GapDetected)
                say_error(f"{self._address}: {lost}")
            except TransportError as error:
                if not self.num_messages:
                    raise
                how = self._how_to_go_on(session)
                raise Failure(f"{self._address}: {explain(error)}; {how}") from error
            else:
                self._note(session)
                return

    def _how_to_go_on(self, session: ReadSession[bytes]) -> str:
        if self._file is not None:
            return "run this again to go on"
        next_start = session.checkpoint().read_from
        return f"go on with --start {next_start} (which may repeat some)"

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
            self._note(session)

    def _note(self, session: ReadSession[bytes]) -> None:
        """Everything handed out so far is written: the next run may go on from here."""
        if self._file is None:
            return
        self._stopped_at = session.checkpoint()
        if time.monotonic() >= self._save_at:
            self._save()

    def _save(self) -> None:
        if self._file is not None and self._stopped_at is not None:
            self._file.save(self._stopped_at)
            self._save_at = time.monotonic() + _SAVE_INTERVAL
