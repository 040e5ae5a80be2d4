"""S2S: how messages follow each other on a session's request and response bodies.

A message is three bytes of length (big-endian, of all that follows), one byte of flags, and a body.
Flags: 0x80 terminal, 0x60 compression (0 none, 1 zstd, 2 gzip), 0x10 reconnect advised; the other
bits are reserved and ignored. A terminal body is a status (two bytes, big-endian) and JSON.

Numbers are those of the server's `api/src/v1/stream/s2s.rs`.
"""

from __future__ import annotations

from collections import deque
from struct import Struct

from attrs import frozen

from s2frames.compression import Compression, compress, decompress
from s2frames.errors import LocalProtocolError, RemoteProtocolError, TransportError

__all__ = [
    "MAX_BODY_BYTES",
    "MIN_COMPRESSED_BYTES",
    "Message",
    "MessageDecoder",
    "Terminal",
    "encode_message",
    "encode_terminal",
]

# The largest length: 2 MiB for the flag byte and the body as they travel.
_MAX_LENGTH = 2 * 1024 * 1024

#: Bytes of the largest body, compressed or not.
MAX_BODY_BYTES = _MAX_LENGTH - 1

#: Smaller bodies are not worth compressing; the server does not either.
MIN_COMPRESSED_BYTES = 1024

_TERMINAL = 0x80
_COMPRESSION_MASK, _COMPRESSION_SHIFT = 0x60, 5
_RECONNECT_ADVISED = 0x10

_STATUS = Struct(">H")
_PREFIX_BYTES = 4


@frozen
class Message:
    """A message of a session, decompressed."""

    body: bytes
    #: The server asks to go on with another connection.
    reconnect_advised: bool = False


@frozen
class Terminal:
    """The last message of a session: an error's status and JSON body."""

    status: int
    body: bytes


def encode_message(body: bytes, compression: Compression = Compression.NONE) -> list[bytes]:
    """The message for `body`, as buffers to send one after the other; `body` is not copied.

    Raises `LocalProtocolError` for a body over `MAX_BODY_BYTES`.
    """
    if len(body) > MAX_BODY_BYTES:
        raise LocalProtocolError(f"an S2S body has at most {MAX_BODY_BYTES} bytes, not {len(body)}")
    if compression is not Compression.NONE and len(body) >= MIN_COMPRESSED_BYTES:
        compressed = compress(body, compression)
        # What does not shrink travels as it is: it could grow beyond the limit.
        if len(compressed) < len(body):
            return [_prefix(len(compressed), compression.value << _COMPRESSION_SHIFT), compressed]
    return [_prefix(len(body), 0), body]


def encode_terminal(status: int, body: bytes) -> bytes:
    """The terminal message for an error; what a server sends.

    Raises `LocalProtocolError` for a status over 65535 or a body that does not fit.
    """
    if not 0 <= status < 2**16 or len(body) + _STATUS.size > MAX_BODY_BYTES:
        raise LocalProtocolError(
            f"a terminal message has a status below {2**16} and at most "
            f"{MAX_BODY_BYTES - _STATUS.size} bytes of body, not {status} and {len(body)}"
        )
    return b"".join((_prefix(len(body) + 2, _TERMINAL), _STATUS.pack(status), body))


def _prefix(body_bytes: int, flags: int) -> bytes:
    return ((body_bytes + 1) << 8 | flags).to_bytes(_PREFIX_BYTES, "big")


class MessageDecoder:
    """Bytes in, messages out. Holds at most one message and what arrived with its last byte.

    `receive_data` only stores; `next_message` decodes. Every method raises `RemoteProtocolError`
    for bytes that are not S2S; the decoder is then of no further use.
    """

    def __init__(self) -> None:
        self._chunks: deque[bytes] = deque()
        self._buffered = 0
        self._offset = 0  # into the first chunk

    def receive_data(self, data: bytes) -> None:
        """Store bytes as they arrived, cut anywhere."""
        if data:
            self._chunks.append(bytes(data))
            self._buffered += len(data)

    def receive_eof(self) -> None:
        """The peer sends no more. Take every message first.

        Raises `TransportError` when anything is left: the connection broke inside a message.
        """
        if self._buffered:
            raise TransportError(
                f"the session ended inside a message, {self._buffered} bytes into it"
            )

    def next_message(self) -> Message | Terminal | None:
        """The next whole message, or None until more bytes are there."""
        if self._buffered < _PREFIX_BYTES:
            return None
        prefix = int.from_bytes(self._peek(_PREFIX_BYTES), "big")
        length, flags = prefix >> 8, prefix & 0xFF
        if not 1 <= length <= _MAX_LENGTH:
            raise RemoteProtocolError(
                f"an S2S message of {length} bytes; 1 to {_MAX_LENGTH} are allowed"
            )
        if self._buffered < _PREFIX_BYTES + length - 1:
            return None
        self._skip(_PREFIX_BYTES)
        body = self._take(length - 1)
        if flags & _TERMINAL:
            return _decode_terminal(body)
        compression = _parse_compression((flags & _COMPRESSION_MASK) >> _COMPRESSION_SHIFT)
        body = decompress(body, compression, MAX_BODY_BYTES)
        return Message(body, bool(flags & _RECONNECT_ADVISED))

    def _peek(self, size: int) -> bytes:
        first = self._chunks[0]
        if len(first) - self._offset >= size:
            return first[self._offset : self._offset + size]
        taken = self._take(size)
        # Put it back as a chunk of its own; the offset was into the one behind it.
        if self._offset:
            self._chunks[0] = self._chunks[0][self._offset :]
            self._offset = 0
        self._chunks.appendleft(taken)
        self._buffered += size
        return taken

    def _skip(self, size: int) -> None:
        """Drop `size` bytes that the first chunk holds."""
        self._offset += size
        self._buffered -= size
        if self._offset == len(self._chunks[0]):
            self._chunks.popleft()
            self._offset = 0

    def _take(self, size: int) -> bytes:
        """Remove the next `size` bytes; one copy, none when they are a chunk of their own."""
        parts: list[bytes | memoryview] = []
        while size:
            available = len(self._chunks[0]) - self._offset
            count = min(size, available)
            if count == len(self._chunks[0]):
                parts.append(self._chunks[0])
            else:
                parts.append(memoryview(self._chunks[0])[self._offset : self._offset + count])
            self._skip(count)
            size -= count
        return b"".join(parts)


def _parse_compression(number: int) -> Compression:
    try:
        return Compression(number)
    except ValueError:
        raise RemoteProtocolError(f"an S2S message has the unknown compression {number}") from None


def _decode_terminal(body: bytes) -> Terminal:
    if len(body) < _STATUS.size:
        raise RemoteProtocolError(f"a terminal message of {len(body)} bytes has no status")
    return Terminal(_STATUS.unpack_from(body)[0], body[_STATUS.size :])
