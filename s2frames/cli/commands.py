"""The group of all commands, and how each of them ends: an exit code, and one line if it failed."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click

from s2frames.cli.bench import bench
from s2frames.cli.demo import demo
from s2frames.cli.exit_codes import ExitCode
from s2frames.cli.failures import say, say_error
from s2frames.cli.inspect import inspect
from s2frames.cli.read import read
from s2frames.cli.serve import serve
from s2frames.cli.write import write
from s2frames.settings import (
    ACCESS_TOKEN_VARIABLE,
    ACCOUNT_ENDPOINT_VARIABLE,
    BASIN_ENDPOINT_VARIABLE,
)

__all__ = ["commands"]

_EPILOG = f"""
The environment says where the service is and who asks: {ACCOUNT_ENDPOINT_VARIABLE},
{BASIN_ENDPOINT_VARIABLE} and {ACCESS_TOKEN_VARIABLE}. Without the first two it is s2.dev.

Exit codes: 0 done, 1 the service or the data said no, 2 wrong usage, 130 interrupted.
"""


class _Commands(click.Group):
    """Commands whose failures are one line each."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command. Whatever can end it becomes an exit code or a `click` exception."""
        try:
            code = super().invoke(ctx)
            # Here a failure to write can still be told.
            if sys.stdout is not None:
                sys.stdout.flush()
        except KeyboardInterrupt:
            say("interrupted")
            return ExitCode.INTERRUPTED
        except BrokenPipeError:
            # Whoever read the output has had enough of it.
            return ExitCode.DONE
        return code

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run with arguments, say what failed, and exit."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except click.UsageError as error:
            say_error(f"{error.format_message().rstrip('.')}{_where_help_is(error.ctx)}")
            code = ExitCode.USAGE
        except click.ClickException as error:
            say_error(error.format_message())
            code = error.exit_code
        except OSError as error:
            say_error(_describe(error))
            code = ExitCode.FAILED
        _end_output()
        sys.exit(code)


def _describe(error: OSError) -> str:
    what = error.strerror or str(error)
    return what if error.filename is None else f"{os.fsdecode(error.filename)}: {what}"


def _end_output() -> None:
    """Write what is left, or let it go nowhere: else Python would complain about it in the end."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _where_help_is(context: click.Context | None) -> str:
    return "" if context is None else f" (see: {context.command_path} --help)"


def _version() -> str:
    try:
        return version("s2frames")
    except PackageNotFoundError:
        return "(not installed)"


@click.group(
    "s2frames",
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=_EPILOG,
)
@click.version_option(_version(), prog_name="s2frames", message="%(prog)s %(version)s")
@click.pass_context
def commands(ctx: click.Context) -> None:
    """Messages of any size over S2 streams, exactly once."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(ExitCode.USAGE)


for command in (demo, write, read, inspect, serve, bench):
    commands.add_command(command)
