"""Conditions of appends: the next sequence number, and the fencing token."""

from __future__ import annotations

import json
from typing import Any

import pytest

from real_server.places import every_transport
from real_server.streams import Stream
from s2_bodies import bodies, encode_batch, messages_in
from s2frames.records import Record, fence, trim
from s2frames.s2s import Message, Terminal
from s2frames.wire import decode_append_ack

U64_MAX = 2**64 - 1

# On a stream whose token is "token" and whose next sequence number is 1.
CONDITIONS = [
    (None, None, None),
    (1, None, None),
    (None, "token", None),
    (1, "token", None),
    (0, None, {"seq_num_mismatch": 1}),
    (2, None, {"seq_num_mismatch": 1}),
    (U64_MAX, None, {"seq_num_mismatch": 1}),
    (9, "token", {"seq_num_mismatch": 1}),
    (None, "", {"fencing_token_mismatch": "token"}),
    (None, "other", {"fencing_token_mismatch": "token"}),
    (1, "other", {"fencing_token_mismatch": "token"}),
    # The token is looked at first. So this asks for it, and never appends.
    (9, "other", {"fencing_token_mismatch": "token"}),
    (U64_MAX, "!", {"fencing_token_mismatch": "token"}),
]


@every_transport
@pytest.mark.parametrize(("match", "token", "error"), CONDITIONS)
def test_conditions_of_one_batch(
    stream: Stream, match: int | None, token: str | None, error: dict[str, Any] | None
) -> None:
    stream.append_ok(fence("token"))
    reply = stream.append(bodies("a", "b"), match, token)
    if error is None:
        assert reply.status == 200
        assert stream.tail() == 3
    else:
        assert (reply.status, reply.json) == (412, error)
        assert reply.headers["content-type"] == "application/json"
        assert stream.tail() == 1


@every_transport
@pytest.mark.parametrize(("match", "token", "error"), CONDITIONS)
def test_conditions_in_a_session(
    stream: Stream, match: int | None, token: str | None, error: dict[str, Any] | None
) -> None:
    session = encode_batch([fence("token")]) + encode_batch([Record()], match, token)
    # What follows a failed batch is dropped.
    reply = stream.append_session(session + encode_batch([Record()]))
    assert reply.status == 200
    first, *rest = messages_in(reply.body)
    assert isinstance(first, Message)
    if error is None:
        assert [decode_append_ack(message.body).end.seq_num for message in rest] == [2, 3]
    else:
        (last,) = rest
        assert isinstance(last, Terminal)
        assert (last.status, json.loads(last.body)) == (412, error)
        assert stream.tail() == 1


def test_conditions_in_json(stream: Stream) -> None:
    right = {"records": [{}], "match_seq_num": 0, "fencing_token": ""}
    assert stream.append_json(right).status == 200
    assert stream.append_json(right).json == {"seq_num_mismatch": 1}
    wrong = {"records": [{}], "match_seq_num": U64_MAX, "fencing_token": "\u00e9"}
    reply = stream.append_json(wrong)
    assert (reply.status, reply.json) == (412, {"fencing_token_mismatch": ""})


def test_a_null_is_no_condition(stream: Stream) -> None:
    value: Any = {"records": [{}], "match_seq_num": None, "fencing_token": None}
    assert stream.append_json(value).status == 200


def test_a_token_counts_from_the_next_batch_on(stream: Stream) -> None:
    # Its own batch is held to the token before.
    assert stream.append([fence("one")], fencing_token="one").json == {"fencing_token_mismatch": ""}
    assert stream.append([fence("one"), fence("two")], fencing_token="").status == 200
    assert stream.append([Record()], fencing_token="one").json == {"fencing_token_mismatch": "two"}
    assert stream.append([fence("")], fencing_token="two").status == 200
    assert stream.append([Record()], fencing_token="").status == 200


def test_a_token_of_any_text(stream: Stream) -> None:
    token = '\u20ac\U0001f600 "\\ \n'
    stream.append_ok(fence(token))
    assert stream.append([Record()], fencing_token="no").json == {"fencing_token_mismatch": token}
    assert stream.append([Record()], fencing_token=token).status == 200


def test_a_trim_to_zero_is_a_barrier(stream: Stream) -> None:
    stream.append_ok(*bodies("a"))
    assert stream.append([trim(0)], match_seq_num=1).status == 200
    assert stream.append(bodies("b"), match_seq_num=1).json == {"seq_num_mismatch": 2}
    assert stream.bodies()[0] == b"a"


def test_the_number_of_a_burst_whose_numbers_follow_each_other(stream: Stream) -> None:
    burst = b"".join(encode_batch(bodies("a", "b"), 2 * i, "") for i in range(50))
    acks = [decode_append_ack(m.body) for m in messages_in(stream.append_session(burst).body)]
    assert [ack.start.seq_num for ack in acks] == list(range(0, 100, 2))
    again = messages_in(stream.append_session(burst).body)
    (error,) = again
    assert isinstance(error, Terminal)
    assert json.loads(error.body) == {"seq_num_mismatch": 100}
