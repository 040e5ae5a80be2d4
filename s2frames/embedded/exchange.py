"""One HTTP request and its response, without I/O: what a host feeds and what it sends."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import field, frozen

from s2frames.compression import Compression, compress, decompress
from s2frames.embedded.compression import choose_compression
from s2frames.embedded.error_bodies import error_body, service_error
from s2frames.embedded.json_values import JsonError, dump_json
from s2frames.embedded.request import MediaType, RequestHead
from s2frames.errors import RemoteProtocolError, ServiceError
from s2frames.s2s import MIN_COMPRESSED_BYTES

__all__ = [
    "MAX_BODY_BYTES",
    "BodyExchange",
    "Exchange",
    "Response",
    "ResponseHead",
    "answer",
    "error_response",
    "json_response",
]

#: Bytes of the largest request body outside sessions, as it travels and decompressed; the limit of
#: the server's HTTP framework.
MAX_BODY_BYTES = 2 * 1024 * 1024


@frozen
class ResponseHead:
    """The head of a response."""

    status: int
    #: Names in lower case.
    headers: tuple[tuple[str, str], ...] = ()


@frozen
class Response:
    """A whole response."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(factory=dict)


def json_response(
    value: object, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with a JSON body."""
    return Response(
        status, dump_json(value), {"content-type": MediaType.JSON.value, **(headers or {})}
    )


def error_response(error: ServiceError) -> Response:
    """The response that tells of an error."""
    return Response(error.status, error_body(error), {"content-type": MediaType.JSON.value})


class Exchange:
    """One HTTP request and its response.

    A host feeds what arrives, sends what `data_to_send` gives until it gives nothing, and does so
    again after each call and each `on_output`. Time is `now`, seconds since the Unix epoch; between
    two calls it stands still, so a host that was busy sending calls `handle_timeout` first. An
    exchange that will not be finished is to be told so by `connection_lost`: followers are kept.

    This class ignores its request's body and never waits; the others override what they need.
    """

    def __init__(self, now: float, on_output: Callable[[], None]) -> None:
        #: Status and headers, once they are known.
        self.response: ResponseHead | None = None
        self._now = now
        self._on_output = on_output
        self._output: list[bytes] = []
        self._ended = False

    @property
    def finished(self) -> bool:
        """Whether the response has ended and `data_to_send` gave all of it."""
        return self._ended and not self._output

    def receive_data(self, data: bytes, now: float) -> None:
        """A piece of the request's body arrived."""

    def receive_eof(self, now: float) -> None:
        """The request's body is whole."""
        self._now = now

    def connection_lost(self, now: float) -> None:
        """The client is gone: nothing more is sent. What was received whole stays done."""
        self._now = now
        self._output.clear()
        self._ended = True

    def data_to_send(self) -> list[bytes]:
        """The next pieces of the response's body; none for now when the list is empty."""
        output, self._output = self._output, []
        return output

    def next_timeout(self) -> float | None:
        """When to call `handle_timeout`, if nothing happens before."""
        return None

    def handle_timeout(self, now: float) -> None:
        """It is `now`. May be called at any time."""
        self._now = now

    def respond(self, response: Response, accept_encoding: str) -> None:
        """Answer with a whole response. For the service, not for hosts."""
        headers = dict(response.headers)
        body = response.body
        compression = choose_compression(accept_encoding)
        if compression is not Compression.NONE and len(body) >= MIN_COMPRESSED_BYTES:
            body = compress(body, compression)
            headers |= {"content-encoding": compression.accept_encoding, "vary": "accept-encoding"}
        headers["content-length"] = str(len(body))
        self.response = ResponseHead(response.status, tuple(headers.items()))
        if body:
            self._output.append(body)
        self._ended = True


def answer(response: Response, head: RequestHead | None, now: float) -> Exchange:
    """An exchange that has its answer already. `head` is None when it could not be read."""
    exchange = Exchange(now, lambda: None)
    accept_encoding = head.headers.get("accept-encoding", "") if head else ""
    exchange.respond(response, accept_encoding)
    return exchange


class BodyExchange(Exchange):
    """An exchange whose answer needs the whole request body, of at most `MAX_BODY_BYTES`.

    `bad_body` is the error code for a body that is too long or not what it should be.
    """

    def __init__(
        self,
        head: RequestHead,
        handle: Callable[[bytes, float], Response],
        bad_body: str,
        now: float,
        on_output: Callable[[], None],
    ) -> None:
        super().__init__(now, on_output)
        self._head = head
        self._handle = handle
        self._bad_body = bad_body
        self._body = bytearray()
        self._coding = _content_coding(head)

    def receive_data(self, data: bytes, now: float) -> None:
        """A piece of the body arrived."""
        self._now = now
        if self._ended:
            return
        self._body += data
        if len(self._body) > MAX_BODY_BYTES:
            self._body.clear()
            self._answer(error_response(self._too_long()))

    def receive_eof(self, now: float) -> None:
        """The body is whole: answer."""
        self._now = now
        if self._ended:
            return
        body = bytes(self._body)
        self._body.clear()
        try:
            body = decompress(body, self._coding, MAX_BODY_BYTES)
            response = self._handle(body, now)
        except (RemoteProtocolError, JsonError) as error:
            response = error_response(service_error(self._bad_body, str(error)))
        except ServiceError as error:
            response = error_response(error)
        self._answer(response)

    def _too_long(self) -> ServiceError:
        return service_error(self._bad_body, f"the body has more than {MAX_BODY_BYTES} bytes")

    def _answer(self, response: Response) -> None:
        self.respond(response, self._head.headers.get("accept-encoding", ""))


def _content_coding(head: RequestHead) -> Compression:
    """How the body is compressed. Raises `ServiceError` 415 for what this process cannot read."""
    coding = head.headers.get("content-encoding", "identity")
    if coding == "identity":
        return Compression.NONE
    if coding in ("gzip", "zstd"):
        compression = choose_compression(coding)
        if compression is not Compression.NONE:
            return compression
    raise ServiceError(415, "bad_header", f"bodies in {coding!r} are not understood")
