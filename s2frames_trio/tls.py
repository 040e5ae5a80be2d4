"""TLS over a transport, for many records at a time.

`trio.SSLStream` hands out one record a call, 16 KiB, with a turn of the scheduler each: that bound
a read to half of what OpenSSL can do. Here one receive decrypts all records that arrived with it.
"""

from __future__ import annotations

import ssl

import trio

__all__ = ["TlsStream"]

# Bytes of the largest record (RFC 8446, 5.1): as many may come to light from one that was begun.
_RECORD_BYTES = 16 * 1024

# Bytes of one receive, if the caller does not say.
_RECEIVE_BYTES = 64 * 1024


class TlsStream(trio.abc.Stream):
    """A client's side; call `do_handshake` first.

    One task may send while another one receives. The end of the transport is the end of the stream,
    with or without TLS's goodbye: what is sent on it must itself say whether it is complete.
    """

    def __init__(self, transport: trio.abc.Stream, context: ssl.SSLContext, host: str) -> None:
        self.transport_stream = transport
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        # What broke the receiving side.
        self._error: ssl.SSLError | None = None
        # Whether a write has begun and not ended: the transport may hold half a record.
        self._is_writing = False

    async def do_handshake(self) -> None:
        """Agree on keys. Raises `ssl.SSLError`, and what the transport raises."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._flush()
                await self._receive(_RECEIVE_BYTES)
            else:
                await self._flush()
                return

    def selected_alpn_protocol(self) -> str | None:
        """The protocol that the peer chose."""
        return self._tls.selected_alpn_protocol()

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Encrypt and send."""
        with memoryview(data) as rest:
            sent = 0
            while sent < len(rest):
                sent += self._tls.write(rest[sent:])
        await self._flush()

    async def _flush(self) -> None:
        # Answers to the peer's change of keys go with what is sent next (RFC 8446, 4.6.3).
        self._is_writing = True
        await self.transport_stream.send_all(self._outgoing.read())
        self._is_writing = False

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until the transport takes data."""
        await self.transport_stream.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes: int | None = None) -> bytearray:
        """Receive up to so many bytes; none at the end. Raises `ssl.SSLError` for a bad record."""
        size = max_bytes or _RECEIVE_BYTES
        await trio.lowlevel.checkpoint_if_cancelled()
        data = self._decrypt(size)
        if data is not None:
            # What is decrypted is nowhere else.
            await trio.lowlevel.cancel_shielded_checkpoint()
            return data
        while (data := self._decrypt(size)) is None:
            await self._receive(size)
        return data

    async def _receive(self, size: int) -> None:
        data = await self.transport_stream.receive_some(size)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _decrypt(self, max_bytes: int) -> bytearray | None:
        """All that can be read now, up to `max_bytes`; None when nothing can."""
        data = bytearray(min(max_bytes, self._incoming.pending + _RECORD_BYTES))
        filled = 0
        with memoryview(data) as view:
            try:
                while filled < len(view) and (count := self._read_into(view[filled:])):
                    filled += count
            except ssl.SSLWantReadError:
                if not filled:
                    return None
            except ssl.SSLEOFError:
                """The transport has ended."""
            except ssl.SSLError as error:
                # OpenSSL says so only once; it is told after what was good.
                self._error = error
        if self._error is not None and not filled:
            raise self._error
        del data[filled:]
        return data

    def _read_into(self, view: memoryview) -> int:
        # With a buffer, it gives the number of bytes, other than the type says.
        with view:
            return self._tls.read(len(view), view)  # type: ignore[return-value, arg-type, unused-ignore]

    async def aclose(self) -> None:
        """Say goodbye, without waiting for the peer's, and close the transport."""
        try:
            if not self._is_writing:
                self._say_goodbye()
                await self._flush()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            """The peer is gone."""
        finally:
            await self.transport_stream.aclose()

    def _say_goodbye(self) -> None:
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            """The peer has not said its own yet, or broke TLS."""
