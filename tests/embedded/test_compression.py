from __future__ import annotations

import pytest

from s2frames.compression import Compression
from s2frames.embedded import compression as compression_module
from s2frames.embedded.compression import choose_compression


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        ("", Compression.NONE),
        ("identity", Compression.NONE),
        ("br, deflate", Compression.NONE),
        ("gzip", Compression.GZIP),
        ("GZip", Compression.GZIP),
        ("br;q=1.0, gzip;q=0.1", Compression.GZIP),
        ("gzip, deflate, br, zstd", Compression.ZSTD),
        ("zstd;q=0.001, gzip", Compression.ZSTD),
        ("zstd;q=0, gzip", Compression.GZIP),
        ("gzip; q=0.000", Compression.NONE),
        ("gzip;q=0.", Compression.NONE),
        ("gzip;;;q", Compression.GZIP),
        (",,;=,", Compression.NONE),
        ("xgzip", Compression.NONE),
    ],
)
def test_what_an_answer_is_compressed_with(accept_encoding: str, expected: Compression) -> None:
    assert choose_compression(accept_encoding) is expected


def test_without_the_extra_there_is_no_zstd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compression_module, "find_spec", lambda _name: None)
    assert choose_compression("zstd, gzip") is Compression.GZIP
    assert choose_compression("zstd") is Compression.NONE
