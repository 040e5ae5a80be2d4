"""`Answers`: the answers that a client for threads has open."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from threading import get_ident
from typing import TypeVar

import httpx
from attrs import define, field

from s2frames.system.process import THIS_PROCESS
from s2frames_httpx.closing import CLOSING, Closing

__all__ = ["Answers"]

T = TypeVar("T")


@define(eq=False)
class _Answer:
    response: httpx.Response
    chunks: Iterator[bytes] = field(init=False)
    # The process that its connection belongs to.
    process: int = field(factory=lambda: THIS_PROCESS.number)

    def __attrs_post_init__(self) -> None:
        self.chunks = self.response.iter_raw()


class Answers:
    """Sends a client's requests, and holds the answers that are open.

    They are held here, under the numbers of their readers, and not by these. A reader that is
    forgotten is found by the collector, anywhere: in a thread that holds the lock of the
    connection pool, too. Closing an answer takes that lock, and dropping one closes it. So a reader
    only says that it is gone, and the next request of the client, or its end, closes the answer.

    Args:
        http: the client.
    """

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._numbers = count(1)
        self._open: dict[int, _Answer] = {}
        # Appending to a deque takes no lock.
        self._forgotten: deque[int] = deque()
        # The threads that are in the client, and may hold its pool's lock.
        self._inside: set[int] = set()
        #: Set when the client is closed.
        self.closing = Closing()

    @property
    def is_closed(self) -> bool:
        """Whether the client is closed."""
        return self.closing.is_set or self._http.is_closed

    @property
    def http(self) -> httpx.Client:
        """The client."""
        return self._http

    def add_reader(self) -> int:
        """A number for a reader. It has one answer at a time."""
        return next(self._numbers)

    def open(self, number: int, request: httpx.Request) -> httpx.Response:
        """Send a reader's request. Gives its answer, without the body."""
        self.close_forgotten()
        request.extensions[CLOSING] = self.closing
        return self._run(lambda: self._send(number, request))

    def _send(self, number: int, request: httpx.Request) -> httpx.Response:
        self._open[number] = answer = _Answer(self._http.send(request, stream=True))
        return answer.response

    def is_open(self, number: int) -> bool:
        """Whether the reader's answer is open."""
        return number in self._open

    def request(self, number: int) -> httpx.Request:
        """The request whose answer is open."""
        return self._open[number].response.request

    def receive(self, number: int) -> bytes | None:
        """The next bytes of the reader's answer; None when it is complete."""
        return self._run(lambda: next(self._open[number].chunks, None))

    def close(self, number: int) -> None:
        """Close the reader's answer, if one is open. Idempotent.

        Called while this thread is in the client, by the collector that ends a generator, it only
        forgets. In a copy of the process nothing happens: the connection is the original's, and
        what was dropped would close it.
        """
        answer = self._open.get(number)
        if answer is None or answer.process != THIS_PROCESS.number:
            return
        if get_ident() in self._inside:
            self.forget(number)
            return
        self._run(answer.response.close)
        self._open.pop(number, None)

    def forget(self, number: int) -> None:
        """The reader is gone. Takes no lock and does no I/O: for finalizers."""
        self._forgotten.append(number)

    def close_forgotten(self) -> None:
        """Close the answers of those who are gone."""
        while self._forgotten and get_ident() not in self._inside:
            try:
                number = self._forgotten.popleft()
            except IndexError:
                # Another thread was faster.
                return
            self.close(number)

    def _run(self, do: Callable[[], T]) -> T:
        """Do something in the client; a signal may raise at any line, so that it is left twice."""
        thread = get_ident()
        is_nested = thread in self._inside
        try:
            try:
                self._inside.add(thread)
                return do()
            except Exception as error:
                if not self.is_closed:
                    raise
                # Closing breaks whatever is under way, anywhere.
                raise httpx.CloseError("the client is closed") from error
            finally:
                if not is_nested:
                    self._inside.discard(thread)
        finally:
            if not is_nested:
                self._inside.discard(thread)
