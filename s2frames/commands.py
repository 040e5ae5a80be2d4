"""Single batches, and the commands that go into them: fence, trim, and asking for the token.

A command carries no dedupe headers, so readers cannot drop its repeats: each plan says what trying
again would amount to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from s2frames.checkpoint import Checkpoint, check_stream
from s2frames.checks import check_int, check_type
from s2frames.dedupe import make_writer_id
from s2frames.errors import (
    FencingTokenMismatch,
    LocalProtocolError,
    RemoteProtocolError,
    SeqNumMismatch,
)
from s2frames.operation import Effect, Plan, ask
from s2frames.records import (
    MAX_BATCH_BYTES,
    MAX_BATCH_RECORDS,
    AppendAck,
    Record,
    fence,
)
from s2frames.records import trim as trim_record
from s2frames.rest import Call
from s2frames.target import StreamTarget
from s2frames.u64 import U64_MAX
from s2frames.wire import AppendInput, decode_append_ack, encode_append_input

__all__ = ["append_batch", "fence_stream", "probe_fencing_token", "trim_stream"]


def append_batch(target: StreamTarget, batch: AppendInput) -> Call[AppendAck]:
    """Append `batch`, all of it or nothing, in a request of its own.

    Raises `LocalProtocolError` for a batch that no stream takes. The answer is a
    `RemoteProtocolError` when it is not for as many records.
    """
    check_type("target", target, StreamTarget)
    check_type("batch", batch, AppendInput)
    if not isinstance(batch.records, Sequence):
        raise LocalProtocolError(
            f"a batch's records are a sequence, not {type(batch.records).__name__}"
        )
    for record in batch.records:
        check_type("a record", record, Record)
    num_records = len(batch.records)
    if not 1 <= num_records <= MAX_BATCH_RECORDS:
        raise LocalProtocolError(f"a batch has 1 to {MAX_BATCH_RECORDS} records, not {num_records}")
    num_bytes = sum(record.metered_bytes for record in batch.records)
    if num_bytes > MAX_BATCH_BYTES:
        raise LocalProtocolError(
            f"a batch has at most {MAX_BATCH_BYTES} metered bytes, not {num_bytes}"
        )
    request = target.unary_append_request(encode_append_input(batch))
    return Call(request, lambda answer: _read_ack(answer.body, num_records))


def fence_stream(
    target: StreamTarget,
    token: str,
    *,
    expect: str | None = None,
    trim: Checkpoint | int | None = None,
) -> Plan[None]:
    """Set the stream's fencing token (at most 36 UTF-8 bytes; "" clears it).

    With `expect`, only if that is the token now; without, a lost answer is not tried again. With
    `trim`, remove the records before it in the same step. Raises `LocalProtocolError` at once for
    a token or number that no stream takes, and for a checkpoint of another stream.
    """
    records = [fence(token)]
    if trim is not None:
        records.append(_trim_record(target, trim))
    call = append_batch(target, AppendInput(records, fencing_token=expect))
    if expect is None:
        return _append(call, Effect.ONCE)
    # Only for when the token is there already.
    rest = AppendInput(records[1:], fencing_token=token)
    return _exchange_token(call, token, append_batch(target, rest) if rest.records else None)


def trim_stream(target: StreamTarget, before: Checkpoint | int) -> Plan[None]:
    """Remove the records below a sequence number, or those that a checkpoint does not need.

    Raises `LocalProtocolError` at once for what is neither, and for a checkpoint of another stream.
    """
    call = append_batch(target, AppendInput([_trim_record(target, before)]))
    return _append(call, Effect.IDEMPOTENT)


def probe_fencing_token(target: StreamTarget, random: Callable[[], float]) -> Plan[str]:
    """The stream's fencing token; "" when there is none. Nothing is appended.

    S2 tells it only to an append that does not hold it. `random` gives floats from 0 up to, not
    including, 1.
    """
    # Three times 12 characters: as long as a token can be, and never used before.
    token = "".join(make_writer_id(random) for _ in range(3))
    # No record ever gets this sequence number, so that it fails even if that is the token.
    batch = AppendInput([trim_record(0)], match_seq_num=U64_MAX, fencing_token=token)
    return _probe(append_batch(target, batch), token)


def _append(call: Call[AppendAck], effect: Effect) -> Plan[None]:
    yield from ask(call, effect)


def _exchange_token(call: Call[AppendAck], token: str, rest: Call[AppendAck] | None) -> Plan[None]:
    try:
        yield from ask(call, Effect.IDEMPOTENT)
    except FencingTokenMismatch as error:
        if error.expected != token:
            raise
        # An attempt whose answer was lost set it. Or it was set before, and the rest was not done.
        if rest is not None:
            yield from ask(rest, Effect.IDEMPOTENT)


def _probe(call: Call[AppendAck], token: str) -> Plan[str]:
    try:
        yield from ask(call)
    except FencingTokenMismatch as error:
        return error.expected
    except SeqNumMismatch:
        return token
    raise RemoteProtocolError(f"a batch was appended though it was to match {U64_MAX} (2^64 - 1)")


def _trim_record(target: StreamTarget, before: Checkpoint | int) -> Record:
    check_type("target", target, StreamTarget)
    if isinstance(before, Checkpoint):
        check_stream(before, target.basin, target.stream)
        return trim_record(before.read_from)
    check_int("before", before)
    return trim_record(before)


def _read_ack(body: bytes, num_records: int) -> AppendAck:
    ack = decode_append_ack(body)
    acked = ack.end.seq_num - ack.start.seq_num
    if acked != num_records:
        raise RemoteProtocolError(f"an ack of {acked} records for a batch of {num_records}")
    return ack
