"""Servers on loopback: one that is well, and one that says anything."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import count
from random import Random

import h2.config
import h2.connection
from attrs import define, field
from h2.events import RequestReceived
from hpack import Decoder
from hyperframe.frame import DataFrame, Frame, HeadersFrame, SettingsFrame

from hostile import corpus
from hostile.http2_targets import spoilt_frames
from hostile.mutate import Mutator, split
from scripted_server import Connection, answer, chunked, content_length, head
from trio_adapter.peers import PREFACE

__all__ = ["HEALTHY_NAME", "HostileServer", "serve_http1", "serve_http2"]

#: The one basin of the server that is well.
HEALTHY_NAME = "basin-one"

_HEALTHY = corpus.JSON_ANSWERS[0]

_FRAME_HEADER_BYTES = 9


# The one that is well


def serve_http1(connection: Connection) -> None:
    """Answer every request."""
    while True:
        connection.receive_request()
        connection.send(answer("200 OK", _HEALTHY))


def serve_http2(connection: Connection) -> None:
    """Answer every request."""
    protocol = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    protocol.initiate_connection()
    protocol.receive_data(connection.receive_exactly(len(PREFACE)))
    while True:
        connection.send(protocol.data_to_send())
        for event in protocol.receive_data(_receive_frame(connection)):
            if isinstance(event, RequestReceived):
                protocol.send_headers(event.stream_id, [(":status", "200")])
                protocol.send_data(event.stream_id, _HEALTHY, end_stream=True)


def _receive_frame(connection: Connection) -> bytes:
    header = connection.receive_exactly(_FRAME_HEADER_BYTES)
    return header + connection.receive_exactly(int.from_bytes(header[:3], "big"))


# The one that says anything


@define(eq=False)
class HostileServer:
    """Scripts whose n-th connection always says the same."""

    seed: str
    _numbers: count[int] = field(factory=count)
    _lock: threading.Lock = field(factory=threading.Lock)

    def _mutator(self) -> Mutator:
        with self._lock:
            return Mutator(Random(f"{self.seed} {next(self._numbers)}"))

    def http1(self, connection: Connection) -> None:
        """One answer, often to all of a request, then mostly the end."""
        mutator = self._mutator()
        random = mutator.random
        request = connection.receive_head()
        if random.random() < 0.9:
            _receive_body(connection, request)
        for piece in split(random, _http1_answer(mutator, request)):
            connection.send(piece)
        if random.random() < 0.02:
            connection.wait_until_closed()

    def http2(self, connection: Connection) -> None:
        """Answer after answer, until either side has had enough."""
        mutator = self._mutator()
        random = mutator.random
        connection.receive_exactly(len(PREFACE))
        connection.send(mutator.maybe(SettingsFrame(0, settings={3: 100}).serialize(), 0.05))
        decoder = Decoder()
        while True:
            wire = _receive_frame(connection)
            if wire[3] != HeadersFrame.type:
                continue
            headers = decoder.decode(wire[_FRAME_HEADER_BYTES:], raw=True)
            request = {name.decode(): value.decode() for name, value in headers}
            stream_id = int.from_bytes(wire[5:9], "big")
            for piece in split(random, _http2_answer(mutator, request, stream_id)):
                connection.send(piece)
            # Where an answer lacks its end, a client waits as long as it has patience.
            if random.random() < 0.8:
                return


def _receive_body(connection: Connection, request: bytes) -> None:
    if b"transfer-encoding: chunked" not in request.lower():
        connection.skip(content_length(request))
        return
    while size := int(_receive_line(connection), 16):
        connection.skip(size + 2)
    connection.skip(2)


def _receive_line(connection: Connection) -> bytes:
    line = bytearray()
    while not line.endswith(b"\r\n"):
        line += connection.receive_exactly(1)
    return bytes(line)


def _body(mutator: Mutator, *, is_session: bool, is_read: bool) -> tuple[str, bytes]:
    """A content type and a body: mostly what is asked for, in its form at least."""
    random = mutator.random
    if random.random() < 0.1:
        is_session = not is_session
    if not is_session:
        return "application/json", mutator.maybe(random.choice(corpus.JSON_ANSWERS))
    return "s2s/proto", corpus.session(mutator, corpus.READ_BATCHES if is_read else corpus.ACKS)


def _http1_answer(mutator: Mutator, request: bytes) -> bytes:
    random = mutator.random
    is_session = b"s2s/proto" in request
    kind, body = _body(mutator, is_session=is_session, is_read=request.startswith(b"GET"))
    if random.random() < 0.25:
        status = random.choice(corpus.STATUSES)
        wire = answer(f"{status} Whatever", mutator.maybe(random.choice(corpus.ERROR_BODIES)))
    elif random.random() < 0.5:
        wire = answer("200 OK", body, kind)
    else:
        pieces = split(random, body)
        start = head("200 OK", f"content-type: {kind}", "transfer-encoding: chunked")
        wire = start + chunked(*pieces) + (b"0\r\n\r\n" if random.random() < 0.8 else b"")
    return mutator.maybe(wire, 0.3)


def _http2_answer(mutator: Mutator, request: Mapping[str, str], stream_id: int) -> bytes:
    random = mutator.random
    if random.random() < 0.3:
        return spoilt_frames(mutator, (stream_id,))
    is_session = request.get("content-type") == "s2s/proto"
    kind, body = _body(mutator, is_session=is_session, is_read=request[":method"] == "GET")
    block = corpus.header_block(status="200", content_type=kind)
    if random.random() < 0.25:
        block = corpus.header_block(status=str(random.choice(corpus.STATUSES)))
        body = mutator.maybe(random.choice(corpus.ERROR_BODIES))
    frames: list[Frame] = [HeadersFrame(stream_id, data=block, flags=["END_HEADERS"])]
    frames += [DataFrame(stream_id, data=piece) for piece in split(random, body)]
    frames.append(DataFrame(stream_id, flags=["END_STREAM"] if random.random() < 0.8 else []))
    return mutator.maybe(b"".join(frame.serialize() for frame in frames), 0.2)
