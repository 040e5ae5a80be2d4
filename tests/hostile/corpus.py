"""What a service that is well sends, made with the project's own encoders."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Any

from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from frames import chunk, encode, frame, head, make_ack, place
from hostile.mutate import Mutator
from s2frames.checkpoint import Checkpoint, LaneCheckpoint
from s2frames.codecs import JSON, MSGPACK, TEXT
from s2frames.compression import Compression, compress
from s2frames.records import Record, fence, trim
from s2frames.s2s import MAX_BODY_BYTES, encode_message, encode_terminal
from s2frames.u64 import U64_MAX
from s2frames.wire import AppendInput, encode_append_ack, encode_append_input

__all__ = [
    "ACKS",
    "APPEND_INPUTS",
    "CHECKPOINTS",
    "COMPRESSED",
    "ERROR_BODIES",
    "JSON_ANSWERS",
    "PAYLOADS",
    "READ_BATCHES",
    "SERVER_FRAMES",
    "STATUSES",
    "header_block",
    "session",
]

# Records of every kind: frames of one record and of several, numbered or not, of two writers at
# once, repeats, commands, users' headers, what lacks its head, and what declares too much.
_ONE_WRITER = [
    r for n in range(40) for r in frame([b"message %3d" % n], seq=n, writer="w1-AbCdEfGhI")
]
_LONG_FRAME = frame([b"a" * 300, b"b" * 300, b"c" * 17], seq=40, writer="w1-AbCdEfGhI")
_TWO_WRITERS = [
    record
    for pair in zip(
        frame([b"left", b"hand"], seq=0, writer="left"),
        frame([b"right", b"hands"], seq=7, writer="é"),
        strict=True,
    )
    for record in pair
]
_PLAIN = [*frame([b"no", b"number"]), chunk(b"orphan"), Record(b"own", ((b"own", b"1"),))]
_COMMANDS = [fence("token"), trim(3), head(b"x", own=((b"kind", b"note"),), seq=0, writer="z")]
_GREEDY = [
    head(b"x", size=U64_MAX, records=U64_MAX, seq=0, writer="greedy"),
    head(b"x", size=1024, records=2**40, seq=1, writer="greedy"),
    chunk(b"y", seq=2, writer="greedy"),
]

_STREAMS: list[list[Record]] = [
    [],
    [*_ONE_WRITER, *_LONG_FRAME],
    [*_TWO_WRITERS, *_TWO_WRITERS],
    _PLAIN,
    [*_COMMANDS, *_ONE_WRITER[:3], *_PLAIN],
    [*_GREEDY, *_ONE_WRITER[:12]],
    [head(bytes(3000), seq=0, writer="w")],
]

#: Encoded `ReadBatch` messages: batches as they follow one another, and heartbeats.
READ_BATCHES: list[bytes] = [
    encode(place(records, start, timestamp=1_700_000_000_000), tail)
    for records in _STREAMS
    for start, tail in ((0, None), (120, 200), (2**53, 2**53 + 60))
]

#: Encoded `AppendInput` messages.
APPEND_INPUTS: list[bytes] = [
    encode_append_input(AppendInput(records, match_seq_num, token))
    for records in _STREAMS
    for match_seq_num, token in ((None, None), (7, "token"))
]

#: Encoded `AppendAck` messages.
ACKS: list[bytes] = [
    encode_append_ack(make_ack(*ack))
    for ack in ((0, 1), (1, 1, 9), (0, 3), (127, 2), (2**53, 1), (2**32, 1000))
]

_CONFIG = {
    "storage_class": "express",
    "retention_policy": {"age": 86400},
    "timestamping": {"mode": "client-prefer", "uncapped": False},
    "delete_on_empty": {"min_age_secs": 60},
    "later": [1, {"x": None}],
}
_INFO = {"created_at": "2025-01-01T00:00:00Z", "deleted_at": None}

_CONTROL_ANSWERS: list[dict[str, Any]] = [
    {"basins": [{"name": "basin-one", "location": None, **_INFO}], "has_more": False},
    {"basins": [{"name": f"basin-{n}", **_INFO} for n in range(3)], "has_more": True},
    {"streams": [{"name": "room/1", "cipher": "aegis-256", **_INFO}], "has_more": False},
    {"name": "room/1", **_INFO},
    {"default_stream_config": _CONFIG, "stream_cipher": "aegis-256", "more": 1},
    _CONFIG,
    {"retention_policy": {"infinite": {}}},
    {"tail": {"seq_num": 7, "timestamp": 1_700_000_000_000}},
    {"tail": {"seq_num": 0, "timestamp": 0}},
    {},
]

#: Answers to control calls.
JSON_ANSWERS: list[bytes] = [json.dumps(value).encode() for value in _CONTROL_ANSWERS]

#: Bodies of errors, and what a proxy says in their place.
ERROR_BODIES: list[bytes] = [
    json.dumps({"code": "stream_not_found", "message": "no such stream"}).encode(),
    json.dumps({"code": "unavailable", "message": "later"}).encode(),
    # Two escapes, of which one alone is no text.
    json.dumps({"code": "𝄞", "message": "𝄞"}).encode(),
    json.dumps({"seq_num_mismatch": 9}).encode(),
    json.dumps({"fencing_token_mismatch": "tøken"}).encode(),
    json.dumps({"tail": {"seq_num": 5, "timestamp": 1}}).encode(),
    b"<html>Bad gateway</html>",
    b"",
]

#: What an answer may begin with. The first one is what everybody hopes for.
STATUSES = (200, 201, 204, 302, 400, 404, 408, 409, 412, 416, 429, 499, 500, 502, 503, 504, 999)

#: Checkpoints as JSON text.
CHECKPOINTS: list[bytes] = [
    checkpoint.to_json().encode()
    for checkpoint in (
        Checkpoint(0, 0),
        Checkpoint(3, 9, (LaneCheckpoint(b"w", 4, 3), LaneCheckpoint(None, None, None))),
        Checkpoint(2**53, 2**53, tuple(LaneCheckpoint(b"w%d" % n, n, None) for n in range(20))),
        Checkpoint(1, 5, (LaneCheckpoint(b"", 2, 1), LaneCheckpoint("é".encode(), 0, 4))),
        Checkpoint(9, 9, (LaneCheckpoint(b"\xff", 2, None),), basin="my-basin", stream="chat/42"),
    )
]

_VALUE: dict[str, Any] = {
    "user": "alice",
    "n": [1, -2, 3.5, None, True],
    "text": "grüße",
    "deep": [[[[]]]],
}

#: Payloads as codecs make them.
PAYLOADS: list[bytes] = [
    JSON.encode(_VALUE),
    JSON.encode([{"a": i} for i in range(50)]),
    MSGPACK.encode({**_VALUE, "blob": b"\x00\xff" * 20}),
    MSGPACK.encode(list(range(300))),
    TEXT.encode("grüße, 𝄞"),
]

_SQUEEZABLE = (b"", b"x" * 1024, bytes(MAX_BODY_BYTES), READ_BATCHES[3], Random(0).randbytes(2000))

#: Compressed bodies, and how.
COMPRESSED: list[tuple[Compression, bytes]] = [
    (how, compress(body, how)) for how in Compression for body in _SQUEEZABLE if len(body) < 10_000
] + [(how, compress(bytes(MAX_BODY_BYTES), how)) for how in (Compression.ZSTD, Compression.GZIP)]


def session(mutator: Mutator, bodies: Sequence[bytes]) -> bytes:
    """The answer to a session: some of the messages, spoilt at any depth or not at all."""
    random, parts = mutator.random, []
    for body in random.choices(bodies, k=random.randint(1, 4)):
        how = random.choice((Compression.NONE, Compression.NONE, *Compression))
        wire = b"".join(encode_message(mutator.maybe(body, 0.4), how))
        # The service asks for another connection now and then.
        parts.append(wire[:3] + bytes((wire[3] | random.choice((0, 0, 0, 0x10)),)) + wire[4:])
    if random.random() < 0.3:
        error = mutator.maybe(random.choice(ERROR_BODIES), 0.3)
        parts.append(encode_terminal(random.choice(STATUSES), error))
    return mutator.maybe(b"".join(parts), 0.5)


# HTTP/2


def header_block(**headers: str) -> bytes:
    """Headers as HPACK has them, with nothing that a later block could refer to wrongly."""
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return Encoder().encode([(f":{n}" if n == "status" else n, value) for n, value in named])


_SESSION_HEAD = header_block(status="200", content_type="s2s/proto", x_request_id="abc" * 20)
_JSON_HEAD = header_block(status="200", content_type="application/json")
_ERROR_HEAD = header_block(status="404", retry_after_ms="20")
_TRAILERS = header_block(x_trailer="yes")
_BATCH = b"".join(encode_message(READ_BATCHES[3]))

#: What a server says on an HTTP/2 connection, frame by frame; streams are 1 and 3.
SERVER_FRAMES: list[list[Frame]] = [
    [
        SettingsFrame(0, settings={3: 100, 4: 1 << 20}),
        SettingsFrame(0, flags=["ACK"]),
        WindowUpdateFrame(0, window_increment=1 << 20),
        HeadersFrame(1, data=_SESSION_HEAD, flags=["END_HEADERS"]),
        DataFrame(1, data=_BATCH[:50]),
        DataFrame(1, data=_BATCH[50:], flags=["END_STREAM"]),
    ],
    [
        SettingsFrame(0),
        HeadersFrame(1, data=_JSON_HEAD[:5]),
        ContinuationFrame(1, data=_JSON_HEAD[5:], flags=["END_HEADERS"]),
        DataFrame(1, data=JSON_ANSWERS[0], flags=["PADDED", "END_STREAM"], pad_length=9),
        HeadersFrame(3, data=_ERROR_HEAD, flags=["END_HEADERS"]),
        DataFrame(3, data=ERROR_BODIES[0]),
        HeadersFrame(3, data=_TRAILERS, flags=["END_HEADERS", "END_STREAM"]),
    ],
    [
        SettingsFrame(0, settings={1: 0, 5: 1 << 20, 6: 9}),
        PingFrame(0, opaque_data=b"s2frames"),
        PriorityFrame(1, depends_on=3, stream_weight=4),
        RstStreamFrame(1, error_code=7),
        HeadersFrame(3, data=_JSON_HEAD, flags=["END_HEADERS"]),
        PushPromiseFrame(3, promised_stream_id=2, data=_JSON_HEAD, flags=["END_HEADERS"]),
        GoAwayFrame(0, last_stream_id=3, error_code=2, additional_data=b"bye"),
        DataFrame(3, data=b"{}", flags=["END_STREAM"]),
    ],
]
