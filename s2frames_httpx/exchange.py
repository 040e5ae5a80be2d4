"""`Exchange`: drives a machine with a synchronous httpx client."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx

from s2frames.session import Machine
from s2frames_httpx.feed import Feed
from s2frames_httpx.mapping import FOREIGN_ERRORS
from s2frames_httpx.outgoing import Outgoing

__all__ = ["Exchange"]


class Exchange:
    """Does what a machine asks for, one request at a time.

    Args:
        http: the client to send requests with.
        machine: a session or an operation.
        what: what an interruption interrupts, as in "the append".
    """

    def __init__(self, http: httpx.Client, machine: Machine, what: str) -> None:
        self._http = http
        self._feed = Feed(machine, what)
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    @property
    def is_open(self) -> bool:
        """Whether an answer is arriving."""
        return self._response is not None

    def step(self) -> None:
        """Do what the machine asks for; else wait: for more of the answer, or for its time.

        The machine's events are to be taken after each step. What interrupts a step passes; the
        machine may go on.
        """
        try:
            if (asked := self._feed.asked()) is not None:
                if asked.closes:
                    self.close()
                if asked.request is not None:
                    self._open(asked.request)
            elif self._response is not None:
                self._receive(self._response)
            else:
                self._sleep()
        except FOREIGN_ERRORS as error:
            self.close()
            self._feed.failed(error)
        except BaseException as error:
            self.close()
            self._feed.interrupted(error)
            raise

    def close(self) -> None:
        """Close the answer that is open, if one is. Idempotent."""
        response, self._response = self._response, None
        if response is not None:
            response.close()

    def _open(self, outgoing: Outgoing) -> None:
        self._feed.begin(outgoing)
        if self._http.is_closed:
            self._feed.closed()
            return
        response = self._http.send(self._feed.build(self._http, outgoing), stream=True)
        self._response, self._chunks = response, response.iter_raw()
        self._feed.head(response)

    def _receive(self, response: httpx.Response) -> None:
        self._feed.wait_for_data(response.request)
        data = next(self._chunks, None)
        if data is None:
            self.close()
        self._feed.data(data)

    def _sleep(self) -> None:
        seconds = self._feed.seconds_left()
        if seconds is not None:
            time.sleep(seconds)
            self._feed.time_has_come()
