"""The network for httpcore's synchronous pool: sockets that any thread may close."""

from __future__ import annotations

import selectors
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from s2frames_httpx.addresses import ATTEMPT_DELAY, Address, Resolver, look_up_literal
from s2frames_httpx.channel import Channel, TcpChannel, TlsChannel
from s2frames_httpx.clock import for_system
from s2frames_httpx.incoming import Incoming
from s2frames_httpx.library import httpcore
from s2frames_httpx.link import CLOSED, Link, check_connected, open_socket, stream_info
from s2frames_httpx.patience import seconds_in
from s2frames_httpx.tunnel import bare_host, check_tunnel, read_error, read_timeout

__all__ = ["Network", "Stream"]

_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# Where there is one, the selector that takes a single system call.
_Selector: Callable[[], selectors.BaseSelector] = getattr(
    selectors, "PollSelector", selectors.SelectSelector
)


class Network(httpcore.NetworkBackend):
    """Makes connections, and can close all of them.

    Args:
        default_timeout: seconds for what httpcore sets no time for.
        num_tls: how often TLS is begun on a connection until it leads to where requests go.
    """

    def __init__(self, default_timeout: float, num_tls: int = 0) -> None:
        self._default_timeout = default_timeout
        self._num_tls = num_tls
        self._resolver = Resolver()
        self._links: set[Link] = set()
        # Who waits for a name.
        self._bells: set[threading.Event] = set()
        self._is_closed = False

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,  # noqa: ARG002  # nobody here asks for one
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.NetworkStream:
        """Resolve a name and connect, all within `timeout`."""
        seconds = self._default_timeout if timeout is None else timeout
        deadline = time.monotonic() + seconds
        try:
            link = self._connect(self._resolve(host, port, deadline), deadline)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(str(error)) from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        try:
            return Stream(link, TcpChannel(link.socket), seconds, self._num_tls)
        except BaseException:
            link.close()
            raise

    def close(self) -> None:
        """Close every connection, and wake who waits for one or on one. Idempotent."""
        self._is_closed = True
        for bell in tuple(self._bells):
            bell.set()
        self.forget()

    def forget(self) -> None:
        """Close every connection, and take no lock: after a fork these are copies."""
        for link in tuple(self._links):
            link.close()

    def _check(self) -> None:
        if self._is_closed:
            raise OSError("the transport is closed")

    def _resolve(self, host: str, port: int, deadline: float) -> list[Address]:
        literal = look_up_literal(host, port)
        if literal is not None:
            return literal
        bell = threading.Event()
        self._bells.add(bell)
        lookup = self._resolver.start(host, port, bell.set)
        try:
            self._check()
            bell.wait(for_system(deadline - time.monotonic()))
            self._check()
            addresses = lookup.result()
        finally:
            self._bells.discard(bell)
            lookup.give_up()
        if addresses is None:
            raise TimeoutError("resolving the host name took too long")
        return addresses

    def _connect(self, addresses: Iterable[Address], deadline: float) -> Link:
        dialing = _Dialing(addresses, self._links, self._check)
        try:
            while (link := dialing.step(deadline)) is None:
                """None of them has succeeded yet."""
        except BaseException:
            dialing.close()
            raise
        dialing.close(but=link)
        if self._is_closed:
            link.close()
        return link


class _Dialing:
    """Attempts to connect, one address after the other and side by side; the first one wins.

    Args:
        addresses: what to connect to.
        links: where the attempts are to be found by whoever closes the network.
        check: raises an OSError once that is closed. Asked after each attempt is among `links`: one
            that was not there to be closed must not be waited for.
    """

    def __init__(
        self, addresses: Iterable[Address], links: set[Link], check: Callable[[], None]
    ) -> None:
        self._left = list(addresses)
        self._links = links
        self._check = check
        self._attempts: set[Link] = set()
        self._next_at = 0.0
        self._errors: list[OSError] = []

    def step(self, deadline: float) -> Link | None:
        """Begin the next attempt if it is time, and wait for one; gives that which succeeded."""
        now = time.monotonic()
        if self._left and (not self._attempts or now >= self._next_at):
            self._next_at = now + ATTEMPT_DELAY
            self._begin(self._left.pop(0))
        self._check()
        if not self._attempts:
            if self._left:
                return None
            # The address that the host's owner prefers is the one to speak of.
            raise self._errors[0]
        if now >= deadline:
            raise TimeoutError("connecting took too long")
        until = min(self._next_at, deadline) if self._left else deadline
        for link in self._wait(for_system(until - now)):
            try:
                check_connected(link.socket)
            except OSError as error:
                self._drop(link, error)
            else:
                return link
        return None

    def _wait(self, seconds: float) -> list[Link]:
        """The attempts that have ended, once there is one or the time is up."""
        with _Selector() as selector:
            for link in self._attempts:
                selector.register(link.socket, _WRITE, link)
            return [key.data for key, _ in selector.select(seconds)]

    def close(self, but: Link | None = None) -> None:
        """Give up all attempts but one."""
        for link in tuple(self._attempts):
            self._attempts.discard(link)
            link.leave()
            if link is not but:
                link.close()

    def _begin(self, address: Address) -> None:
        try:
            link = Link(open_socket(address.family), self._links)
        except OSError as error:
            self._note(error)
            return
        self._attempts.add(link)
        try:
            link.enter()
            link.socket.connect(address.name)
        except BlockingIOError:
            """It has begun."""
        except OSError as error:
            self._drop(link, error)

    def _drop(self, link: Link, error: OSError) -> None:
        self._attempts.discard(link)
        link.leave()
        link.close()
        self._note(error)

    def _note(self, error: OSError) -> None:
        self._errors.append(error)
        self._next_at = 0.0


class Stream(httpcore.NetworkStream):
    """A connection, bare or in TLS.

    Args:
        link: its socket.
        channel: what sends and receives over it.
        default_timeout: seconds for what httpcore sets no time for.
        num_tls: how often TLS is still to be begun. What is said before is between us and a proxy:
            if that fails, nothing has reached the service.
    """

    def __init__(
        self,
        link: Link,
        channel: Channel,
        default_timeout: float,
        num_tls: int = 0,
        tls: ssl.SSLObject | None = None,
    ) -> None:
        self._link = link
        self._channel = channel
        self._incoming = Incoming(channel)
        self._default_timeout = default_timeout
        self._num_tls = num_tls
        self._tls = tls

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Receive something, none at the end. `timeout` is for all of it."""
        try:
            self._link.enter()
            data = self._incoming.receive(max_bytes)
            if data is None:
                data = self._wait_for_data(max_bytes, self._deadline(timeout))
            if self._link.is_closed:
                # Its end is what woke this thread.
                raise OSError(CLOSED)  # noqa: TRY301  # as if it had broken
            if self._num_tls:
                check_tunnel(data)
        except TimeoutError as error:
            raise read_timeout(is_connecting=self._num_tls > 0) from error
        except OSError as error:
            raise read_error(error, is_connecting=self._num_tls > 0) from error
        finally:
            self._link.leave()
        return data

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it. `timeout` is for each part that the system takes.

        A `WriteError` means that the answer is to be read: there is one, or the connection broke.
        """
        try:
            self._link.enter()
            self._send(memoryview(buffer), timeout)
        except TimeoutError as error:
            raise httpcore.WriteTimeout("timed out") from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error
        finally:
            self._link.leave()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """The same connection in TLS. It is closed if that fails."""
        try:
            self._link.enter()
            channel = TlsChannel(self._channel, ssl_context, bare_host(server_hostname))
            self._shake_hands(channel, self._deadline(timeout))
        except TimeoutError as error:
            self.close()
            raise httpcore.ConnectTimeout("the TLS handshake took too long") from error
        except OSError as error:
            self.close()
            raise httpcore.ConnectError(str(error)) from error
        except BaseException:
            self.close()
            raise
        finally:
            self._link.leave()
        num_tls = max(0, self._num_tls - 1)
        return Stream(self._link, channel, self._default_timeout, num_tls, channel.tls)

    @property
    def is_closed(self) -> bool:
        """Whether this side has closed it."""
        return self._link.is_closed

    def close(self) -> None:
        """Close the connection. Idempotent; any thread may."""
        self._link.close()

    def get_extra_info(self, info: str) -> Any:
        """See `stream_info`."""
        is_dirty = self._incoming.is_dirty
        return stream_info(info, self._link.socket, self._tls, is_dirty=is_dirty)

    def _deadline(self, timeout: float | None) -> float:
        return time.monotonic() + (
            self._default_timeout if timeout is None else seconds_in(timeout)
        )

    def _wait_for_data(self, max_bytes: int, deadline: float) -> bytes:
        while (data := self._incoming.receive(max_bytes)) is None:
            if not self._wait(_READ, deadline):
                raise TimeoutError
        return data

    def _send(self, left: memoryview, timeout: float | None) -> None:
        while left or not self._channel.flush():
            sent = self._channel.send(left) if left else 0
            left = left[sent:]
            if not sent:
                self._wait_until_writable(self._deadline(timeout))

    def _wait_until_writable(self, deadline: float) -> None:
        """Wait until more can be sent, with an eye on what arrives meanwhile."""
        while True:
            events = _WRITE | (_READ if self._incoming.may_look else 0)
            happened = self._wait(events, deadline)
            if happened & _READ:
                self._incoming.look()
            if happened & _WRITE:
                return
            if not happened:
                raise self._incoming.stalled()

    def _shake_hands(self, channel: TlsChannel, deadline: float) -> None:
        while not channel.shake_hands():
            # Until all is sent nothing is read, and what has arrived would end each wait at once.
            if not self._wait(_READ if channel.flush() else _WRITE, deadline):
                raise TimeoutError

    def _wait(self, events: int, deadline: float) -> int:
        """Wait for the socket; gives what happened, nothing if the time is up."""
        with _Selector() as selector:
            selector.register(self._link.socket, events)
            ready = selector.select(for_system(deadline - time.monotonic()))
        if self._link.is_closed:
            raise OSError(CLOSED)
        return ready[0][1] if ready else 0
