"""What must hold where s2frames is installed without any extra. nox runs this file, not pytest."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from pkgutil import iter_modules

# Everything of the embedded service that needs no extra.
EMBEDDED = ("s2frames.embedded", "s2frames.embedded.sqlite_store")

# What an environment is born with.
INSTALLERS = {"pip", "setuptools", "wheel"}


def check_distributions() -> None:
    """The core needs attrs and nothing else."""
    installed = {distribution.name for distribution in distributions()} - INSTALLERS
    assert installed == {"attrs", "s2frames"}, installed


def check_imports() -> None:
    """s2frames, the core and the embedded service can be imported, and are the installed ones."""
    package = import_module("s2frames")
    site_packages = Path(sysconfig.get_path("purelib")).resolve()
    assert package.__file__ is not None
    assert Path(package.__file__).resolve().is_relative_to(site_packages), package.__file__
    for module in iter_modules(package.__path__, "s2frames."):
        if not module.ispkg and module.name != "s2frames.__main__":
            import_module(module.name)
    for name in EMBEDDED:
        import_module(name)


def use_zstd() -> object:
    """Compress something."""
    compression = import_module("s2frames.compression")
    return compression.compress(b"hello", compression.Compression.ZSTD)


def use_msgpack() -> object:
    """Encode a message."""
    return import_module("s2frames.codecs").MSGPACK.encode({})


# Each extra, and something that needs it.
USES: dict[str, Callable[[], object]] = {
    "httpx": lambda: import_module("s2frames_httpx"),
    "trio": lambda: import_module("s2frames_trio"),
    "serve": lambda: import_module("s2frames.embedded.serving"),
    "zstd": use_zstd,
    "msgpack": use_msgpack,
}


def check_missing_extra(extra: str) -> None:
    """Using what is not installed says how to install it."""
    try:
        USES[extra]()
    except ImportError as error:
        message = str(error)
    else:
        raise AssertionError(f"the extra {extra} is missing and nothing said so")
    assert f"pip install 's2frames[{extra}]'" in message, message


def check_command() -> None:
    """The command line says so on one line, without a traceback."""
    command = Path(sysconfig.get_path("scripts")) / "s2frames"
    run = subprocess.run([command, "--help"], capture_output=True, text=True, check=False)
    assert run.returncode == 1, run
    assert run.stderr.count("\n") == 1, run
    assert "pip install 's2frames[cli]'" in run.stderr, run


def main() -> None:
    """Check everything; the first failure is the exit code."""
    check_distributions()
    check_imports()
    for extra in USES:
        check_missing_extra(extra)
    check_command()
    sys.stdout.write(f"the core stands alone; missing extras name themselves: {[*USES, 'cli']}\n")


if __name__ == "__main__":
    main()
