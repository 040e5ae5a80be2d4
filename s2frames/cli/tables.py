"""Tables on stdout."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

__all__ = ["figures_table", "print_tables"]


def figures_table() -> Table:
    """An empty table of names and figures."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    return table


def print_tables(*tables: Table | str) -> None:
    """Print tables, and lines between them, which may have rich's markup."""
    console = Console(highlight=False)
    # Only drawn by rich: it has ideas of its own about output that nobody reads.
    with console.capture() as drawn:
        for table in tables:
            console.print(table)
    click.echo(drawn.get(), nl=False)
