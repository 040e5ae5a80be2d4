from __future__ import annotations

import gzip
import sys
from contextlib import suppress

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from s2frames.compression import Compression, compress, decompress
from s2frames.errors import RemoteProtocolError

compressions = pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])


@given(st.binary(max_size=3000), st.sampled_from(Compression))
def test_round_trip(body: bytes, compression: Compression) -> None:
    assert decompress(compress(body, compression), compression, 3000) == body


def test_compression_is_the_standard_one() -> None:
    assert gzip.decompress(compress(b"x" * 100, Compression.GZIP)) == b"x" * 100
    packed = compress(b"x" * 100, Compression.ZSTD)
    assert zstandard.ZstdDecompressor().decompress(packed) == b"x" * 100


@compressions
def test_a_bomb_is_refused(compression: Compression) -> None:
    packed = compress(bytes(50_000_000), compression)
    with pytest.raises(RemoteProtocolError, match="more than 1000 bytes"):
        decompress(packed, compression, 1000)


@compressions
def test_the_limit_itself_is_allowed(compression: Compression) -> None:
    packed = compress(b"x" * 1000, compression)
    assert decompress(packed, compression, 1000) == b"x" * 1000
    with pytest.raises(RemoteProtocolError, match="more than 999 bytes"):
        decompress(packed, compression, 999)


@compressions
@given(garbage=st.binary(min_size=1, max_size=200))
def test_garbage_is_an_error_or_bounded(compression: Compression, garbage: bytes) -> None:
    for body in (garbage, compress(b"hello" * 20, compression)[:20] + garbage):
        with suppress(RemoteProtocolError):
            assert len(decompress(body, compression, 1000)) <= 1000


@compressions
@pytest.mark.parametrize("cut", [1, 5, 9])
def test_a_truncated_body_is_an_error(compression: Compression, cut: int) -> None:
    with pytest.raises(RemoteProtocolError, match="a body is not"):
        decompress(compress(b"hello" * 20, compression)[:-cut], compression, 1000)


@compressions
def test_bytes_after_the_body_are_an_error(compression: Compression) -> None:
    with pytest.raises(RemoteProtocolError, match="not one whole"):
        decompress(compress(b"hello" * 20, compression) + b"more", compression, 1000)


def test_zstd_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = compress(b"hello" * 20, Compression.ZSTD)
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"pip install 's2frames\[zstd\]'"):
        compress(b"hello", Compression.ZSTD)
    with pytest.raises(RemoteProtocolError, match=r"pip install 's2frames\[zstd\]'"):
        decompress(packed, Compression.ZSTD, 1000)
