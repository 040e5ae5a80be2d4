from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from embedded.host import Host, make_host
from frames import make_ack
from run_operation import TARGET, Fault, answered, lost, refused, run
from s2frames.checkpoint import Checkpoint
from s2frames.commands import append_batch, fence_stream, probe_fencing_token, trim_stream
from s2frames.errors import (
    FencingTokenMismatch,
    LocalProtocolError,
    Outcome,
    RemoteProtocolError,
    S2FramesError,
    SeqNumMismatch,
    TransportError,
)
from s2frames.operation import Effect, Plan, ask, read_range
from s2frames.records import AppendAck, Record, SequencedRecord, fence, trim
from s2frames.target import StreamTarget
from s2frames.u64 import U64_MAX
from s2frames.wire import AppendInput, decode_append_input, encode_append_ack


def stored(host: Host) -> list[Record]:
    """What the stream holds, without its timestamps."""
    found: list[Record] = []

    def take(records: Sequence[SequencedRecord]) -> bool:
        found.extend(Record(bytes(r.body), r.headers) for r in records)
        return True

    run(read_range(TARGET, 0, 10_000, take), host).result()
    return found


def token_of(host: Host) -> str:
    return run(probe_fencing_token(TARGET, lambda: 0.5), host).result()


# One batch


def test_a_batch_is_appended() -> None:
    host = make_host()
    call = append_batch(TARGET, AppendInput([Record(b"a"), Record(b"b")], match_seq_num=0))
    ack = run(ask(call), host).result()
    assert (ack.start.seq_num, ack.end.seq_num, ack.tail.seq_num) == (0, 2, 2)
    assert stored(host) == [Record(b"a"), Record(b"b")]


def test_a_batch_carries_the_encryption_key() -> None:
    target = StreamTarget(TARGET.settings, TARGET.basin, TARGET.stream, b"k" * 32)
    request = append_batch(target, AppendInput([Record(b"a")])).request
    assert "s2-encryption-key" in request.headers
    assert decode_append_input(request.body).records == [Record(b"a")]


@pytest.mark.parametrize("acked", [0, 1, 3, -1])
def test_an_ack_of_another_number_of_records(acked: int) -> None:
    call = append_batch(TARGET, AppendInput([Record(b"a"), Record(b"b")]))
    body = encode_append_ack(make_ack(5, acked, tail=9))
    with pytest.raises(RemoteProtocolError, match=f"an ack of {acked} records for a batch of 2"):
        call.parse(200, {}, body)


@pytest.mark.parametrize("body", [b"", b"<html>", b"\x0a\x00"])
def test_an_answer_that_is_no_ack(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        append_batch(TARGET, AppendInput([Record(b"a")])).parse(200, {}, body)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (AppendInput([]), "a batch has 1 to 1000 records, not 0"),
        (AppendInput([Record()] * 1001), "not 1001"),
        (AppendInput([Record(bytes(2**20 - 7))]), "at most 1048576 metered bytes, not 1048577"),
        (AppendInput([Record(bytes(2**19))] * 2), "not 1048592"),
        (AppendInput([Record()], match_seq_num=-1), "u64"),
        (AppendInput([Record()], match_seq_num=2**64), "u64"),
        (AppendInput([Record()], fencing_token="x" * 37), "at most 36 UTF-8 bytes, not 37"),
    ],
)
def test_batches_that_no_stream_takes(batch: AppendInput, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=message):
        append_batch(TARGET, batch)


def test_the_largest_batches() -> None:
    host = make_host()
    for batch in ([Record()] * 1000, [Record(bytes(2**20 - 8))]):
        ack = run(ask(append_batch(TARGET, AppendInput(batch))), host).result()
        assert ack.end.seq_num - ack.start.seq_num == len(batch)


# What is refused before any request


@pytest.mark.parametrize(
    "call",
    [
        lambda: fence_stream(TARGET, "x" * 37),
        lambda: fence_stream(TARGET, "é" * 19),
        lambda: fence_stream(TARGET, "\ud800"),
        lambda: fence_stream(TARGET, None),  # type: ignore[arg-type]
        lambda: fence_stream(TARGET, "new", expect="x" * 37),
        lambda: fence_stream(TARGET, "new", expect=7),  # type: ignore[arg-type]
        lambda: fence_stream(TARGET, "new", trim=-1),
        lambda: fence_stream(TARGET, "new", trim=True),
        lambda: fence_stream(TARGET, "new", expect="", trim=2**64),
        lambda: trim_stream(TARGET, -1),
        lambda: trim_stream(TARGET, 2**64),
        lambda: trim_stream(TARGET, False),
        lambda: trim_stream(TARGET, 1.0),  # type: ignore[arg-type]
        lambda: trim_stream(TARGET, None),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_are_refused_at_the_call(call: Callable[[], Plan[None]]) -> None:
    with pytest.raises(LocalProtocolError):
        call()


# Fencing


@pytest.mark.parametrize("token", ["t", "x" * 36, "é" * 18, ""])
def test_a_stream_is_fenced(token: str) -> None:
    host = make_host()
    run(fence_stream(TARGET, token), host).result()
    assert token_of(host) == token
    assert stored(host) == [fence(token)]


def test_fence_and_trim_are_one_batch() -> None:
    host = make_host()
    host.append_ok(Record(b"a"), Record(b"b"))
    done = run(fence_stream(TARGET, "t", expect="", trim=Checkpoint(1, 2)), host)
    done.result()
    assert len(done.requests) == 1
    assert stored(host) == [Record(b"b"), fence("t"), trim(1)]


def test_a_fence_that_expects_another_token() -> None:
    host = make_host()
    host.append_ok(fence("theirs"))
    done = run(fence_stream(TARGET, "ours", expect="", trim=1), host)
    with pytest.raises(FencingTokenMismatch) as caught:
        done.result()
    assert caught.value.expected == "theirs"
    assert caught.value.outcome is Outcome.NOT_APPLIED
    assert stored(host) == [fence("theirs")]


@pytest.mark.parametrize("faults", [[lost()], [refused()], [lost(3), lost()], [refused(), lost()]])
def test_a_conditioned_fence_is_sent_again(faults: list[Fault]) -> None:
    host = make_host()
    done = run(fence_stream(TARGET, "t", expect=""), host, faults)
    done.result()
    assert stored(host) == [fence("t")]
    assert len(done.events) == len(faults)


def test_a_fence_whose_answer_was_lost_and_that_was_replaced() -> None:
    host = make_host()

    def replace(number: int) -> None:
        if number == 2:
            host.append_ok(fence("theirs"))

    done = run(fence_stream(TARGET, "t", expect=""), host, [lost()], before_request=replace)
    with pytest.raises(FencingTokenMismatch) as caught:
        done.result()
    assert caught.value.outcome is Outcome.UNKNOWN


def test_a_token_that_is_there_already_is_no_reason_not_to_trim() -> None:
    host = make_host()
    host.append_ok(Record(b"a"), fence("t"))
    run(fence_stream(TARGET, "t", expect="", trim=1), host).result()
    assert stored(host) == [fence("t"), trim(1)]


def test_a_trim_of_a_token_that_is_there_is_conditioned_on_it() -> None:
    host = make_host()
    host.append_ok(fence("t"))

    def replace(number: int) -> None:
        if number == 2:
            host.append_ok(fence("theirs"))

    done = run(fence_stream(TARGET, "t", expect="", trim=1), host, before_request=replace)
    with pytest.raises(FencingTokenMismatch):
        done.result()
    assert stored(host) == [fence("t"), fence("theirs")]


def test_an_unconditioned_fence_is_not_sent_again_when_its_answer_is_lost() -> None:
    host = make_host()
    done = run(fence_stream(TARGET, "t"), host, [lost()])
    with pytest.raises(TransportError) as caught:
        done.result()
    assert caught.value.outcome is Outcome.UNKNOWN
    assert len(done.requests) == 1


def test_an_unconditioned_fence_is_sent_again_when_it_cannot_have_arrived() -> None:
    host = make_host()
    draining = answered(503, b'{"code":"server_draining","message":"soon"}')
    done = run(fence_stream(TARGET, "t"), host, [refused(), draining])
    done.result()
    assert stored(host) == [fence("t")]


# Trimming


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        (0, [b"a", b"b", b"c"]),
        (2, [b"c"]),
        (3, []),
        (U64_MAX, None),
        (Checkpoint(1, 3), [b"b", b"c"]),
        (Checkpoint(0, 3), [b"a", b"b", b"c"]),
    ],
)
def test_a_stream_is_trimmed(before: Checkpoint | int, kept: list[bytes] | None) -> None:
    host = make_host()
    host.append_ok(Record(b"a"), Record(b"b"), Record(b"c"))
    run(trim_stream(TARGET, before), host).result()
    point = before if isinstance(before, int) else before.read_from
    # The largest number removes the command itself too.
    expected = [] if kept is None else [*map(Record, kept), trim(point)]
    assert stored(host) == expected


@pytest.mark.parametrize(
    ("basin", "stream"), [("other-basin", TARGET.stream), (TARGET.basin, "other/stream")]
)
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(lambda before: trim_stream(TARGET, before), id="trim"),
        pytest.param(lambda before: fence_stream(TARGET, "t", trim=before), id="fence"),
    ],
)
def test_a_checkpoint_of_another_stream_trims_nothing(
    command: Callable[[Checkpoint], object], basin: str, stream: str
) -> None:
    with pytest.raises(LocalProtocolError) as error:
        command(Checkpoint(1, 1, basin=basin, stream=stream))
    assert str(error.value) == (
        f"the checkpoint is of the stream {stream!r} of the basin {basin!r}, "
        f"not of the stream {TARGET.stream!r} of the basin {TARGET.basin!r}"
    )


def test_a_checkpoint_of_the_stream_trims_it() -> None:
    host = make_host()
    host.append_ok(Record(b"a"), Record(b"b"))
    named = Checkpoint(1, 1, basin=TARGET.basin, stream=TARGET.stream)
    run(trim_stream(TARGET, named), host).result()
    assert stored(host) == [Record(b"b"), trim(1)]


def test_a_trim_is_sent_again() -> None:
    host = make_host()
    host.append_ok(Record(b"a"))
    run(trim_stream(TARGET, 1), host, [lost(), refused(), lost(1)]).result()
    assert stored(host) == [trim(1)] * 3


# The token


@pytest.mark.parametrize("token", ["", "t", "x" * 36, "é" * 18])
def test_the_token_is_told_and_nothing_appended(token: str) -> None:
    host = make_host()
    host.append_ok(fence(token))
    assert (
        run(probe_fencing_token(TARGET, lambda: 0.1), host, [lost(), refused()]).result() == token
    )
    assert stored(host) == [fence(token)]


def test_a_token_that_happens_to_be_the_probes() -> None:
    host = make_host()
    probe = probe_fencing_token(TARGET, lambda: 0.0)
    host.append_ok(fence("a" * 36))
    assert run(probe, host).result() == "a" * 36
    assert stored(host) == [fence("a" * 36)]


def test_probes_are_random_and_can_never_append() -> None:
    host = make_host()
    sent = []
    numbers = iter(i / 100 for i in range(100))
    for _ in range(2):
        done = run(probe_fencing_token(TARGET, lambda: next(numbers)), host)
        batch = decode_append_input(done.requests[0].body)
        assert batch.match_seq_num == U64_MAX
        # If it were appended after all, it would change nothing.
        assert batch.records == [trim(0)]
        assert batch.fencing_token is not None
        assert len(batch.fencing_token) == 36
        sent.append(batch.fencing_token)
    assert sent[0] != sent[1]


def test_a_probe_that_was_appended_all_the_same() -> None:
    ack = answered(200, encode_append_ack(make_ack(0, 1)))
    done = run(probe_fencing_token(TARGET, lambda: 0.5), make_host(), [ack])
    with pytest.raises(RemoteProtocolError, match="though it was to match"):
        done.result()


def test_a_probe_says_nothing_of_an_outcome() -> None:
    gone = answered(404, b'{"code":"stream_not_found","message":"no"}')
    done = run(probe_fencing_token(TARGET, lambda: 0.5), make_host(), [gone])
    with pytest.raises(S2FramesError) as caught:
        done.result()
    assert caught.value.outcome is None


def test_a_match_in_doubt_is_told_as_such() -> None:
    # A batch of one's own, sent again after its ack was lost, finds its place taken.
    host = make_host()
    call = append_batch(TARGET, AppendInput([Record(b"a")], match_seq_num=0))
    done: Any = run(ask(call, Effect.IDEMPOTENT), host, [lost()])
    with pytest.raises(SeqNumMismatch) as caught:
        done.result()
    assert caught.value.outcome is Outcome.UNKNOWN
    assert caught.value.attempts == 2


def test_an_ack_is_the_answer() -> None:
    ack = make_ack(3, 1)
    call = append_batch(TARGET, AppendInput([Record(b"a")]))
    answer: AppendAck = call.parse(200, {}, encode_append_ack(ack))
    assert answer == ack
