from __future__ import annotations

import gzip
import random
import sys
import tracemalloc
import zlib
from collections.abc import Iterable, Sequence

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from s2frames.compression import Compression
from s2frames.errors import LocalProtocolError, RemoteProtocolError, TransportError
from s2frames.s2s import (
    MAX_BODY_BYTES,
    MIN_COMPRESSED_BYTES,
    Message,
    MessageDecoder,
    Terminal,
    encode_message,
    encode_terminal,
)

MIB = 1024 * 1024


def framed(flags: int, body: bytes) -> bytes:
    """A message with any flags, right or wrong."""
    return (len(body) + 1).to_bytes(3, "big") + bytes((flags,)) + body


def received(chunks: Iterable[bytes]) -> list[Message | Terminal]:
    """All messages in `chunks`, taken out after each chunk; nothing may be left over."""
    decoder = MessageDecoder()
    messages: list[Message | Terminal] = []
    for chunk in chunks:
        decoder.receive_data(chunk)
        while (message := decoder.next_message()) is not None:
            messages.append(message)
    decoder.receive_eof()
    return messages


LONG = bytes(range(256)) * 8
ZSTD = zstandard.ZstdCompressor().compress(LONG)
GZIP = gzip.compress(LONG)

# Bytes as they travel, and the message they are.
CASES: list[tuple[str, bytes, Message | Terminal]] = [
    ("empty", b"\x00\x00\x01\x00", Message(b"")),
    ("one byte", b"\x00\x00\x02\x00a", Message(b"a")),
    ("two length bytes", b"\x00\x01\x01\x00" + b"x" * 256, Message(b"x" * 256)),
    ("three length bytes", b"\x01\x00\x00\x00" + b"x" * 65535, Message(b"x" * 65535)),
    ("reconnect advised", framed(0x10, b"abc"), Message(b"abc", True)),
    ("reserved bits", framed(0x0F, b"abc"), Message(b"abc")),
    ("reserved bits and reconnect", framed(0x1F, b"abc"), Message(b"abc", True)),
    ("zstd", framed(0x20, ZSTD), Message(LONG)),
    ("zstd, reconnect, reserved", framed(0x3F, ZSTD), Message(LONG, True)),
    ("gzip", framed(0x40, GZIP), Message(LONG)),
    ("gzip and reconnect", framed(0x50, GZIP), Message(LONG, True)),
    ("gzip of nothing", framed(0x40, gzip.compress(b"")), Message(b"")),
    ("zstd of nothing", framed(0x20, zstandard.compress(b"")), Message(b"")),
    ("terminal", b"\x00\x00\x05\x80\x01\x9c{}", Terminal(412, b"{}")),
    ("terminal without body", b"\x00\x00\x03\x80\x01\xf7", Terminal(503, b"")),
    ("terminal and reserved bits", framed(0x9F, b"\x01\x9c{}"), Terminal(412, b"{}")),
]
each_case = pytest.mark.parametrize(
    ("data", "message"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)


# Decoding: whole, in pieces, with more behind


@each_case
def test_whole(data: bytes, message: Message | Terminal) -> None:
    assert received([data]) == [message]


@each_case
def test_byte_by_byte(data: bytes, message: Message | Terminal) -> None:
    assert received(data[i : i + 1] for i in range(len(data))) == [message]


@each_case
def test_with_trailing_data(data: bytes, message: Message | Terminal) -> None:
    assert received([data + data[:1], data[1:]]) == [message, message]
    assert received([data + data]) == [message, message]


@each_case
def test_cut_within_its_first_bytes(data: bytes, message: Message | Terminal) -> None:
    for cut in range(1, 9):
        assert received([data[:cut], data[cut:]]) == [message]
        assert received([data[:cut], data[cut:] + data]) == [message, message]


@given(
    st.lists(st.sampled_from([(data, message) for _, data, message in CASES]), max_size=6),
    st.lists(st.integers(1, 5000) | st.integers(1, 8), max_size=30),
)
def test_cut_anywhere(
    chosen: Sequence[tuple[bytes, Message | Terminal]], sizes: Sequence[int]
) -> None:
    rest = b"".join(data for data, _ in chosen)
    chunks = []
    for size in sizes:
        chunks.append(rest[:size])
        rest = rest[size:]
    assert received([*chunks, rest]) == [message for _, message in chosen]


def test_stored_bytes_are_not_those_of_the_caller() -> None:
    decoder = MessageDecoder()
    buffer = bytearray(b"\x00\x00\x03\x00ab")
    decoder.receive_data(buffer)  # type: ignore[arg-type]
    buffer[:] = b"\xff" * len(buffer)
    assert decoder.next_message() == Message(b"ab")


def test_nothing_until_the_last_byte() -> None:
    decoder = MessageDecoder()
    for byte in b"\x00\x00\x03\x00a":
        decoder.receive_data(bytes((byte,)))
        assert decoder.next_message() is None
    decoder.receive_data(b"b")
    assert decoder.next_message() == Message(b"ab")
    assert decoder.next_message() is None


# Encoding


def test_encode() -> None:
    assert encode_message(b"") == [b"\x00\x00\x01\x00", b""]
    assert b"".join(encode_message(b"abc")) == b"\x00\x00\x04\x00abc"


def test_encode_copies_no_body() -> None:
    assert encode_message(LONG)[1] is LONG


@pytest.mark.parametrize(
    ("compression", "flags"),
    [(Compression.NONE, 0x00), (Compression.ZSTD, 0x20), (Compression.GZIP, 0x40)],
)
def test_encode_compressed(compression: Compression, flags: int) -> None:
    data = b"".join(encode_message(LONG, compression))
    assert data[3] == flags
    assert (len(data) < len(LONG)) == (compression is not Compression.NONE)
    assert received([data]) == [Message(LONG)]


@pytest.mark.parametrize("compression", [Compression.ZSTD, Compression.GZIP])
def test_small_bodies_stay_as_they_are(compression: Compression) -> None:
    small, large = b"x" * (MIN_COMPRESSED_BYTES - 1), b"x" * MIN_COMPRESSED_BYTES
    assert encode_message(small, compression) == encode_message(small)
    assert encode_message(large, compression) != encode_message(large)


@pytest.mark.parametrize("compression", Compression)
@given(body=st.binary(max_size=3000), repeat=st.integers(1, 20))
def test_round_trip(compression: Compression, body: bytes, repeat: int) -> None:
    assert received(encode_message(body * repeat, compression)) == [Message(body * repeat)]


@pytest.mark.parametrize("compression", Compression)
def test_the_largest_body(compression: Compression) -> None:
    for body in (bytes(MAX_BODY_BYTES), random.Random(0).randbytes(MAX_BODY_BYTES)):
        assert received(encode_message(body, compression)) == [Message(body)]


@pytest.mark.parametrize("compression", Compression)
def test_refuses_a_larger_body(compression: Compression) -> None:
    with pytest.raises(LocalProtocolError, match=f"{MAX_BODY_BYTES} bytes, not {2 * MIB}"):
        encode_message(bytes(2 * MIB), compression)


@pytest.mark.parametrize(("status", "body"), [(412, b'{"a":1}'), (0, b""), (65535, LONG)])
def test_encode_terminal(status: int, body: bytes) -> None:
    assert received([encode_terminal(status, body)]) == [Terminal(status, body)]


@pytest.mark.parametrize(
    ("compression", "accept_encoding"),
    [(Compression.NONE, "identity"), (Compression.ZSTD, "zstd"), (Compression.GZIP, "gzip")],
)
def test_accept_encoding(compression: Compression, accept_encoding: str) -> None:
    assert compression.accept_encoding == accept_encoding


def test_zstd_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"pip install 's2frames\[zstd\]'"):
        encode_message(LONG, Compression.ZSTD)
    # The peer chose the compression: its bytes never give another kind of error.
    with pytest.raises(RemoteProtocolError, match=r"pip install 's2frames\[zstd\]'"):
        received([framed(0x20, ZSTD)])


# What must be refused


def refused(data: bytes, named: str) -> None:
    """`data` must be refused, however it arrives."""
    for chunks in ([data], [data[:1], data[1:]], [data[:3], data[3:]]):
        with pytest.raises(RemoteProtocolError, match=named):
            received(chunks)


@pytest.mark.parametrize("flags", [0x00, 0x10, 0x80])
def test_a_message_without_flags(flags: int) -> None:
    refused(b"\x00\x00\x00" + bytes((flags,)), "0 bytes")


@pytest.mark.parametrize("length", [2 * MIB + 1, 2**24 - 1])
def test_a_message_over_the_limit_is_refused_before_it_arrives(length: int) -> None:
    refused(length.to_bytes(3, "big") + b"\x00", f"{length} bytes.*{2 * MIB}")


@pytest.mark.parametrize("body", [b"", b"\x01"])
def test_a_terminal_without_status(body: bytes) -> None:
    refused(framed(0x80, body), f"{len(body)} bytes has no status")


@pytest.mark.parametrize("body", [b"", b"abc", ZSTD])
def test_an_unknown_compression(body: bytes) -> None:
    refused(framed(0x60, body), "unknown compression 3")


@pytest.mark.parametrize(("flags", "compressed"), [(0x20, ZSTD), (0x40, GZIP)])
def test_compressed_data_cut_anywhere(flags: int, compressed: bytes) -> None:
    for end in range(len(compressed)):
        with pytest.raises(RemoteProtocolError):
            received([framed(flags, compressed[:end])])


@pytest.mark.parametrize(("flags", "compressed"), [(0x20, ZSTD), (0x40, GZIP)])
@pytest.mark.parametrize("more", ["a byte", "itself"])
def test_compressed_data_with_more_behind(flags: int, compressed: bytes, more: str) -> None:
    refused(framed(flags, compressed + (b"\0" if more == "a byte" else compressed)), "one whole")


@pytest.mark.parametrize(
    ("flags", "body"),
    [
        (0x20, GZIP),
        (0x40, ZSTD),
        (0x20, b"garbage!"),
        (0x40, b"garbage!"),
        (0x40, zlib.compress(LONG)),
    ],
)
def test_data_compressed_otherwise(flags: int, body: bytes) -> None:
    refused(framed(flags, body), "zstd" if flags == 0x20 else "gzip")


def test_gzip_with_a_wrong_checksum() -> None:
    refused(framed(0x40, GZIP[:-8] + b"\0" * 8), "gzip")


def zstd_compress(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


# Zeros come out at about a thousandth of their size: 64 MiB travel in 64 KiB.
BOMBS = [
    pytest.param(0x40, gzip.compress(bytes(64 * MIB)), id="gzip"),
    pytest.param(0x20, zstd_compress(bytes(64 * MIB)), id="zstd"),
    pytest.param(0x20, zstandard.compress(bytes(64 * MIB)), id="zstd that declares its size"),
]


@pytest.mark.parametrize(("flags", "bomb"), BOMBS)
def test_a_bomb_is_refused_before_it_has_grown(flags: int, bomb: bytes) -> None:
    data = framed(flags, bomb)
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError, match=f"more than {MAX_BODY_BYTES} bytes"):
            received([data])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * MIB


@pytest.mark.parametrize(
    ("flags", "compress"),
    [(0x40, gzip.compress), (0x20, zstd_compress), (0x20, zstandard.compress)],
    ids=["gzip", "zstd", "zstd that declares its size"],
)
def test_decompressed_to_the_limit_and_over(flags: int, compress: type[bytes]) -> None:
    full = bytes(MAX_BODY_BYTES)
    assert received([framed(flags, compress(full))]) == [Message(full)]
    refused(framed(flags, compress(full + b"\0")), f"more than {MAX_BODY_BYTES} bytes")


def test_zstd_with_a_window_over_8_mib() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=24, write_content_size=False)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    refused(framed(0x20, compressor.compress(LONG) + compressor.flush()), "zstd")


def test_zstd_behind_a_skippable_frame() -> None:
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
    with pytest.raises(RemoteProtocolError):
        received([framed(0x20, skippable + zstd_compress(bytes(64 * MIB)))])


# The end


def test_eof_between_messages() -> None:
    decoder = MessageDecoder()
    decoder.receive_eof()
    decoder.receive_data(b"\x00\x00\x01\x00")
    assert decoder.next_message() == Message(b"")
    decoder.receive_data(b"")
    decoder.receive_eof()
    decoder.receive_eof()


@each_case
def test_eof_inside_a_message(data: bytes, message: Message | Terminal) -> None:
    for end in {1, 2, 3, len(data) - 1}:
        decoder = MessageDecoder()
        decoder.receive_data(data + data[:end])
        assert decoder.next_message() == message
        assert decoder.next_message() is None
        with pytest.raises(TransportError, match=f"inside a message, {end} bytes into it"):
            decoder.receive_eof()


# Garbage


prefixes = st.builds(framed, st.integers(0, 255), st.binary(max_size=40))


@given(st.lists(prefixes | st.binary(max_size=20), max_size=5))
def test_garbage_raises_nothing_else(chunks: list[bytes]) -> None:
    try:
        messages = received(chunks)
    except (RemoteProtocolError, TransportError):
        return
    assert all(isinstance(message, (Message, Terminal)) for message in messages)


@given(st.sampled_from([(0x20, ZSTD), (0x40, GZIP)]), st.integers(0), st.integers(0, 255))
def test_compressed_data_with_a_byte_changed(kind: tuple[int, bytes], at: int, byte: int) -> None:
    flags, compressed = kind
    changed = bytearray(compressed)
    changed[at % len(changed)] = byte
    try:
        (message,) = received([framed(flags, bytes(changed))])
    except (RemoteProtocolError, TransportError):
        return
    assert isinstance(message, Message)
    assert len(message.body) <= MAX_BODY_BYTES
