"""Messages over S2's durable streams: typed, of any size, once, whole and in order.

This package does no I/O. It turns messages into batches of records (`FrameWriter`), records into
messages (`FrameReader`), and the two into sessions with the service (`AppendProtocol`,
`ReadProtocol`). Adapters move the bytes: `s2frames_httpx` does.
"""

from __future__ import annotations

from s2frames.checkpoint import Checkpoint, LaneCheckpoint
from s2frames.chunking import MAX_CHUNK_BODY_BYTES, chunk_bytes
from s2frames.codecs import BYTES, JSON, MSGPACK, TEXT, Codec
from s2frames.compression import Compression
from s2frames.config import (
    BasinConfig,
    Cipher,
    Retention,
    StorageClass,
    StreamConfig,
    TimestampingMode,
)
from s2frames.dedupe import DedupeFilter, extract_dedupe_seq, inject_dedupe_headers, make_writer_id
from s2frames.errors import (
    AppendConditionFailed,
    CodecError,
    FencingTokenMismatch,
    FrameLost,
    FrameSizeError,
    LocalProtocolError,
    Outcome,
    RangeNotSatisfiable,
    RemoteProtocolError,
    S2FramesError,
    SeqNumMismatch,
    ServiceError,
    TransportError,
    WriterConflict,
)
from s2frames.events import (
    Appended,
    CaughtUp,
    CommandReceived,
    DropReason,
    DuplicateDropped,
    FrameDropped,
    FrameReceived,
    FramesDurable,
    GapDetected,
    ReaderEvent,
    RecordReceived,
    WriterForgotten,
)
from s2frames.framing import (
    DEFAULT_MAX_FRAME_BYTES,
    CompletedFrame,
    FrameAssembler,
    FrameMeta,
    frame_chunks_to_records,
    make_frame_headers,
    parse_frame_headers,
)
from s2frames.http import Request
from s2frames.reader import FrameReader, ReaderStats
from s2frames.records import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    MAX_RECORD_BYTES,
    AppendAck,
    Header,
    Record,
    SequencedRecord,
    StreamPosition,
    fence,
    metered_bytes,
    trim,
)
from s2frames.rest import BasinInfo, Provisioned, StreamInfo
from s2frames.settings import AppendSettings, Endpoints, ReadSettings, Settings
from s2frames.u64 import decode_u64, encode_u64
from s2frames.wire import AppendInput, ReadBatch, decode_append_ack
from s2frames.writer import Batch, FrameWriter

__all__ = [
    "BYTES",
    "DEFAULT_MAX_FRAME_BYTES",
    "JSON",
    "MAX_BATCH_BYTES",
    "MAX_BATCH_RECORDS",
    "MAX_CHUNK_BODY_BYTES",
    "MAX_RECORD_BYTES",
    "MSGPACK",
    "TEXT",
    "AppendAck",
    "AppendConditionFailed",
    "AppendInput",
    "AppendSettings",
    "Appended",
    "BasinConfig",
    "BasinInfo",
    "Batch",
    "CaughtUp",
    "Checkpoint",
    "Cipher",
    "Codec",
    "CodecError",
    "CommandReceived",
    "CompletedFrame",
    "Compression",
    "DedupeFilter",
    "DropReason",
    "DuplicateDropped",
    "Endpoints",
    "FencingTokenMismatch",
    "FrameAssembler",
    "FrameDropped",
    "FrameLost",
    "FrameMeta",
    "FrameReader",
    "FrameReceived",
    "FrameSizeError",
    "FrameWriter",
    "FramesDurable",
    "GapDetected",
    "Header",
    "LaneCheckpoint",
    "LocalProtocolError",
    "Outcome",
    "Provisioned",
    "RangeNotSatisfiable",
    "ReadBatch",
    "ReadSettings",
    "ReaderEvent",
    "ReaderStats",
    "Record",
    "RecordReceived",
    "RemoteProtocolError",
    "Request",
    "Retention",
    "S2FramesError",
    "SeqNumMismatch",
    "SequencedRecord",
    "ServiceError",
    "Settings",
    "StorageClass",
    "StreamConfig",
    "StreamInfo",
    "StreamPosition",
    "TimestampingMode",
    "TransportError",
    "WriterConflict",
    "WriterForgotten",
    "chunk_bytes",
    "decode_append_ack",
    "decode_u64",
    "encode_u64",
    "extract_dedupe_seq",
    "fence",
    "frame_chunks_to_records",
    "inject_dedupe_headers",
    "make_frame_headers",
    "make_writer_id",
    "metered_bytes",
    "parse_frame_headers",
    "trim",
]
