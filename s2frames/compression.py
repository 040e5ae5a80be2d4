"""Compressing and decompressing bodies, never beyond a limit."""

from __future__ import annotations

import enum
import zlib
from typing import Any

from s2frames.errors import RemoteProtocolError

__all__ = ["Compression", "check_available", "compress", "decompress"]

_GZIP_WBITS = 16 + zlib.MAX_WBITS

# Speed over size: compression runs on the path of every batch.
_GZIP_LEVEL = 1

# zstd asks for its window before it decompresses. 8 MiB is what the format wants every decoder to
# accept; a larger one is refused.
_ZSTD_MAX_WINDOW_BYTES = 8 * 1024 * 1024


class Compression(enum.Enum):
    """How bodies are compressed; the value is the number in S2S."""

    NONE = 0
    ZSTD = 1
    GZIP = 2

    @property
    def accept_encoding(self) -> str:
        """The Accept-Encoding header with which the server compresses so."""
        return "identity" if self is Compression.NONE else self.name.lower()


def check_available(compression: Compression) -> None:
    """Raise `ImportError` when `compression` needs an extra that is missing."""
    if compression is Compression.ZSTD:
        _zstandard()


def compress(body: bytes, compression: Compression) -> bytes:
    """`body`, compressed. Raises `ImportError` when zstd is asked for and its extra is missing."""
    if compression is Compression.GZIP:
        compressor = zlib.compressobj(_GZIP_LEVEL, wbits=_GZIP_WBITS)
        return compressor.compress(body) + compressor.flush()
    if compression is Compression.ZSTD:
        compressed: bytes = _zstandard().ZstdCompressor().compress(body)
        return compressed
    return body


def decompress(body: bytes, compression: Compression, limit: int) -> bytes:
    """What `body` was before it was compressed.

    Raises `RemoteProtocolError` when that is more than `limit` bytes, when `body` is not compressed
    so, whole and with nothing after it, and when this process cannot decompress it.
    """
    if compression is Compression.GZIP:
        return _gunzip(body, limit)
    if compression is Compression.ZSTD:
        return _unzstd(body, limit)
    return body


def _gunzip(data: bytes, limit: int) -> bytes:
    decompressor = zlib.decompressobj(_GZIP_WBITS)
    try:
        body = decompressor.decompress(data, limit + 1)
    except zlib.error as error:
        raise RemoteProtocolError(f"a body is not gzip: {error}") from error
    _check_size(len(body), limit)
    if not decompressor.eof or decompressor.unused_data:
        raise RemoteProtocolError("a body is not one whole gzip member")
    return body


def _unzstd(data: bytes, limit: int) -> bytes:
    try:
        zstandard = _zstandard()
    except ImportError as error:
        raise RemoteProtocolError(f"the peer compresses with zstd: {error}") from error
    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW_BYTES)
    try:
        # The reader stops where it is told to but does not say that its input was cut short; the
        # decompression object says so but cannot be bounded. So the first guards the second.
        with decompressor.stream_reader(data) as reader:
            _check_size(len(reader.read(limit + 1)), limit)
        whole = decompressor.decompressobj()
        body: bytes = whole.decompress(data)
    except zstandard.ZstdError as error:
        raise RemoteProtocolError(f"a body is not zstd: {error}") from error
    if not whole.eof or whole.unused_data:
        raise RemoteProtocolError("a body is not one whole zstd frame")
    return body


def _check_size(size: int, limit: int) -> None:
    if size > limit:
        raise RemoteProtocolError(f"a body decompresses to more than {limit} bytes")


def _zstandard() -> Any:
    try:
        import zstandard
    except ImportError as error:
        raise ImportError(
            "zstd compression needs an extra: pip install 's2frames[zstd]'"
        ) from error
    return zstandard
