from __future__ import annotations

from typing import get_args

import pytest

from frames import make_ack
from s2frames.errors import (
    FencingTokenMismatch,
    LocalProtocolError,
    RangeNotSatisfiable,
    RemoteProtocolError,
    S2FramesError,
    SeqNumMismatch,
    ServiceError,
    TransportError,
)
from s2frames.http import Request
from s2frames.records import StreamPosition
from s2frames.s2s import Message, encode_message, encode_terminal
from s2frames.session import (
    PROTOBUF_CONTENT_TYPE,
    SESSION_CONTENT_TYPE,
    Action,
    Answer,
    CloseRequest,
    EndData,
    OpenRequest,
    Response,
    SendData,
    SessionEnded,
    is_definite,
)
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
    with pytest.raises(RemoteProtocolError, match="inside a message"):
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


# Certainty

# Every code of the service, its status, and whether it is known to have had no effect.
CODES: list[tuple[int, str, bool]] = [
    (400, "bad_frame", True),
    (400, "bad_header", True),
    (400, "bad_json", True),
    (400, "bad_path", True),
    (400, "bad_proto", True),
    (400, "bad_query", True),
    (400, "decryption_failed", True),
    (401, "authn", True),
    (403, "permission_denied", True),
    (403, "quota_exhausted", True),
    (404, "access_token_not_found", True),
    (404, "basin_not_found", True),
    (404, "stream_not_found", True),
    (408, "request_timeout", False),
    (409, "basin_deletion_pending", True),
    (409, "resource_already_exists", True),
    (409, "stream_deletion_pending", True),
    (409, "transaction_conflict", True),
    (422, "invalid", True),
    (429, "rate_limited", True),
    (499, "client_hangup", False),
    (500, "other", False),
    (500, "storage", False),
    (501, "not_implemented", False),
    (502, "hot_server", True),
    (503, "server_draining", True),
    (503, "unavailable", False),
    (504, "upstream_timeout", False),
]


@pytest.mark.parametrize(("status", "code", "definite"), CODES)
def test_which_errors_are_definite(status: int, code: str, definite: bool) -> None:
    assert is_definite(ServiceError(status, code, "no")) is definite


@pytest.mark.parametrize(
    ("error", "definite"),
    [
        (SeqNumMismatch(3), True),
        (FencingTokenMismatch("t"), True),
        (RangeNotSatisfiable(StreamPosition(1, 2)), True),
        (TransportError("lost"), False),
        (RemoteProtocolError("garbage"), False),
        (LocalProtocolError("aborted"), False),
        # Not an error in HTTP, and not S2's words.
        (ServiceError(200, None, ""), False),
        (ServiceError(204, None, ""), False),
        (ServiceError(302, None, ""), False),
        (ServiceError(0, None, ""), False),
        (ServiceError(502, None, "<html>"), False),
        (ServiceError(503, None, "<html>"), False),
        (ServiceError(599, "something_new", ""), False),
        (ServiceError(413, None, "<html>"), True),
    ],
)
def test_which_other_errors_are_definite(error: S2FramesError, definite: bool) -> None:
    assert is_definite(error) is definite
