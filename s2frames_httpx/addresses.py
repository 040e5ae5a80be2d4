"""Which addresses a host has, and in which order they are tried (RFC 8305)."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable
from itertools import chain, zip_longest

from attrs import define, field, frozen

__all__ = ["ATTEMPT_DELAY", "Address", "Lookup", "Resolver", "in_order", "look_up_literal"]

#: Seconds until the next address is tried as well (RFC 8305, 5: the recommended Connection Attempt
#: Delay).
ATTEMPT_DELAY = 0.25

# Threads that resolve names at a time, for each transport: what the system's resolver holds up for
# minutes must not gather. As many as asyncio's own executor has at most.
_MAX_THREADS = 32


@frozen
class Address:
    """Where a socket connects to."""

    family: int
    #: As the family wants it: a host and a port, and more for IPv6.
    name: tuple[object, ...]


def in_order(addresses: Iterable[Address]) -> list[Address]:
    """The families by turns, that of the first address first (RFC 8305, 4)."""
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address.family, []).append(address)
    rounds = zip_longest(*families.values())
    return [address for address in chain.from_iterable(rounds) if address is not None]


def look_up_literal(host: str, port: int) -> list[Address] | None:
    """The address that `host` is itself; None if it is a name."""
    try:
        return _look_up(host, port, socket.AI_NUMERICHOST)
    except socket.gaierror:
        return None


def _look_up(host: str, port: int, flags: int = 0) -> list[Address]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    return in_order(dict.fromkeys(Address(family, name) for family, _, _, _, name in found))


@define(eq=False)
class Lookup:
    """A name that is to be resolved, is being resolved, or was."""

    _host: str
    _port: int
    _on_done: Callable[[], None]
    _is_given_up: bool = field(default=False, init=False)
    _addresses: list[Address] | None = field(default=None, init=False)
    _error: Exception | None = field(default=None, init=False)

    def run(self) -> None:
        """Resolve the name, however long it takes, unless nobody waits for it any more."""
        try:
            if not self._is_given_up:
                self._addresses = _look_up(self._host, self._port)
        except (OSError, UnicodeError) as error:
            self._error = error
        self._on_done()

    def give_up(self) -> None:
        """Nobody waits any more."""
        self._is_given_up = True

    def result(self) -> list[Address] | None:
        """The addresses; None as long as they are not known. Raises what resolving raised."""
        if self._error is not None:
            raise self._error
        return self._addresses


class Resolver:
    """Resolves names in threads, which can be left to themselves when time is up.

    They keep no process from ending. There are at most so many: names beyond wait for their turn.
    """

    def __init__(self) -> None:
        # Both take and give in one step, whatever other threads do. Each permit is for one thread.
        self._permits = [None] * _MAX_THREADS
        self._lookups: deque[Lookup] = deque()

    def start(self, host: str, port: int, on_done: Callable[[], None]) -> Lookup:
        """Begin to resolve a name; `on_done` is called in another thread when it is done."""
        lookup = Lookup(host, port, on_done)
        self._lookups.append(lookup)
        if self._permits:
            threading.Thread(target=self._work, name="s2frames resolver", daemon=True).start()
        return lookup

    def _work(self) -> None:
        while self._lookups:
            try:
                self._permits.pop()
            except IndexError:
                # Those who have one look again after they gave it back.
                return
            try:
                self._lookups.popleft().run()
            except IndexError:
                """Another thread was faster."""
            finally:
                self._permits.append(None)
