"""What `write` sends: whole files, or their lines, as bunches of messages.

A bunch ends where the next message would have to be waited for, so that what there is can be sent.
What cannot be sent raises `InputError` after the bunch before it, which is durable by then.
"""

from __future__ import annotations

import os
import select
import stat
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from queue import Empty, Queue
from typing import BinaryIO, TypeAlias

from attrs import frozen

from s2frames.cli.failures import count

__all__ = ["STDIN", "InputError", "Lines", "whole_files"]

#: The name that means standard input.
STDIN = "-"

# Read at once, and how many of these blocks may wait to be sent: 16 MiB.
_BLOCK_BYTES = 256 * 1024
_MAX_BLOCKS = 64


class InputError(Exception):
    """A file, or a line of one, that cannot be sent."""


def _refusal(name: str, why: str) -> InputError:
    return InputError(f"{'standard input' if name == STDIN else name}: {why}")


# Reading


@contextmanager
def _opened(name: str) -> Iterator[RawIOBase | BinaryIO]:
    """A file to read from without a buffer. Raises `InputError` for what goes wrong with it."""
    try:
        if name == STDIN:
            yield _stdin()
        else:
            with open(name, "rb", buffering=0) as file:
                yield file
    except OSError as error:
        raise _refusal(name, error.strerror or str(error)) from error


def _stdin() -> RawIOBase | BinaryIO:
    if sys.stdin is None:
        raise _refusal(STDIN, "it is closed")
    # A buffer would wait until it is full, and a thread that waits in it cannot be left behind.
    # What stands in for standard input may have none.
    buffer = sys.stdin.buffer
    return buffer.raw if isinstance(buffer, BufferedReader) else buffer


def _blocks(name: str) -> Iterator[bytes]:
    """A file block by block, each as soon as there is something. Raises `InputError`."""
    with _opened(name) as file:
        while (block := file.read(_BLOCK_BYTES)) != b"":
            if block is None:
                # Somebody made it non-blocking.
                select.select([file], [], [])
            else:
                yield block


# Whole files


def whole_files(names: Sequence[str], max_bytes: int) -> Iterator[Iterator[bytes]]:
    """Each file as one message of at most `max_bytes`, read when it is its turn.

    Raises `InputError` at once when a file can be seen not to be one.
    """
    for name in names:
        if name != STDIN:
            _check_file(name, max_bytes)
    reading = _WholeFiles(names, max_bytes)
    yield reading.messages()
    if reading.failure is not None:
        raise reading.failure


class _WholeFiles:
    """The contents of files, up to the first that cannot be sent."""

    def __init__(self, names: Sequence[str], max_bytes: int) -> None:
        self._names = names
        self._max_bytes = max_bytes
        self.failure: InputError | None = None

    def messages(self) -> Iterator[bytes]:
        try:
            for name in self._names:
                yield _read_whole(name, self._max_bytes)
        except InputError as error:
            self.failure = error


def _check_file(name: str, max_bytes: int) -> None:
    """Refuse a file that cannot be a message, without reading it."""
    try:
        status = os.stat(name)
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            return  # A pipe: to open it is to read it.
        if status.st_size > max_bytes:
            raise _refusal(name, _too_large(f"it has {count(status.st_size, 'byte')}", max_bytes))
        with open(name, "rb", buffering=0) as file:
            # Some files have content and no size.
            if not status.st_size and not file.read(1):
                raise _empty(name)
    except OSError as error:
        raise _refusal(name, error.strerror or str(error)) from error


def _read_whole(name: str, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    for block in _blocks(name):
        size += len(block)
        if size > max_bytes:
            raise _refusal(name, _too_large("it has more", max_bytes))
        parts.append(block)
    if not parts:
        raise _empty(name)
    return b"".join(parts)


def _too_large(what: str, max_bytes: int) -> str:
    return f"{what}, and a message has at most {max_bytes} bytes"


def _empty(name: str) -> InputError:
    return _refusal(name, "it is empty, and a message has at least 1 byte")


# Lines


@frozen
class _Block:
    """Part of a file; the empty one ends it."""

    name: str
    data: bytes


# None is the end of everything.
_Item: TypeAlias = _Block | InputError | None


class Lines:
    """Each line of the files as one message, without its newline. Use it in a `with` block.

    A thread reads ahead, some blocks at most, so that lines gather while others are being sent.
    Empty lines are left out, since no message is empty, and counted.
    """

    def __init__(self, names: Sequence[str], max_bytes: int) -> None:
        self._names = names
        self._splitter = _Splitter(max_bytes)
        self._queue: Queue[_Item] = Queue(_MAX_BLOCKS)
        self._is_stopped = False
        self._is_over = False
        self._failure: InputError | None = None
        #: Empty lines so far.
        self.num_empty = 0

    def __enter__(self) -> Lines:
        # A daemon: it may wait for input that never comes.
        threading.Thread(target=self._read_ahead, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_stopped = True
        # Makes room for the one block that the thread may want to get rid of.
        while not self._queue.empty():
            self._queue.get_nowait()

    def bunches(self) -> Iterator[Iterator[bytes]]:
        """The lines, in bunches of those that can be had without waiting."""
        while not self._is_over:
            yield self._bunch(self._queue.get())
        if self._failure is not None:
            raise self._failure

    def _bunch(self, item: _Item) -> Iterator[bytes]:
        try:
            while not self._is_over:
                yield from self._lines(item)
                item = self._queue.get_nowait()
        except Empty:
            return
        except InputError as error:
            self._failure = error
            self._is_over = True

    def _lines(self, item: _Item) -> Iterator[bytes]:
        if item is None:
            self._is_over = True
            return
        if isinstance(item, InputError):
            raise item
        for line in self._splitter.split(item):
            if line:
                yield line
            else:
                self.num_empty += 1

    def _read_ahead(self) -> None:
        try:
            for name in self._names:
                for data in _blocks(name):
                    self._queue.put(_Block(name, data))
                    if self._is_stopped:
                        return
                self._queue.put(_Block(name, b""))
        except InputError as error:
            self._queue.put(error)
        else:
            self._queue.put(None)


class _Splitter:
    """Blocks in, lines out."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        # The line that goes on in the next block.
        self._parts: list[bytes] = []
        self._size = 0
        self._line_number = 1

    def split(self, block: _Block) -> Iterator[bytes]:
        """The lines that `block` completes."""
        if not block.data:
            if self._size:
                yield self._release()
            self._line_number = 1
            return
        first, *others = block.data.split(b"\n")
        self._hold(first, block.name)
        for part in others:
            yield self._release()
            self._hold(part, block.name)

    def _hold(self, part: bytes, name: str) -> None:
        self._size += len(part)
        if self._size > self._max_bytes:
            raise _refusal(name, _too_large(f"line {self._line_number} has more", self._max_bytes))
        self._parts.append(part)

    def _release(self) -> bytes:
        line = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._line_number += 1
        return line
