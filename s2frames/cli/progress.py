"""Progress bars, and lines about retries: on stderr, and only where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TransferSpeedColumn,
)

from s2frames.cli.failures import describe, is_terminal, say
from s2frames.session import Retrying

__all__ = ["progress_bar", "progress_count", "retry_lines"]


@contextmanager
def progress_bar(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show how far `what` is; call what this gives for each of `total` steps."""
    with _progress(BarColumn(), MofNCompleteColumn()) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)


@contextmanager
def progress_count(
    what: str, *, ends_before_output: bool = False
) -> Iterator[Callable[[int], None]]:
    """Show how many messages there were and how fast; call what this gives with each one's bytes.

    Nothing is shown where output goes to the same terminal meanwhile.
    """
    is_shared = is_terminal(sys.stdout) and not ends_before_output
    columns = (TextColumn("{task.fields[messages]:,} messages"), TransferSpeedColumn())
    with _progress(BarColumn(), *columns, is_hidden=is_shared) as progress:
        task = progress.add_task(what, total=None, messages=0)
        num_messages = 0

        def step(num_bytes: int) -> None:
            nonlocal num_messages
            num_messages += 1
            progress.update(task, advance=num_bytes, messages=num_messages)

        yield step


def retry_lines() -> Callable[[Retrying], None] | None:
    """What says a line for each failed attempt that is followed by another; None without terminal.

    Ask before a progress bar is there: it puts itself in the place of stderr.
    """
    return _say_retrying if is_terminal(sys.stderr) else None


def _say_retrying(event: Retrying) -> None:
    # Who was interrupted knows it, and the attempt that would follow is not made.
    if not isinstance(event.error.__cause__, KeyboardInterrupt):
        say(f"retrying: {describe(event.error)}; again in {event.delay:.1f} s")


def _progress(*columns: ProgressColumn, is_hidden: bool = False) -> Progress:
    # rich takes FORCE_COLOR for a terminal; it is none.
    is_hidden = is_hidden or not is_terminal(sys.stderr)
    return Progress(
        TextColumn("{task.description}"),
        *columns,
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=is_hidden,
    )
