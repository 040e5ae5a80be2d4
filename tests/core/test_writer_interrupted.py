"""Ctrl-C at every line of a writer: every call did all it says, or nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from frames import make_ack
from interruption import Interruption, Lines, sampled
from s2frames import writer as writer_module
from s2frames.events import Appended, FramesDurable
from s2frames.reconcile import Finding
from s2frames.records import SequencedRecord
from s2frames.wire import decode_append_input
from s2frames.writer import Batch, FrameWriter

# Four bytes a record, three records a batch: two records, and more than a batch holds.
LONG = b"longer"
LONGEST = b"longer than a batch"

NEVER = 10**9


class Play:
    """A writer's life, and its service: the `k`-th line of the writer's is cut off."""

    def __init__(self, k: int) -> None:
        self.interruption = Interruption(k)
        self.writer = FrameWriter("w", match_seq_num=0, chunk_size=4, max_inflight_batches=8)
        self.accepted: list[bytes] = []
        self.under_way: deque[Batch] = deque()
        self.stream: list[bytes] = []
        self.places: list[Appended] = []
        self.tail = self.num_records = 0

    def do(self, call: Callable[[], Any]) -> Any:
        """The result; None when it was cut off, after which all is as it was or as it should be."""
        with self.interruption:
            return call()
        return None

    def check(self) -> None:
        """What was accepted is durable or pending."""
        pending = [message.payload for message in self.writer.pending()]
        assert pending == self.accepted[len(self.places) :]
        assert self.writer.next_frame == len(self.accepted)
        records = [m.end_dedupe_seq for m in self.writer.pending()]
        assert self.writer.next_dedupe_seq == (records[-1] if records else self.num_records)

    def send(self, payload: bytes, *rest: Any) -> None:
        before = self.writer.next_frame
        number = self.do(lambda: self.writer.send(payload, *rest))
        if self.writer.next_frame == before:
            number = self.writer.send(payload, *rest)
        assert number in (None, before)
        self.accepted.append(payload)
        self.check()

    def send_many(self, *payloads: bytes) -> None:
        before = self.writer.next_frame
        numbers = self.do(lambda: self.writer.send_many(list(payloads)))
        if self.writer.next_frame == before:
            numbers = self.writer.send_many(list(payloads))
        assert numbers in (None, range(before, before + len(payloads)))
        self.accepted += payloads
        self.check()

    def transmit(self, *, flush: bool = True) -> None:
        batches = self.do(lambda: self.writer.batches_to_send(flush=flush))
        self.check()
        if batches is None:
            # Nobody knows what of it arrived.
            self.writer.connection_lost()
            self.under_way.clear()
            batches = self.writer.batches_to_send(flush=flush)
        self.under_way += batches
        assert self.writer.inflight_batches == len(self.under_way)
        assert self.writer.inflight_bytes == sum(b.metered_bytes for b in self.under_way)
        queued = self.writer.queued_bytes
        self.writer._count_queue()
        assert self.writer.queued_bytes == queued

    def lose(self) -> None:
        self.do(self.writer.connection_lost)
        self.writer.connection_lost()
        self.under_way.clear()
        self.check()

    def ack(self) -> None:
        batch = self.under_way[0]
        ack = make_ack(self.tail, batch.num_records)
        event = self.do(lambda: self.writer.receive_ack(ack))
        told = self.writer.last_durable
        if told is None or told.ack != ack:
            assert event is None
            told = self.writer.receive_ack(ack)
        self.under_way.popleft()
        self.note(batch, told)

    def note(self, batch: Batch, event: FramesDurable) -> None:
        self.stream.append(batch.wire)
        self.tail += batch.num_records
        self.num_records += batch.num_records
        self.places += event.all_appended()
        self.check()

    def finish(self) -> None:
        while not self.writer.is_idle:
            self.transmit()
            while self.under_way:
                self.ack()
        assert self.writer.is_cut
        assert self.writer.unacked_batches == 0


def appended_in_a_row(play: Play) -> None:
    play.send(b"a")
    play.send(b"b", ((b"k", b"v"),), 7)
    play.send_many(b"c", b"d")
    play.transmit()
    play.send_many(b"e", LONG, b"f")
    play.transmit(flush=False)
    play.ack()
    play.transmit()
    play.send(LONGEST)
    play.ack()
    play.transmit()
    play.finish()


def sent_again(play: Play) -> None:
    play.send_many(b"a", LONGEST, b"b", LONG)
    play.transmit()
    play.ack()
    play.lose()
    play.send(b"c")
    play.transmit()
    play.ack()
    play.lose()
    play.finish()


def moved(play: Play) -> None:
    """Somebody else's command stands in the way of what is left."""
    play.send_many(LONG, b"a", LONG)
    play.transmit()
    play.ack()
    play.lose()
    play.tail += 300
    play.do(lambda: play.writer.match_from(play.tail))
    play.writer.match_from(play.tail)
    assert play.writer.next_unacked_seq_num == play.tail
    play.transmit()
    while play.under_way:
        batch = play.under_way.popleft()
        assert batch.match_seq_num == play.tail
        assert decode_append_input(batch.wire).match_seq_num == play.tail
        play.note(batch, play.writer.receive_ack(make_ack(play.tail, batch.num_records)))


def landed(play: Play) -> None:
    """What was sent is read back, until there is nothing more of it."""
    play.send_many(LONG, LONG, LONG)
    play.transmit()
    batches = list(play.under_way)
    play.lose()
    stream = [
        SequencedRecord(number, 0, record.headers, record.body)
        for number, record in enumerate(r for batch in batches for r in batch.records)
    ]
    reconciliation = play.writer.reconcile()
    if play.do(lambda: reconciliation.take(stream)) is None and not play.writer.is_idle:
        first = play.writer.next_unacked_seq_num
        reconciliation = play.writer.reconcile()
        reconciliation.take(stream[first:])
    assert reconciliation.finding is Finding.OURS
    assert play.writer.is_idle
    assert play.writer.next_unacked_dedupe_seq == len(stream)
    assert play.writer.last_durable is not None
    assert play.writer.last_durable.ack.end.seq_num == len(stream)
    play.places = [Appended(0, 0)] * 3
    play.tail = len(stream)


@pytest.mark.parametrize("life", [appended_in_a_row, sent_again, moved, landed])
def test_a_writer_that_is_cut_off_at_any_line_goes_on_as_if_it_was_not(
    life: Callable[[Play], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MAX_BATCH_RECORDS", 3)
    whole = Play(NEVER)
    life(whole)
    assert len(whole.interruption.places) > 100
    for k in sampled(whole.interruption.places, repeats=3):
        play = Play(k)
        life(play)
        assert play.interruption.came_out, play.interruption.where
        assert (play.stream, play.places) == (whole.stream, whole.places), play.interruption.where
        assert play.tail == whole.tail


def test_what_is_refused_changes_nothing_that_was_cut_off() -> None:
    """The queue is counted anew also by the call that is refused."""
    with Lines() as lines:
        FrameWriter("w").send(b"a")
    for k in range(1, len(lines.places) + 1):
        writer = FrameWriter("w")
        with Interruption(k):
            writer.send(b"a")
        with pytest.raises(Exception, match=r"^a payload has 1 to \d+ bytes"):
            writer.send(b"")
        assert (writer.queued_bytes > 0) == (writer.next_frame == 1)
        assert writer.next_dedupe_seq == writer.next_frame
