"""`Exchange`: drives a machine with a synchronous httpx client."""

from __future__ import annotations

import time

from s2frames.home import Home
from s2frames.session import Machine
from s2frames.system.process import THIS_PROCESS
from s2frames_httpx.answers import Answers
from s2frames_httpx.feed import Feed
from s2frames_httpx.mapping import FOREIGN_ERRORS
from s2frames_httpx.outgoing import Outgoing

__all__ = ["Exchange"]


class Exchange:
    """Does what a machine asks for, one request at a time.

    Args:
        answers: the client to send requests with.
        machine: a session or an operation.
        home: the process that it is for; by default this one.
    """

    def __init__(self, answers: Answers, machine: Machine, home: Home | None = None) -> None:
        self._answers = answers
        self._home = Home("a call", THIS_PROCESS) if home is None else home
        self._feed = Feed(machine, time.monotonic)
        self._reader = answers.add_reader()
        # Whether a step is under way, or was cut off.
        self._is_stepping = False

    @property
    def is_open(self) -> bool:
        """Whether an answer is arriving."""
        return self._answers.is_open(self._reader)

    def step(self) -> None:
        """Do what the machine asks for; else wait: for more of the answer, or for its time.

        The machine's events are to be taken after each step. What interrupts a step passes; the
        machine may go on.
        """
        self._home.check()
        if self._is_stepping:
            self._recover()
        self._is_stepping = True
        try:
            self._go_on()
        except FOREIGN_ERRORS as error:
            self._fail(error)
        except BaseException:
            self._recover()
            raise
        self._is_stepping = False

    def close(self) -> None:
        """Close the answer that is open, if one is. Idempotent."""
        self._answers.close(self._reader)

    def forget(self) -> None:
        """Be gone: what is open is closed by the client's next call. Waits for nothing."""
        self._answers.forget(self._reader)

    def _recover(self) -> None:
        """A step was cut off, wherever it was."""
        self._feed.interrupted()
        self.close()
        self._is_stepping = False

    def _fail(self, error: Exception) -> None:
        self.close()
        if self._answers.is_closed:
            # Whatever broke, broke by that.
            self._feed.closed(error)
        else:
            self._feed.failed(error)

    def _go_on(self) -> None:
        if (asked := self._feed.asked()) is not None:
            if asked.closes:
                self.close()
            if asked.request is not None:
                self._open(asked.request)
        elif self.is_open:
            self._receive()
        else:
            self._sleep()

    def _open(self, outgoing: Outgoing) -> None:
        self._feed.begin(outgoing)
        if self._answers.is_closed:
            self._feed.closed()
            return
        request = self._feed.build(self._answers.http, outgoing)
        self._feed.head(self._answers.open(self._reader, request))

    def _receive(self) -> None:
        self._feed.wait_for_data(self._answers.request(self._reader))
        data = self._answers.receive(self._reader)
        self._feed.data(data)
        if data is None:
            self.close()

    def _sleep(self) -> None:
        seconds = self._feed.seconds_left()
        if seconds is None:
            return
        self._answers.closing.wait(seconds)
        if self._answers.is_closed:
            self._feed.hurry()
        else:
            self._feed.time_has_come()
