"""`s2frames inspect`: what a stream holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from typing import Any

import click
from attrs import define, field
from rich.table import Table
from rich.text import Text

from s2frames.cli.address import FORM, StreamAddress, stream_address
from s2frames.cli.exit_codes import ExitCode
from s2frames.cli.failures import count, one_line, say_error
from s2frames.cli.options import Connection, connection_options
from s2frames.cli.progress import progress_count, retry_lines
from s2frames.cli.tables import figures_table, print_tables
from s2frames.errors import FrameLost
from s2frames.inbox import ReceivedMessage
from s2frames.reader import ReaderStats
from s2frames_httpx import ReadSession

__all__ = ["inspect"]

# Writers told apart. A stream can have one a message; they are to need a few MiB at most.
_MAX_WRITERS = 10_000

# Writers in the table; the JSON has all.
_MAX_ROWS = 20


@click.command(short_help="Tell what a stream holds.")
@click.argument("address", metavar=FORM, type=stream_address)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object.")
@connection_options
def inspect(address: StreamAddress, as_json: bool, connection: Connection) -> int:
    """Read a stream to its end, and tell its writers, messages, repeats, gaps and commands.

    A message that is lost is told on stderr, and the exit code is 1.
    """
    census = _Census()
    on_retry = retry_lines()
    with (
        connection.stream(address) as stream,
        stream.read_session(on_retry=on_retry) as session,
        progress_count("reading", ends_before_output=True) as step,
    ):
        census.take_all(session, step, address)
    if as_json:
        click.echo(json.dumps(census.as_json(session.stats), separators=(",", ":")))
    else:
        census.show(session.stats)
    return ExitCode.FAILED if census.num_lost else ExitCode.DONE


@define
class _Written:
    """What one writer wrote."""

    messages: int = 0
    num_bytes: int = 0
    #: From the first record of the first message up to behind the last one of the last.
    start: int = 0
    end: int = 0

    def take(self, message: ReceivedMessage[bytes]) -> None:
        """Count a message."""
        if not self.messages:
            self.start = message.start
        self.messages += 1
        self.num_bytes += len(message.message)
        self.end = message.end


@define
class _Census:
    """What a stream holds."""

    num_lost: int = 0
    num_bytes: int = 0
    # By writer id, None where messages name none, in order of their first messages.
    _writers: dict[str | None, _Written] = field(factory=dict)
    # Messages of writers that came when there were too many.
    _num_of_others: int = 0

    def take_all(
        self, session: ReadSession[bytes], step: Callable[[int], None], address: StreamAddress
    ) -> None:
        """Count all messages; those that are lost are told."""
        while True:
            try:
                for message in session.frames():
                    self._take(message)
                    step(len(message.message))
            except FrameLost as lost:
                self.num_lost += 1
                say_error(f"{address}: {lost}")
            else:
                return

    def _take(self, message: ReceivedMessage[bytes]) -> None:
        self.num_bytes += len(message.message)
        written = self._writers.get(message.writer_id)
        if written is None:
            if len(self._writers) == _MAX_WRITERS:
                self._num_of_others += 1
                return
            written = self._writers[message.writer_id] = _Written()
        written.take(message)

    def as_json(self, stats: ReaderStats) -> dict[str, Any]:
        """Everything, for programs."""
        return {
            "records": stats.records,
            "messages": stats.frames,
            "bytes": self.num_bytes,
            "duplicates": stats.duplicates,
            "dropped": {reason.value: times for reason, times in stats.dropped.items()},
            "gaps": stats.gaps,
            "sequence_gaps": stats.sequence_gaps,
            "commands": stats.commands,
            "other_records": stats.other_records,
            "writers": [
                {
                    "writer_id": writer_id,
                    "messages": written.messages,
                    "bytes": written.num_bytes,
                    "start": written.start,
                    "end": written.end,
                }
                for writer_id, written in self._writers.items()
            ],
            "messages_of_other_writers": self._num_of_others,
        }

    def show(self, stats: ReaderStats) -> None:
        """Everything, for people."""
        print_tables(self._figures(stats), "", self._table_of_writers())
        num_more = len(self._writers) - _MAX_ROWS
        if num_more > 0:
            click.echo(f"and {count(num_more, 'other writer')}, which --json lists")
        if self._num_of_others:
            click.echo(f"and {count(self._num_of_others, 'message')} of still others")

    def _figures(self, stats: ReaderStats) -> Table:
        table = figures_table()
        figures = {
            "records": stats.records,
            "messages": stats.frames,
            "bytes": self.num_bytes,
            "duplicates dropped": stats.duplicates,
            **{f"dropped: {why.value}": times for why, times in stats.dropped.items() if times},
            "gaps": stats.gaps,
            "gaps in a writer's numbering": stats.sequence_gaps,
            "commands": stats.commands,
            "records of no message": stats.other_records,
        }
        for name, number in figures.items():
            table.add_row(name, f"{number:,}")
        return table

    def _table_of_writers(self) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("writer", overflow="fold")
        for name in ("messages", "bytes", "from", "to"):
            table.add_column(name, justify="right", no_wrap=True)
        for writer_id, written in islice(self._writers.items(), _MAX_ROWS):
            name = "(no writer id)" if writer_id is None else one_line(writer_id)
            figures = (written.messages, written.num_bytes, written.start, written.end)
            # It is anybody's text: neither markup, nor anything that steers a terminal.
            table.add_row(Text(name), *(f"{figure:,}" for figure in figures))
        return table
