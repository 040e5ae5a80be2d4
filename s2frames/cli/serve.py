"""`s2frames serve`: the embedded service on a port of this machine."""

from __future__ import annotations

import random
import signal
from contextlib import AsyncExitStack, ExitStack

import anyio
import click

from s2frames.cli.exit_codes import ExitCode
from s2frames.cli.failures import Failure
from s2frames.embedded import MemoryStore, Service, Store, StoreError
from s2frames.embedded.sqlite_store import SqliteStore
from s2frames.settings import ACCOUNT_ENDPOINT_VARIABLE, BASIN_ENDPOINT_VARIABLE

__all__ = ["serve"]

_HOST = "127.0.0.1"


@click.command(short_help="Run an S2 service on this machine.")
@click.option(
    "--port",
    metavar="N",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Where to listen; 0 takes a port that is free.",
)
@click.option(
    "--data",
    "path",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Keep everything in FILE, which is created if it is missing. Without it, memory does.",
)
def serve(port: int, path: str | None) -> int:
    """Run the embedded S2 service until Ctrl-C, for trying, testing and small local use.

    Only this machine can reach it, over HTTP/1.1 and HTTP/2. It prints one line when it is ready,
    with the environment that makes the other commands use it. What it acked is in FILE, whatever
    ends it.
    """
    failure: BaseException | None = None
    try:
        with ExitStack() as stack:
            store = MemoryStore() if path is None else stack.enter_context(SqliteStore(path))
            anyio.run(_serve, store, port)
    except* StoreError as errors:
        failure = _first(errors)
    # Not there: some Pythons, 3.11.2 for one, would put it into a group.
    if failure is not None:
        raise Failure(str(failure)) from failure
    return ExitCode.DONE


async def _serve(store: Store, port: int) -> None:
    try:
        # Only now: it takes long to import, and other commands do without.
        from s2frames.embedded.serving import serving
    except ImportError as error:
        raise Failure(str(error)) from error
    async with AsyncExitStack() as stack:
        signals = stack.enter_context(anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM))
        service = Service(store, random=random.random)
        try:
            url = await stack.enter_async_context(serving(service, _HOST, port))
        except OSError as error:
            raise Failure(
                f"port {port}: {error.strerror}; --port takes another one, or 0 for any"
            ) from error
        _say_ready(url)
        async for _ in signals:
            break


def _say_ready(url: str) -> None:
    variables = f"{ACCOUNT_ENDPOINT_VARIABLE}={url} {BASIN_ENDPOINT_VARIABLE}={url}"
    click.echo(f"serving at {url}: export {variables}")


def _first(errors: BaseExceptionGroup[StoreError]) -> BaseException:
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
