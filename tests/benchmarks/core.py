"""How fast the core is, alone and in memory. Prints a JSON object a measurement.

Each is taken several times and the best and the median are given: on a busy machine the best says
what the code can do, the median what it does. Run it as

    python tests/benchmarks/core.py [encode] [decode] [memory]
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from s2frames import (
    AppendAck,
    Batch,
    FrameReader,
    FrameReceived,
    FrameWriter,
    SequencedRecord,
    StreamPosition,
    encode_u64,
    make_frame_headers,
)
from s2frames.dedupe import DEDUPE_SEQ, WRITER_ID
from s2frames.wire import ReadBatch, encode_read_batch

RUNS = 7
TIMESTAMP = 1_700_000_000_000
MIB = 2**20

SMALL, SMALL_COUNT = 100, 300_000
LARGE, LARGE_COUNT = 5 * MIB, 40
HUGE = 100 * MIB


def main() -> None:
    """Take the measurements that are asked for."""
    wanted = set(sys.argv[1:]) or {"encode", "decode", "memory"}
    if "encode" in wanted:
        for size, count in ((SMALL, SMALL_COUNT), (LARGE, LARGE_COUNT)):
            report("encode", size, count, partial(encode, size, count))
    if "decode" in wanted:
        for size, count in ((SMALL, SMALL_COUNT), (LARGE, LARGE_COUNT)):
            report("decode", size, count, partial(decode, make_read_batches(size, count)))
    if "memory" in wanted:
        for role in ("idle", "writer", "reader"):
            subprocess.run([sys.executable, __file__, f"peak-{role}"], check=True)
    for role in ("idle", "writer", "reader"):
        if f"peak-{role}" in wanted:
            report_peak(role)


def report(what: str, size: int, count: int, measure: Callable[[], float]) -> None:
    """Print how long `measure` took for `count` messages of `size` bytes."""
    seconds = sorted(measure() for _ in range(RUNS))
    figures = {}
    for name, value in (("best", seconds[0]), ("median", statistics.median(seconds))):
        figures[f"{name}_msg_s"] = round(count / value)
        figures[f"{name}_mib_s"] = round(count * size / value / MIB)
    print(json.dumps({"core": what, "size": size, "count": count, **figures}))


def ack_of(batch: Batch, start: int) -> AppendAck:
    """What the service would answer."""
    end = StreamPosition(start + batch.num_records, TIMESTAMP)
    return AppendAck(StreamPosition(start, TIMESTAMP), end, end)


def encode(size: int, count: int) -> float:
    """Seconds from `send_many` to every batch's bytes and ack."""
    messages = [b"x" * size] * min(count, max(1, 4 * MIB // size))
    started = time.perf_counter()
    assert sum(1 for _ in run_writer(messages, count)) > 0
    return time.perf_counter() - started


def run_writer(messages: list[bytes], count: int) -> Iterator[bytes]:
    """Write `count` messages; gives each batch's bytes and takes its ack."""
    writer = FrameWriter("benchmark-id")
    sent = durable = seq_num = 0
    while durable < count:
        if sent < count and not writer.queued_bytes:
            sent += len(writer.send_many(messages[: count - sent]))
        for batch in writer.batches_to_send(flush=sent == count):
            yield batch.wire
            durable += writer.receive_ack(ack_of(batch, seq_num)).num_frames
            seq_num += batch.num_records


def make_read_batches(size: int, count: int) -> list[bytes]:
    """The stream that holds `count` messages, as the service would send it.

    Starts at 100,000: a sequence number of three bytes, as in a stream in use.
    """
    writer = FrameWriter("benchmark-id")
    batches, seq_num, sent = [], 100_000, 0
    while sent < count or not writer.is_idle:
        if sent < count and not writer.queued_bytes:
            sent += len(writer.send_many([b"x" * size] * min(count - sent, 10_000)))
        for batch in writer.batches_to_send(flush=True):
            batches.append(as_read_batch(batch, seq_num))
            writer.receive_ack(ack_of(batch, seq_num))
            seq_num += batch.num_records
    return batches


def as_read_batch(batch: Batch, start: int) -> bytes:
    """A batch as a reader gets it."""
    records = [
        SequencedRecord(start + i, TIMESTAMP, record.headers, record.body)
        for i, record in enumerate(batch.records)
    ]
    return encode_read_batch(ReadBatch(records))


def decode(batches: list[bytes]) -> float:
    """Seconds from encoded batches to messages."""
    reader = FrameReader()
    frames = 0
    started = time.perf_counter()
    for batch in batches:
        for event in reader.receive_batch(batch):
            if type(event) is FrameReceived:
                frames += 1
    seconds = time.perf_counter() - started
    assert frames == reader.stats.frames > 0
    return seconds


def report_peak(role: str) -> None:
    """Print the peak memory of this process, which plays one part with one huge message."""
    if role == "writer":
        for _ in run_writer([b"x" * HUGE], 1):
            pass
    elif role == "reader":
        reader = FrameReader()
        # The batches come one by one, from another process's memory as it were: only one is held.
        for batch in huge_message_batches():
            for event in reader.receive_batch(batch):
                assert isinstance(event, FrameReceived)
                assert len(event.payload) == HUGE
    peak = peak_bytes()
    print(json.dumps({"core": "memory", "role": role, "message": HUGE, "peak_mib": peak // MIB}))


def huge_message_batches() -> Iterator[bytes]:
    """A huge message in batches, made without ever holding it."""
    chunk = b"x" * (MIB - 99)
    num_records = -(-HUGE // len(chunk))
    for i in range(num_records):
        declared = make_frame_headers(HUGE, num_records) if i == 0 else ()
        headers = (*declared, (DEDUPE_SEQ, encode_u64(i)), (WRITER_ID, b"benchmark-id"))
        body = chunk[: HUGE - i * len(chunk)]
        yield encode_read_batch(ReadBatch([SequencedRecord(i, TIMESTAMP, headers, body)]))


def peak_bytes() -> int:
    """The most memory this process held at once."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
