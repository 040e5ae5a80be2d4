"""The network for httpcore's asynchronous pool, on asyncio (uvloop, too) and trio."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import anyio
import anyio.lowlevel

from s2frames_httpx.addresses import ATTEMPT_DELAY, Address, Resolver, look_up_literal
from s2frames_httpx.channel import Channel, TcpChannel, TlsChannel
from s2frames_httpx.incoming import Incoming
from s2frames_httpx.library import httpcore
from s2frames_httpx.link import CLOSED, check_connected, open_socket, stream_info
from s2frames_httpx.patience import seconds_in
from s2frames_httpx.tunnel import bare_host, check_tunnel, read_error, read_timeout

__all__ = ["AsyncNetwork", "AsyncStream"]

# Seconds that the socket takes nothing until what has arrived is looked at, while a request is
# being written. A server that refuses without reading is heard so much later.
_STALL_SECONDS = 0.05


class AsyncNetwork(httpcore.AsyncNetworkBackend):
    """Makes connections, and can close all of them. It belongs to one event loop.

    Args:
        default_timeout: seconds for what httpcore sets no time for.
        num_tls: how often TLS is begun on a connection until it leads to where requests go.
    """

    def __init__(self, default_timeout: float, num_tls: int = 0) -> None:
        self._default_timeout = default_timeout
        self._num_tls = num_tls
        self._resolver = Resolver()
        self._sockets: set[socket.socket] = set()
        self._is_closed = False

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's interface
        local_address: str | None = None,  # noqa: ARG002  # nobody here asks for one
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Resolve a name and connect, all within `timeout`."""
        seconds = self._default_timeout if timeout is None else timeout
        what = "resolving the host name"
        try:
            with anyio.fail_after(seconds):
                addresses = await self._resolve(host, port)
                what = "connecting"
                tcp = await self._connect(addresses)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"{what} took too long") from error
        except OSError as error:
            raise httpcore.ConnectError(str(error)) from error
        return AsyncStream(self, tcp, TcpChannel(tcp), seconds, self._num_tls)

    async def sleep(self, seconds: float) -> None:
        """Sleep."""
        await anyio.sleep(seconds)

    def close(self) -> None:
        """Close every connection, and wake who waits for one or on one. Idempotent."""
        self._is_closed = True
        for tcp in tuple(self._sockets):
            self.close_socket(tcp)

    def forget(self) -> None:
        """Close the descriptors alone: the loop has ended, or is another process's."""
        self._is_closed = True
        for tcp in tuple(self._sockets):
            self._sockets.discard(tcp)
            tcp.close()

    def close_socket(self, tcp: socket.socket) -> None:
        """Close a socket, and wake the task that waits on it."""
        self._sockets.discard(tcp)
        if tcp.fileno() >= 0:
            anyio.notify_closing(tcp)
            tcp.close()

    def _keep(self, tcp: socket.socket) -> None:
        """Have `tcp` closed with everything else."""
        if self._is_closed:
            tcp.close()
            raise OSError("the transport is closed")
        self._sockets.add(tcp)

    async def _resolve(self, host: str, port: int) -> list[Address]:
        literal = look_up_literal(host, port)
        if literal is not None:
            return literal
        # A thread can end this wait in any loop, and in one that is gone, by closing its end.
        bell, cord = socket.socketpair()
        try:
            self._keep(bell)
            lookup = self._resolver.start(host, port, cord.close)
            try:
                await _wait_for(anyio.wait_readable, bell)
            finally:
                lookup.give_up()
        finally:
            self.close_socket(bell)
        addresses = lookup.result()
        if addresses is None:
            raise OSError(CLOSED)
        return addresses

    async def _connect(self, addresses: list[Address]) -> socket.socket:
        if len(addresses) == 1:
            return await self._attempt(addresses[0])
        dialing = _Dialing(self._attempt, self.close_socket)
        try:
            return await dialing.run(addresses)
        except BaseException:
            if dialing.winner is not None:
                self.close_socket(dialing.winner)
            raise

    async def _attempt(self, address: Address) -> socket.socket:
        tcp = open_socket(address.family)
        self._keep(tcp)
        try:
            try:
                tcp.connect(address.name)
            except BlockingIOError:
                await _wait_for(anyio.wait_writable, tcp)
            check_connected(tcp)
        except BaseException:
            self.close_socket(tcp)
            raise
        return tcp


async def _wait_for(wait: Callable[[socket.socket], Awaitable[None]], tcp: socket.socket) -> None:
    """Wait for a socket. Raises an OSError when another task closes it."""
    if tcp.fileno() < 0:
        raise OSError(CLOSED)
    try:
        await wait(tcp)
    except anyio.ClosedResourceError:
        raise OSError(CLOSED) from None


class _Dialing:
    """Attempts to connect, one address after the other and side by side; the first one wins.

    Args:
        attempt: connects to an address.
        close: closes a connection that comes second.
    """

    def __init__(
        self,
        attempt: Callable[[Address], Awaitable[socket.socket]],
        close: Callable[[socket.socket], None],
    ) -> None:
        self._attempt = attempt
        self._close = close
        self._errors: list[OSError] = []
        self.winner: socket.socket | None = None

    async def run(self, addresses: Iterable[Address]) -> socket.socket:
        """The connection that was made first. Raises what was wrong with the first address."""
        try:
            async with anyio.create_task_group() as group:
                for address in addresses:
                    is_over = anyio.Event()
                    group.start_soon(self._try, address, group.cancel_scope, is_over)
                    with anyio.move_on_after(ATTEMPT_DELAY):
                        await is_over.wait()
        except BaseExceptionGroup as group_of_errors:
            raise _only_one(group_of_errors) from None
        if self.winner is None:
            raise self._errors[0]
        return self.winner

    async def _try(self, address: Address, others: anyio.CancelScope, is_over: anyio.Event) -> None:
        try:
            tcp = await self._attempt(address)
        except OSError as error:
            self._errors.append(error)
        else:
            if self.winner is None:
                self.winner = tcp
                others.cancel()
            else:
                # It was connected before it could be cancelled.
                self._close(tcp)
        finally:
            is_over.set()


def _only_one(error: BaseException) -> BaseException:
    """What is alone in a group: Ctrl-C, as the user sent it."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error


class AsyncStream(httpcore.AsyncNetworkStream):
    """A connection, bare or in TLS, for one task at a time; any task may close it.

    Args:
        network: where the socket is closed.
        tcp: the socket.
        channel: what sends and receives over it.
        default_timeout: seconds for what httpcore sets no time for.
        num_tls: how often TLS is still to be begun; see `Stream`.
    """

    def __init__(
        self,
        network: AsyncNetwork,
        tcp: socket.socket,
        channel: Channel,
        default_timeout: float,
        num_tls: int = 0,
        tls: ssl.SSLObject | None = None,
    ) -> None:
        self._network = network
        self._socket = tcp
        self._channel = channel
        self._incoming = Incoming(channel)
        self._default_timeout = default_timeout
        self._num_tls = num_tls
        self._tls = tls

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        """Receive something, none at the end. `timeout` is for all of it."""
        try:
            self._check()
            data = await self._receive(max_bytes, timeout)
            if self._num_tls:
                check_tunnel(data)
        except TimeoutError as error:
            raise read_timeout(is_connecting=self._num_tls > 0) from error
        except OSError as error:
            raise read_error(error, is_connecting=self._num_tls > 0) from error
        return data

    async def _receive(self, max_bytes: int, timeout: float | None) -> bytes:  # noqa: ASYNC109
        await anyio.lowlevel.checkpoint_if_cancelled()
        data = self._incoming.receive(max_bytes)
        if data is not None:
            # What was received is nowhere else.
            await anyio.lowlevel.cancel_shielded_checkpoint()
            return data
        with anyio.fail_after(self._seconds(timeout)):
            return await self._wait_for_data(max_bytes)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Send all of it. `timeout` is for each part that the system takes.

        A `WriteError` means that the answer is to be read: there is one, or the connection broke.
        """
        try:
            self._check()
            await anyio.lowlevel.checkpoint()
            await self._send(memoryview(buffer), timeout)
        except TimeoutError as error:
            raise httpcore.WriteTimeout("timed out") from error
        except OSError as error:
            raise httpcore.WriteError(str(error)) from error

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        """The same connection in TLS. It is closed if that fails."""
        try:
            channel = TlsChannel(self._channel, ssl_context, bare_host(server_hostname))
            with anyio.fail_after(self._seconds(timeout)):
                await self._shake_hands(channel)
        except BaseException as error:
            await self.aclose()
            if isinstance(error, TimeoutError):
                raise httpcore.ConnectTimeout("the TLS handshake took too long") from error
            if isinstance(error, OSError):
                raise httpcore.ConnectError(str(error)) from error
            raise
        num_tls = max(0, self._num_tls - 1)
        return AsyncStream(
            self._network, self._socket, channel, self._default_timeout, num_tls, channel.tls
        )

    @property
    def is_closed(self) -> bool:
        """Whether this side has closed it."""
        return self._socket.fileno() < 0

    async def aclose(self) -> None:
        """Close the connection. Idempotent."""
        self._network.close_socket(self._socket)

    def get_extra_info(self, info: str) -> Any:
        """See `stream_info`."""
        return stream_info(info, self._socket, self._tls, is_dirty=self._incoming.is_dirty)

    def _check(self) -> None:
        if self._socket.fileno() < 0:
            raise OSError(CLOSED)

    def _seconds(self, timeout: float | None) -> float:
        return self._default_timeout if timeout is None else seconds_in(timeout)

    async def _wait_for_data(self, max_bytes: int) -> bytes:
        while (data := self._incoming.receive(max_bytes)) is None:
            await _wait_for(anyio.wait_readable, self._socket)
        return data

    async def _send(self, left: memoryview, timeout: float | None) -> None:  # noqa: ASYNC109
        while left or not self._channel.flush():
            sent = self._channel.send(left) if left else 0
            left = left[sent:]
            if not sent:
                await self._wait_until_writable(self._seconds(timeout))

    async def _wait_until_writable(self, seconds: float) -> None:
        """Wait until more can be sent, with an eye on what arrives meanwhile."""
        deadline = anyio.current_time() + seconds
        while (left := deadline - anyio.current_time()) > 0:
            # To wait for both directions at once would take a task for each.
            with anyio.move_on_after(min(left, _STALL_SECONDS)):
                await _wait_for(anyio.wait_writable, self._socket)
                return
            self._incoming.look()
        raise self._incoming.stalled()

    async def _shake_hands(self, channel: TlsChannel) -> None:
        while not channel.shake_hands():
            wait = anyio.wait_readable if channel.flush() else anyio.wait_writable
            await _wait_for(wait, self._socket)
