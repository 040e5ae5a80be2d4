from __future__ import annotations

import gzip

import pytest

from embedded.host import EPOCH, finish
from s2frames.compression import Compression, compress
from s2frames.embedded.error_bodies import service_error
from s2frames.embedded.exchange import (
    MAX_BODY_BYTES,
    BodyExchange,
    Response,
    answer,
    error_response,
    json_response,
)
from s2frames.embedded.json_values import JsonError
from s2frames.embedded.request import RequestHead
from s2frames.errors import RemoteProtocolError, S2FramesError, ServiceError


def head(**headers: str) -> RequestHead:
    return RequestHead.parse(
        "POST", "/", {name.replace("_", "-"): value for name, value in headers.items()}
    )


def echo(body: bytes, now: float) -> Response:
    return Response(200, b"%d bytes at %d" % (len(body), now))


def no_output() -> None:
    raise AssertionError("nobody else gives this exchange output")


def open_body(request: RequestHead | None = None) -> BodyExchange:
    return BodyExchange(request or head(), echo, "bad_json", EPOCH, no_output)


def test_the_answer_comes_when_the_body_is_whole() -> None:
    exchange = open_body()
    for data in (b"abc", b"", b"de"):
        exchange.receive_data(data, EPOCH)
        assert (exchange.response, exchange.data_to_send(), exchange.finished) == (None, [], False)
    exchange.receive_eof(EPOCH + 7)
    reply = finish(exchange)
    assert reply.body == b"5 bytes at 1000007"
    assert reply.headers == {"content-length": "18"}
    exchange.receive_eof(EPOCH)
    exchange.receive_data(b"late", EPOCH)
    assert exchange.data_to_send() == []


def test_a_response_is_finished_when_it_was_taken() -> None:
    exchange = answer(Response(200, b"body"), None, EPOCH)
    assert not exchange.finished
    assert exchange.data_to_send() == [b"body"]
    assert exchange.finished
    assert answer(Response(202), None, EPOCH).finished


def test_a_lost_connection_ends_the_exchange() -> None:
    exchange = open_body()
    exchange.receive_data(b"abc", EPOCH)
    exchange.connection_lost(EPOCH)
    exchange.receive_eof(EPOCH)
    assert (exchange.response, exchange.data_to_send(), exchange.finished) == (None, [], True)


def test_exchanges_that_do_not_wait_have_no_timeout() -> None:
    exchange = open_body()
    assert exchange.next_timeout() is None
    exchange.handle_timeout(EPOCH + 100)
    assert exchange.response is None


def test_a_body_that_is_too_long_is_answered_at_once() -> None:
    exchange = open_body()
    exchange.receive_data(bytes(MAX_BODY_BYTES), EPOCH)
    assert exchange.response is None
    exchange.receive_data(b"x", EPOCH)
    reply = finish(exchange)
    assert reply.error == (400, "bad_json")
    exchange.receive_data(bytes(MAX_BODY_BYTES), EPOCH)
    exchange.receive_eof(EPOCH)
    assert exchange.data_to_send() == []


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_compressed_bodies(compression: Compression) -> None:
    for size, expected in ((1000, 200), (MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 400)):
        exchange = open_body(head(content_encoding=compression.accept_encoding))
        exchange.receive_data(compress(bytes(size), compression), EPOCH)
        exchange.receive_eof(EPOCH)
        reply = finish(exchange)
        assert reply.status == expected
        if expected == 200:
            assert reply.body.startswith(b"%d bytes" % size)


def test_a_body_that_is_not_compressed_as_it_says() -> None:
    exchange = open_body(head(content_encoding="gzip"))
    exchange.receive_data(b"hello", EPOCH)
    exchange.receive_eof(EPOCH)
    assert finish(exchange).error == (400, "bad_json")


@pytest.mark.parametrize("coding", ["br", "GZIP", "gzip, gzip", "", "x" * 1000])
def test_unknown_compression_is_refused_at_once(coding: str) -> None:
    with pytest.raises(ServiceError) as raised:
        open_body(head(content_encoding=coding))
    assert raised.value.status == 415


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RemoteProtocolError("why"), (400, "bad_proto")),
        (JsonError("why"), (400, "bad_proto")),
        (service_error("invalid", "why"), (422, "invalid")),
    ],
)
def test_errors_of_the_handler_are_answers(error: S2FramesError, expected: tuple[int, str]) -> None:
    def fail(_body: bytes, _now: float) -> Response:
        raise error

    exchange = BodyExchange(head(), fail, "bad_proto", EPOCH, no_output)
    exchange.receive_eof(EPOCH)
    reply = finish(exchange)
    assert reply.error == expected
    assert reply.json["message"] == "why"
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("size", "accept_encoding", "is_compressed"),
    [(1023, "gzip", False), (1024, "gzip", True), (5000, "br", False), (5000, "", False)],
)
def test_large_responses_are_compressed(
    size: int, accept_encoding: str, is_compressed: bool
) -> None:
    response = Response(200, bytes(size), {"content-type": "x/y"})
    reply = finish(answer(response, head(accept_encoding=accept_encoding), EPOCH))
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["content-type"] == "x/y"
    if is_compressed:
        assert reply.headers["content-encoding"] == "gzip"
        assert reply.headers["vary"] == "accept-encoding"
        assert gzip.decompress(reply.body) == bytes(size)
    else:
        assert reply.body == bytes(size)
        assert "content-encoding" not in reply.headers


def test_json_and_error_responses() -> None:
    response = json_response({"a": "\u00e9"}, 201, {"x-more": "1"})
    assert response == Response(
        201, '{"a":"\u00e9"}'.encode(), {"content-type": "application/json", "x-more": "1"}
    )
    error = error_response(service_error("bad_query", "why"))
    assert (error.status, error.body) == (400, b'{"code":"bad_query","message":"why"}')
