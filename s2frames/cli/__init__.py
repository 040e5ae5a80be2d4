"""The command line, `s2frames`.

How it is put together: `commands` is the group of all commands; `demo`, `write`, `read`, `inspect`,
`serve` and `bench` are one command each; the other modules are what commands share. A command
returns its exit code, or raises what becomes one line on stderr.
"""

from __future__ import annotations

import sys
from importlib import import_module

from s2frames.cli.exit_codes import ExitCode

__all__ = ["main"]

# What every command needs of the extra `cli`.
_NEEDED = ("click", "rich", "httpx", "anyio")


def main() -> None:
    """Run the command line with the arguments of this process, and exit."""
    try:
        _check_extra()
        # Only now: it needs what was checked.
        commands = import_module("s2frames.cli.commands").commands
    except KeyboardInterrupt:
        sys.exit(ExitCode.INTERRUPTED)
    commands.main(prog_name="s2frames")


def _check_extra() -> None:
    try:
        for module in _NEEDED:
            import_module(module)
    except ImportError:
        sys.stderr.write("error: the command line needs an extra: pip install 's2frames[cli]'\n")
        sys.exit(ExitCode.FAILED)
