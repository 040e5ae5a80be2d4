from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedded.host import (
    BASIN,
    EPOCH,
    PROTOBUF,
    RECORDS,
    S2S,
    Host,
    drain_messages,
    finish,
    make_host,
)
from s2_bodies import bodies, encode_batch, messages_in
from s2frames.compression import Compression
from s2frames.embedded import Exchange
from s2frames.error_bodies import parse_error
from s2frames.errors import ServiceError
from s2frames.records import AppendAck, Record, StreamPosition, fence, trim
from s2frames.s2s import Message, Terminal, encode_terminal
from s2frames.wire import decode_append_ack

NOW = int(EPOCH * 1000)


def position(seq_num: int) -> dict[str, int]:
    return {"seq_num": seq_num, "timestamp": NOW}


def tail_of(host: Host) -> int:
    reply = host.send("GET", f"{RECORDS}/tail")
    seq_num: int = reply.json["tail"]["seq_num"]
    return seq_num


# One batch a request


def test_one_batch_in_json() -> None:
    host = make_host()
    reply = host.send_json("POST", RECORDS, {"records": [{"body": "a"}, {"body": "b"}]})
    assert reply.status == 200
    assert reply.json == {"start": position(0), "end": position(2), "tail": position(2)}


def test_one_batch_in_protobuf() -> None:
    host = make_host()
    start, end = StreamPosition(0, NOW), StreamPosition(1, NOW)
    reply = host.append(bodies("a"))
    assert reply.headers["content-type"] == "application/protobuf"
    assert decode_append_ack(reply.body) == AppendAck(start, end, end)


def test_the_answer_has_the_form_that_is_asked_for() -> None:
    host = make_host()
    accept = {"accept": "application/x-protobuf, application/json"}
    reply = host.send_json("POST", RECORDS, {"records": [{}]}, accept)
    assert decode_append_ack(reply.body).end.seq_num == 1
    body = b"\x0a\x00"  # one record of nothing
    reply = host.send("POST", RECORDS, {"content-type": "application/protobuf"}, body)
    assert reply.json["end"] == position(2)


def test_base64_in_json() -> None:
    host = make_host()
    value = {"records": [{"body": "//8=", "headers": [["YQ==", "/w=="]]}]}
    assert host.send_json("POST", RECORDS, value, {"s2-format": "base64"}).status == 200
    read = host.send("GET", f"{RECORDS}?seq_num=0", {"s2-format": "base64"}).json["records"][0]
    assert (read["body"], read["headers"]) == ("//8=", [["YQ==", "/w=="]])


def test_the_conditions_of_an_append() -> None:
    host = make_host()
    host.append_ok(fence("token"))
    wrong = host.append([Record()], match_seq_num=9, fencing_token="other")
    assert (wrong.status, wrong.json) == (412, {"fencing_token_mismatch": "token"})
    wrong = host.append([Record()], match_seq_num=9, fencing_token="token")
    assert (wrong.status, wrong.json) == (412, {"seq_num_mismatch": 1})
    assert tail_of(host) == 1
    assert host.append([Record()], match_seq_num=1, fencing_token="token").status == 200
    assert host.append([Record()]).status == 200  # fencing is cooperative


def test_a_probe_for_the_token_never_appends() -> None:
    host = make_host()
    probe = host.append([Record()], match_seq_num=2**64 - 1, fencing_token="!")
    assert probe.json == {"fencing_token_mismatch": ""}
    assert tail_of(host) == 0


def test_a_trim_to_zero_is_a_barrier() -> None:
    host = make_host()
    host.append_ok(*bodies("a"))
    assert host.append([trim(0)], match_seq_num=1).status == 200
    assert host.append(bodies("b"), match_seq_num=1).json == {"seq_num_mismatch": 2}
    assert host.send("GET", f"{RECORDS}?seq_num=0").json["records"][0]["seq_num"] == 0


@pytest.mark.parametrize(
    ("headers", "body", "expected"),
    [
        (PROTOBUF, b"\xff", (400, "bad_proto")),
        (PROTOBUF, b"", (422, "invalid")),
        (PROTOBUF, b"\x0a\x00\x1a\x25" + b"t" * 37, (422, "invalid")),
        (PROTOBUF, bytes(2 * 1024 * 1024 + 1), (400, "bad_proto")),
        ({"content-type": "application/json"}, b"", (400, "bad_json")),
        ({"content-type": "application/json"}, b"{}", (400, "bad_json")),
        ({"content-type": "application/json"}, b'{"records":[]}', (422, "invalid")),
        ({"content-type": "application/json"}, b" " * (2 * 1024 * 1024 + 1), (400, "bad_json")),
        ({}, b'{"records":[{}]}', (400, "bad_json")),
        ({"content-type": "text/plain"}, b'{"records":[{}]}', (400, "bad_json")),
        ({**PROTOBUF, "s2-encryption-key": "k" * 45}, b"\x0a\x00", (400, "bad_header")),
        (
            {"content-type": "application/json", "s2-format": "hex"},
            b'{"records":[{}]}',
            (400, "bad_header"),
        ),
    ],
    ids=range(12),
)
def test_what_is_no_append(headers: dict[str, str], body: bytes, expected: tuple[int, str]) -> None:
    host = make_host()
    assert host.send("POST", RECORDS, headers, body).error == expected
    assert tail_of(host) == 0


def test_a_format_does_not_matter_to_protobuf() -> None:
    host = make_host()
    assert host.send("POST", RECORDS, {**PROTOBUF, "s2-format": "hex"}, b"\x0a\x00").status == 200


def test_the_largest_record_fits_json() -> None:
    host = make_host()
    for size, status in ((1_048_568, 200), (1_048_569, 422)):
        value = {"records": [{"body": "x" * size}]}
        assert host.send_json("POST", RECORDS, value).status == status


@pytest.mark.parametrize(
    ("target", "basin", "expected"),
    [
        ("/v1/streams/missing/records", BASIN, (404, "stream_not_found")),
        (RECORDS, "no-such-basin", (404, "basin_not_found")),
    ],
)
def test_where_nothing_can_be_appended(target: str, basin: str, expected: tuple[int, str]) -> None:
    host = make_host()
    assert host.send("POST", target, PROTOBUF, b"\x0a\x00", basin=basin).error == expected
    # An empty batch is no batch anywhere; a session is refused before its first batch.
    assert host.send("POST", target, PROTOBUF, b"", basin=basin).error == (422, "invalid")
    assert finish(host.open("POST", target, S2S, basin)).error == expected


def test_a_basin_may_create_streams_on_append() -> None:
    host = make_host(create_stream_on_append=True)
    assert host.send("POST", "/v1/streams/new/records", PROTOBUF, b"\x0a\x00").status == 200
    assert host.open("POST", "/v1/streams/newer/records", S2S).response is not None
    assert host.send("GET", "/v1/streams/newer").status == 200


# Sessions


def open_session(host: Host, **headers: str) -> Exchange:
    exchange = host.open("POST", RECORDS, {**S2S, **headers})
    assert exchange.response is not None
    assert exchange.response.status == 200
    assert dict(exchange.response.headers) == {
        "content-type": "s2s/proto",
        "cache-control": "no-cache, no-transform",
        "x-accel-buffering": "no",
    }
    return exchange


def acks_of(found: list[Message | Terminal]) -> list[tuple[int, int]]:
    acks = [decode_append_ack(m.body) for m in found if isinstance(m, Message)]
    return [(ack.start.seq_num, ack.end.seq_num) for ack in acks]


def error_of(found: list[Message | Terminal]) -> ServiceError:
    last = found[-1]
    assert isinstance(last, Terminal)
    assert not any(isinstance(message, Terminal) for message in found[:-1])
    return parse_error(last.status, last.body)


def test_acks_come_while_the_request_goes_on() -> None:
    host = make_host()
    session = open_session(host)
    session.receive_data(encode_batch(bodies("a", "b")), host.now)
    assert acks_of(drain_messages(session)) == [(0, 2)]
    session.receive_data(encode_batch(bodies("c")) + encode_batch(bodies("d")), host.now)
    assert acks_of(drain_messages(session)) == [(2, 3), (3, 4)]
    assert not session.finished
    session.receive_eof(host.now)
    assert session.finished
    assert session.data_to_send() == []


def test_an_empty_session() -> None:
    session = open_session(make_host())
    session.receive_eof(EPOCH)
    assert session.finished
    assert session.data_to_send() == []


@pytest.mark.parametrize("compression", Compression)
def test_compressed_batches(compression: Compression) -> None:
    host = make_host()
    session = open_session(host, **{"accept-encoding": compression.accept_encoding})
    session.receive_data(encode_batch([Record(bytes(5000))], compression=compression), host.now)
    assert acks_of(drain_messages(session)) == [(0, 1)]


@given(cuts=st.lists(st.integers(0, 400), max_size=12))
def test_batches_may_arrive_cut_anywhere(cuts: list[int]) -> None:
    host = make_host()
    session = open_session(host)
    data = b"".join(encode_batch([Record(b"x" * size)]) for size in (0, 7, 200, 80))
    places = [0, *sorted(cuts), len(data)]
    for start, end in pairwise(places):
        session.receive_data(data[start:end], host.now)
    session.receive_eof(host.now)
    assert acks_of(drain_messages(session)) == [(0, 1), (1, 2), (2, 3), (3, 4)]


@pytest.mark.parametrize(
    ("bad", "status", "code"),
    [
        (encode_batch([]), 422, "invalid"),
        (encode_batch([Record(b"", ((b"", b"stop"),))]), 422, "invalid"),
        (encode_batch([Record()], fencing_token="t" * 37), 422, "invalid"),
        (encode_batch([Record()], match_seq_num=0), 412, None),
        (encode_batch([Record()], fencing_token="other"), 412, None),
        (encode_terminal(500, b"{}"), 400, "bad_frame"),
        (b"\x00\x00\x00", 400, "bad_frame"),
        (b"\xff\xff\xff\x00", 400, "bad_frame"),
        (b"\x00\x00\x02\x00\xff", 400, "bad_frame"),
        (b"\x00\x00\x02\x60x", 400, "bad_frame"),
        (b"\x00\x00\x02\x40x", 400, "bad_frame"),
        (b"\x00\x00\x02\x20x", 400, "bad_frame"),
    ],
    ids=range(12),
)
def test_a_failure_ends_the_session_after_all_acks(
    bad: bytes, status: int, code: str | None
) -> None:
    host = make_host()
    session = open_session(host)
    good = encode_batch(bodies("a"))
    session.receive_data(good + good + bad + b"\x00" + good, host.now)
    session.receive_data(good, host.now)
    session.receive_eof(host.now)
    found = drain_messages(session)
    assert acks_of(found) == [(0, 1), (1, 2)]
    error = error_of(found)
    assert (error.status, error.code) == (status, code)
    assert session.finished
    assert tail_of(host) == 2


def test_a_body_that_ends_inside_a_message() -> None:
    host = make_host()
    session = open_session(host)
    session.receive_data(encode_batch(bodies("a")) + encode_batch(bodies("b"))[:-1], host.now)
    session.receive_eof(host.now)
    found = drain_messages(session)
    assert acks_of(found) == [(0, 1)]
    assert error_of(found).code == "bad_frame"
    assert session.finished
    assert tail_of(host) == 1


def test_reserved_flag_bits_are_ignored() -> None:
    host = make_host()
    session = open_session(host)
    batch = bytearray(encode_batch(bodies("a")))
    batch[3] |= 0x1F
    session.receive_data(bytes(batch), host.now)
    assert acks_of(drain_messages(session)) == [(0, 1)]


def test_a_client_that_is_gone_has_appended_what_was_whole() -> None:
    host = make_host()
    session = open_session(host)
    session.receive_data(encode_batch(bodies("a")) + encode_batch(bodies("b"))[:-1], host.now)
    session.connection_lost(host.now)
    session.receive_data(encode_batch(bodies("b"))[-1:], host.now)
    session.receive_eof(host.now)
    assert (session.data_to_send(), session.finished) == ([], True)
    assert tail_of(host) == 1


def test_sessions_of_several_writers_interleave() -> None:
    host = make_host()
    one, other = open_session(host), open_session(host)
    one.receive_data(encode_batch(bodies("a", "b")), host.now)
    other.receive_data(encode_batch(bodies("c"), match_seq_num=2), host.now)
    one.receive_data(encode_batch(bodies("d"), match_seq_num=2), host.now)
    assert acks_of(drain_messages(other)) == [(2, 3)]
    found = drain_messages(one)
    assert acks_of(found) == [(0, 2)]
    assert str(error_of(found)).startswith("match_seq_num does not hold: the next")
    assert not other.finished


def test_a_session_to_a_deleted_stream_ends() -> None:
    host = make_host()
    session = open_session(host)
    assert host.send("DELETE", "/v1/streams/room%2F1").status == 202
    assert host.send("PUT", "/v1/streams/room%2F1").status == 201
    session.receive_data(encode_batch(bodies("a")), host.now)
    assert error_of(drain_messages(session)).code == "stream_not_found"
    assert tail_of(host) == 0


def test_without_zstd_a_message_in_it_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    host = make_host()
    session = open_session(host)
    data = encode_batch([Record(bytes(5000))], compression=Compression.ZSTD)
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    session.receive_data(data, host.now)
    assert error_of(drain_messages(session)).code == "bad_frame"


@given(data=st.binary(max_size=300), cut=st.integers(0, 300))
def test_any_bytes_are_answered(data: bytes, cut: int) -> None:
    session = open_session(make_host())
    session.receive_data(data[:cut], EPOCH)
    session.receive_data(data[cut:], EPOCH)
    session.receive_eof(EPOCH)
    assert session.finished is (not data)
    found = messages_in(b"".join(session.data_to_send()))
    if found and isinstance(found[-1], Terminal):
        assert found[-1].status in (400, 412, 422)
        assert json.loads(found[-1].body)
    assert session.finished
