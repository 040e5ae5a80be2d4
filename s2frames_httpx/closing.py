"""Whether a client is closed, and waking those who wait for something else when it is."""

from __future__ import annotations

import threading
from collections.abc import Callable

import anyio

from s2frames_httpx.clock import for_system

__all__ = ["CLOSING", "AsyncClosing", "Closing"]

#: The extension of a request that says which `Closing` is its client's, for transports that wait
#: for other things than a socket.
CLOSING = "s2frames.closing"


class Closing:
    """The end of a client that threads share."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self._wakers: set[Callable[[], None]] = set()

    @property
    def is_set(self) -> bool:
        """Whether the client is closed."""
        return self._event.is_set()

    def wait(self, seconds: float) -> None:
        """Wait so long, or until the client is closed; perhaps less, see `for_system`."""
        self._event.wait(for_system(seconds))

    def wake_by(self, wake: Callable[[], None]) -> None:
        """Have `wake` called when the client is closed. It must be quick."""
        self._wakers.add(wake)

    def set(self) -> None:
        """The client is closed. Idempotent."""
        self._event.set()
        for wake in tuple(self._wakers):
            wake()


class AsyncClosing:
    """The end of a client that tasks share."""

    def __init__(self) -> None:
        self._scopes: set[anyio.CancelScope] = set()
        #: Whether the client is closed.
        self.is_set = False

    @property
    def is_watched(self) -> bool:
        """Whether anybody waits in a scope."""
        return bool(self._scopes)

    def watch(self, scope: anyio.CancelScope) -> None:
        """Cancel the scope when the client is closed, or at once if it is."""
        self._scopes.add(scope)
        if self.is_set:
            scope.cancel()

    def leave(self, scope: anyio.CancelScope) -> None:
        """The scope is over."""
        self._scopes.discard(scope)

    def set(self) -> None:
        """The client is closed. Idempotent."""
        self.is_set = True
        for scope in tuple(self._scopes):
            scope.cancel()
