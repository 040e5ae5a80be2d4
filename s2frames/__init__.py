"""Messages over S2's durable streams: typed, of any size, once, whole and in order.

This package does no I/O. It turns messages into batches of records (`FrameWriter`), records into
messages (`FrameReader`), and the two into sessions with the service (`AppendProtocol`,
`ReadProtocol`). Adapters move the bytes: `s2frames_httpx` does.
"""

from __future__ import annotations

from s2frames.append import AppendEvent, AppendProtocol, AppendState
from s2frames.checkpoint import Checkpoint, LaneCheckpoint
from s2frames.chunking import MAX_CHUNK_BODY_BYTES, chunk_bytes
from s2frames.codecs import BYTES, JSON, MSGPACK, TEXT, Codec
from s2frames.commands import append_batch, fence_stream, probe_fencing_token, trim_stream
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
    CertificateError,
    CodecError,
    ConnectError,
    FencingTokenMismatch,
    FrameLost,
    FrameSizeError,
    LocalProtocolError,
    Outcome,
    RangeNotSatisfiable,
    RemoteProtocolError,
    S2FramesError,
    ScanLimitExceeded,
    SeqNumMismatch,
    ServiceError,
    TransportError,
    WriterConflict,
    WriterExhausted,
    WriterNotFound,
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
    FramesReceived,
    GapDetected,
    ReaderEvent,
    RecordReceived,
    SequenceGapDetected,
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
from s2frames.handout import Handout
from s2frames.http import Request
from s2frames.inbox import Inbox, OnCorrupt, ReceivedMessage
from s2frames.operation import Operation, OperationState
from s2frames.options import AppendOptions, ReadOptions
from s2frames.outbox import Outbox
from s2frames.read import ReadEvent, ReadProtocol, ReadState
from s2frames.reader import FrameReader, ReaderStats
from s2frames.reconcile import Finding, Reconciliation
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
from s2frames.recover import recover_writer
from s2frames.rest import BasinInfo, Provisioned, StreamInfo
from s2frames.retry import Retry
from s2frames.session import (
    Action,
    CloseRequest,
    EndData,
    Machine,
    OpenRequest,
    Retrying,
    SendData,
    SessionEnded,
)
from s2frames.settings import AppendSettings, Endpoints, ReadSettings, Settings
from s2frames.target import StreamTarget
from s2frames.u64 import decode_u64, encode_u64
from s2frames.wire import AppendInput, ReadBatch, decode_append_ack
from s2frames.writer import Batch, FrameWriter
from s2frames.writer_state import Pending, PendingMessage, WriterState

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
    "Action",
    "AppendAck",
    "AppendConditionFailed",
    "AppendEvent",
    "AppendInput",
    "AppendOptions",
    "AppendProtocol",
    "AppendSettings",
    "AppendState",
    "Appended",
    "BasinConfig",
    "BasinInfo",
    "Batch",
    "CaughtUp",
    "CertificateError",
    "Checkpoint",
    "Cipher",
    "CloseRequest",
    "Codec",
    "CodecError",
    "CommandReceived",
    "CompletedFrame",
    "Compression",
    "ConnectError",
    "DedupeFilter",
    "DropReason",
    "DuplicateDropped",
    "EndData",
    "Endpoints",
    "FencingTokenMismatch",
    "Finding",
    "FrameAssembler",
    "FrameDropped",
    "FrameLost",
    "FrameMeta",
    "FrameReader",
    "FrameReceived",
    "FrameSizeError",
    "FrameWriter",
    "FramesDurable",
    "FramesReceived",
    "GapDetected",
    "Handout",
    "Header",
    "Inbox",
    "LaneCheckpoint",
    "LocalProtocolError",
    "Machine",
    "OnCorrupt",
    "OpenRequest",
    "Operation",
    "OperationState",
    "Outbox",
    "Outcome",
    "Pending",
    "PendingMessage",
    "Provisioned",
    "RangeNotSatisfiable",
    "ReadBatch",
    "ReadEvent",
    "ReadOptions",
    "ReadProtocol",
    "ReadSettings",
    "ReadState",
    "ReaderEvent",
    "ReaderStats",
    "ReceivedMessage",
    "Reconciliation",
    "Record",
    "RecordReceived",
    "RemoteProtocolError",
    "Request",
    "Retention",
    "Retry",
    "Retrying",
    "S2FramesError",
    "ScanLimitExceeded",
    "SendData",
    "SeqNumMismatch",
    "SequenceGapDetected",
    "SequencedRecord",
    "ServiceError",
    "SessionEnded",
    "Settings",
    "StorageClass",
    "StreamConfig",
    "StreamInfo",
    "StreamPosition",
    "StreamTarget",
    "TimestampingMode",
    "TransportError",
    "WriterConflict",
    "WriterExhausted",
    "WriterForgotten",
    "WriterNotFound",
    "WriterState",
    "append_batch",
    "chunk_bytes",
    "decode_append_ack",
    "decode_u64",
    "encode_u64",
    "extract_dedupe_seq",
    "fence",
    "fence_stream",
    "frame_chunks_to_records",
    "inject_dedupe_headers",
    "make_frame_headers",
    "make_writer_id",
    "metered_bytes",
    "parse_frame_headers",
    "probe_fencing_token",
    "recover_writer",
    "trim",
    "trim_stream",
]
