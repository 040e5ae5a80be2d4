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
    """

    def __init__(self, http: httpx.Client, machine: Machine) -> None:
        self._http = http
        self._feed = Feed(machine)
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())
        # Whether a step is under way, or was cut off.
        self._is_stepping = False

    @property
    def is_open(self) -> bool:
        """Whether an answer is arriving."""
        return self._response is not None

    def step(self) -> None:
        """Do what the machine asks for; else wait: for more of the answer, or for its time.

        The machine's events are to be taken after each step. What interrupts a step passes; the
        machine may go on.
        """
        if self._is_stepping:
            self._recover()
        self._is_stepping = True
        try:
            self._go_on()
        except FOREIGN_ERRORS as error:
            self.close()
            self._feed.failed(error)
        except BaseException:
            self._recover()
            raise
        self._is_stepping = False

    def close(self) -> None:
        """Close the answer that is open, if one is. Idempotent."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _recover(self) -> None:
        """A step was cut off, wherever it was."""
        self._feed.interrupted()
        self.close()
        self._is_stepping = False

    def _go_on(self) -> None:
        if (asked := self._feed.asked()) is not None:
            if asked.closes:
                self.close()
            if asked.request is not None:
                self._open(asked.request)
        elif self._response is not None:
            self._receive(self._response)
        else:
            self._sleep()

    def _open(self, outgoing: Outgoing) -> None:
        self._feed.begin(outgoing)
        if self._http.is_closed:
            self._feed.closed()
            return
        request = self._feed.build(self._http, outgoing)
        self._response = self._http.send(request, stream=True)
        self._chunks = self._response.iter_raw()
        self._feed.head(self._response)

    def _receive(self, response: httpx.Response) -> None:
        self._feed.wait_for_data(response.request)
        data = next(self._chunks, None)
        self._feed.data(data)
        if data is None:
            self.close()

    def _sleep(self) -> None:
        seconds = self._feed.seconds_left()
        if seconds is not None:
            time.sleep(seconds)
            self._feed.time_has_come()
