from __future__ import annotations

import enum
from inspect import signature
from typing import get_args

import pytest

from frames import make_ack
from s2frames.append import AppendProtocol
from s2frames.errors import (
    RangeNotSatisfiable,
    RemoteProtocolError,
    SeqNumMismatch,
    ServiceError,
    TransportError,
)
from s2frames.http import Request
from s2frames.operation import Operation
from s2frames.read import ReadProtocol
from s2frames.records import StreamPosition
from s2frames.s2s import Message, encode_message, encode_terminal
from s2frames.session import (
    Action,
    Answer,
    CloseRequest,
    EndData,
    Machine,
    OpenRequest,
    Response,
    SendData,
    SessionEnded,
    transition,
)
from s2frames.target import PROTOBUF_CONTENT_TYPE, SESSION_CONTENT_TYPE
from s2frames.wire import encode_append_ack

ACK = encode_append_ack(make_ack(0, 1))


def answered(status: int, content_type: str | None, wanted: str = SESSION_CONTENT_TYPE) -> Response:
    response = Response(wanted)
    headers = {} if content_type is None else {"content-type": content_type}
    response.receive_head(status, headers)
    return response


# Values


def test_actions_are_a_closed_union() -> None:
    assert set(get_args(Action)) == {OpenRequest, SendData, EndData, CloseRequest}


def test_actions_show_neither_secrets_nor_data() -> None:
    request = Request("GET", "http://h", {"authorization": "Bearer hunter2"}, b"hunter3")
    shown = repr([OpenRequest(1, request), SendData(1, [b"hunter4", b"5"]), EndData(1)])
    assert "hunter" not in shown
    assert "<8 bytes>" in shown


def test_a_request_may_use_any_connection_unless_it_is_said() -> None:
    assert not OpenRequest(1, Request("GET", "http://h", {})).on_new_connection


def test_how_a_session_ended_is_a_value() -> None:
    error = TransportError("gone")
    assert SessionEnded(error) == SessionEnded(error)
    assert SessionEnded(error) != SessionEnded(None)


# Answers


@pytest.mark.parametrize(
    ("status", "wanted", "kind"),
    [
        (200, SESSION_CONTENT_TYPE, Answer.SESSION),
        (200, PROTOBUF_CONTENT_TYPE, Answer.WHOLE),
        (404, SESSION_CONTENT_TYPE, Answer.ERROR),
        (500, PROTOBUF_CONTENT_TYPE, Answer.ERROR),
        # Only 200 is an answer: these come from something else on the way.
        (201, SESSION_CONTENT_TYPE, Answer.ERROR),
        (204, PROTOBUF_CONTENT_TYPE, Answer.ERROR),
        (302, SESSION_CONTENT_TYPE, Answer.ERROR),
    ],
)
def test_what_an_answer_is(status: int, wanted: str, kind: Answer) -> None:
    assert Response(wanted).kind is Answer.UNKNOWN
    assert answered(status, wanted, wanted).kind is kind


@pytest.mark.parametrize(
    "content_type",
    [
        "s2s/proto",
        "S2S/PROTO",
        " s2s/proto ",
        "s2s/proto;charset=utf-8",
        "s2s/proto ; v=1",
        None,
    ],
)
def test_content_types_that_are_right(content_type: str | None) -> None:
    assert answered(200, content_type).kind is Answer.SESSION


@pytest.mark.parametrize(
    "content_type", ["", "text/html", "s2s/proto2", "application/protobuf", "x;s2s/proto", ";"]
)
def test_content_types_that_are_wrong(content_type: str) -> None:
    with pytest.raises(RemoteProtocolError, match="s2s/proto: is the endpoint S2's"):
        answered(200, content_type)


def test_the_type_of_an_error_does_not_matter() -> None:
    assert answered(502, "text/html").kind is Answer.ERROR


def test_messages_of_a_session() -> None:
    response = answered(200, SESSION_CONTENT_TYPE)
    data = b"".join(encode_message(b"one") + encode_message(b"two"))
    found = []
    for at in range(len(data)):
        response.receive_data(data[at : at + 1])
        found.append(response.next_message())
    assert [message for message in found if message] == [Message(b"one"), Message(b"two")]
    assert found[-1] == Message(b"two")
    response.receive_eof()


def test_a_session_that_ends_inside_a_message() -> None:
    response = answered(200, SESSION_CONTENT_TYPE)
    response.receive_data(b"\0\0")
    with pytest.raises(TransportError, match="inside a message"):
        response.receive_eof()


def test_a_terminal_message_is_raised_in_its_turn() -> None:
    response = answered(200, SESSION_CONTENT_TYPE)
    response.receive_data(b"".join(encode_message(b"one")))
    response.receive_data(encode_terminal(412, b'{"seq_num_mismatch":3}'))
    assert response.next_message() == Message(b"one")
    with pytest.raises(SeqNumMismatch) as caught:
        response.next_message()
    assert caught.value.expected == 3


def test_a_whole_answer() -> None:
    response = answered(200, PROTOBUF_CONTENT_TYPE, PROTOBUF_CONTENT_TYPE)
    for at in range(len(ACK)):
        response.receive_data(ACK[at : at + 1])
    response.receive_eof()
    assert response.whole_body() == ACK


@pytest.mark.parametrize("step", [1, 1000, 65_535, 65_536, 65_537, 200_000])
def test_what_is_kept_of_an_answer_is_bounded(step: int) -> None:
    response = answered(500, None)
    body = bytes(range(256)) * 1024
    for at in range(0, len(body), step):
        response.receive_data(body[at : at + step])
    assert response.whole_body() == body[: 64 * 1024]


def test_the_body_of_an_error_is_raised_at_its_end() -> None:
    response = answered(416, "application/json")
    for piece in (b'{"tail":{"seq', b'_num":4,"timestamp":5}}'):
        response.receive_data(piece)
    with pytest.raises(RangeNotSatisfiable) as caught:
        response.receive_eof()
    assert caught.value.tail == StreamPosition(4, 5)


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"\xff", b"<html>", b'{"code":1}', b"{" * 9999]
)
@pytest.mark.parametrize("status", [204, 302, 400, 412, 416, 502])
def test_an_error_in_other_words(status: int, body: bytes) -> None:
    response = answered(status, None)
    response.receive_data(body)
    with pytest.raises(ServiceError) as caught:
        response.receive_eof()
    assert type(caught.value) is ServiceError
    assert (caught.value.status, caught.value.code) == (status, None)


def test_the_headers_of_an_error_count() -> None:
    response = Response(SESSION_CONTENT_TYPE)
    response.receive_head(429, {"retry-after-ms": "1500"})
    with pytest.raises(ServiceError) as caught:
        response.receive_eof()
    assert caught.value.retry_after == 1.5


def test_why_an_attempt_failed_whose_answer_broke() -> None:
    lost = TransportError("reset")
    garbled = RemoteProtocolError("no chunk")
    for response in (Response(SESSION_CONTENT_TYPE), answered(200, SESSION_CONTENT_TYPE)):
        assert response.why_failed(lost) is lost
    for error in (lost, garbled):
        told = answered(403, None).why_failed(error)
        assert isinstance(told, ServiceError)
        assert (told.status, told.is_incomplete, told.__cause__) == (403, True, error)
    theirs = ServiceError(500, "storage", "no")
    assert answered(403, None).why_failed(theirs) is theirs


def test_what_had_come_of_the_body_counts() -> None:
    response = answered(412, None)
    assert type(response.why_failed(TransportError("reset"))) is ServiceError
    response.receive_data(b'{"seq_num_mismatch":7}')
    assert isinstance(response.why_failed(TransportError("reset")), SeqNumMismatch)


# States


class Light(enum.Enum):
    RED = enum.auto()
    GREEN = enum.auto()


class Push(enum.Enum):
    BUTTON = enum.auto()
    CAR = enum.auto()


def test_a_transition() -> None:
    table = {(Light.RED, Push.BUTTON): Light.GREEN}
    assert transition(table, Light.RED, Push.BUTTON) is Light.GREEN
    with pytest.raises(RemoteProtocolError, match=r"CAR cannot happen .* RED") as caught:
        transition(table, Light.RED, Push.CAR)
    assert caught.value.__suppress_context__
    with pytest.raises(RemoteProtocolError, match=r"BUTTON cannot happen .* GREEN"):
        transition(table, Light.GREEN, Push.BUTTON)


@pytest.mark.parametrize("machine", [AppendProtocol, ReadProtocol, Operation])
def test_every_machine_is_driven_alike(machine: type[object]) -> None:
    methods = {name for name in vars(Machine) if not name.startswith("_")}
    assert methods >= {"data_to_send", "next_timeout", "handle_timeout", "connection_lost"}
    for name in methods:
        promised = signature(vars(Machine)[name])
        assert signature(vars(machine)[name]).parameters == promised.parameters
