"""What may be appended, and what it becomes: limits, timestamps, commands.

Rules of the server's `common/src/record/`, `common/src/stream.rs` and
`lite/src/backend/streamer.rs`.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from s2frames.embedded.config import StreamConfig
from s2frames.embedded.error_bodies import service_error
from s2frames.embedded.store import StreamState
from s2frames.errors import FencingTokenMismatch, SeqNumMismatch, ServiceError
from s2frames.records import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    MAX_FENCING_TOKEN_BYTES,
    Record,
    SequencedRecord,
    StreamPosition,
    is_command,
    metered_bytes,
)
from s2frames.wire import AppendInput

__all__ = ["MAX_HEADERS", "apply_commands", "check_batch", "check_conditions", "sequence"]

#: Headers in one message of a read. A header takes up to 13 bytes more in protobuf than it is
#: metered for; with 1 MiB metered and 1000 records the message stays below the 2 MiB of S2S.
MAX_HEADERS = 65_536

_FENCE, _TRIM = b"fence", b"trim"
_TRIM_BYTES = 8


def check_batch(batch: AppendInput) -> None:
    """Refuse a batch that no stream takes. Raises `ServiceError` 422, `invalid`."""
    token = batch.fencing_token
    if token is not None and len(token.encode()) > MAX_FENCING_TOKEN_BYTES:
        raise _invalid(f"a fencing token has at most {MAX_FENCING_TOKEN_BYTES} bytes")
    if not 1 <= len(batch.records) <= MAX_BATCH_RECORDS:
        raise _invalid(f"a batch has 1 to {MAX_BATCH_RECORDS} records, not {len(batch.records)}")
    size = 0
    for record in batch.records:
        _check_record(record)
        size += metered_bytes(record.headers, len(record.body))
    if size > MAX_BATCH_BYTES:
        raise _invalid(f"a batch has at most {MAX_BATCH_BYTES} metered bytes, not {size}")


def _check_record(record: Record) -> None:
    headers = record.headers
    if is_command(headers):
        _check_command(headers[0][1], record.body)
    elif not all(name for name, _ in headers):
        raise _invalid("a header's name must not be empty (alone, that marks a command)")
    elif len(headers) > MAX_HEADERS:
        raise _invalid(f"a record has at most {MAX_HEADERS} headers, not {len(headers)}")


def _check_command(command: bytes, payload: bytes) -> None:
    if command == _FENCE:
        if len(payload) > MAX_FENCING_TOKEN_BYTES:
            raise _invalid(f"a fencing token has at most {MAX_FENCING_TOKEN_BYTES} bytes")
        try:
            payload.decode()
        except UnicodeDecodeError:
            raise _invalid("a fencing token must be UTF-8") from None
    elif command == _TRIM:
        if len(payload) != _TRIM_BYTES:
            raise _invalid(f"a trim command's body has {_TRIM_BYTES} bytes, not {len(payload)}")
    else:
        raise _invalid("a command is fence or trim")


def check_conditions(batch: AppendInput, state: StreamState) -> None:
    """Refuse a batch whose conditions do not hold: the fencing token first, as the server does."""
    if batch.fencing_token not in (None, state.fencing_token):
        raise FencingTokenMismatch(state.fencing_token)
    if batch.match_seq_num not in (None, state.tail.seq_num):
        raise SeqNumMismatch(state.tail.seq_num)


def sequence(
    records: Sequence[Record], tail: StreamPosition, config: StreamConfig, arrival: int
) -> list[SequencedRecord]:
    """The records as the stream will hold them. `arrival` is in milliseconds since the Unix epoch.

    A timestamp is capped at the arrival, unless the stream allows the future, and never goes back.
    """
    sequenced = []
    latest = tail.timestamp
    for seq_num, record in enumerate(records, tail.seq_num):
        timestamp = _choose_timestamp(record.timestamp, config.timestamping_mode, arrival)
        if not config.uncapped_timestamps:
            timestamp = min(timestamp, arrival)
        latest = max(latest, timestamp)
        sequenced.append(SequencedRecord(seq_num, latest, record.headers, record.body))
    return sequenced


def _choose_timestamp(given: int | None, mode: str | None, arrival: int) -> int:
    if mode == "arrival":
        return arrival
    if given is not None:
        return given
    if mode == "client-require":
        raise _invalid("this stream requires a timestamp on every record")
    return arrival


def apply_commands(records: Sequence[SequencedRecord], state: StreamState) -> StreamState:
    """The stream's state after `records`, which follow its tail."""
    for record in records:
        if is_command(record.headers):
            state = _apply_command(record, state)
    last = records[-1]
    return evolve(state, tail=StreamPosition(last.seq_num + 1, last.timestamp))


def _apply_command(record: SequencedRecord, state: StreamState) -> StreamState:
    payload = bytes(record.body)
    if record.headers[0][1] == _FENCE:
        return evolve(state, fencing_token=payload.decode())
    # A trim reaches no further than its own record, and never back.
    trim_point = min(int.from_bytes(payload, "big"), record.seq_num + 1)
    return evolve(state, trim_point=max(state.trim_point, trim_point))


def _invalid(message: str) -> ServiceError:
    return service_error("invalid", message)
