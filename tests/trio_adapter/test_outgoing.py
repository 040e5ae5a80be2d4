from __future__ import annotations

from array import array

import h2.config
import h2.connection
import h2.events
import pytest
from h2.settings import SettingCodes
from hypothesis import given
from hypothesis import strategies as st

from s2frames.writes import MAX_WRITE_BYTES
from s2frames_trio.frame_buffer import FrameBuffer
from s2frames_trio.h2_setup import make_h2
from s2frames_trio.outgoing import Outgoing, Upload
from trio_adapter.peers import HEADERS


def make_pair(
    window: int, frame_size: int = 16_384
) -> tuple[h2.connection.H2Connection, h2.connection.H2Connection]:
    """A client, set up as here, and a server that allows so much."""
    client = make_h2(FrameBuffer())
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    server.update_settings(
        {SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.MAX_FRAME_SIZE: frame_size}
    )
    server.increment_flow_control_window(2**30)
    pass_on(server, client)
    pass_on(client, server)
    pass_on(server, client)
    return client, server


def pass_on(
    source: h2.connection.H2Connection, target: h2.connection.H2Connection
) -> list[h2.events.Event]:
    return receive(target, source.data_to_send())


def receive(target: h2.connection.H2Connection, data: bytes) -> list[h2.events.Event]:
    buffer = target.incoming_buffer
    if not isinstance(buffer, FrameBuffer):
        return target.receive_data(data)
    buffer.max_frame_size = target.max_inbound_frame_size
    buffer.add_data(data)
    events = []
    while buffer.cut() is not None:
        events += target.receive_data(b"")
    return events


def bodies_in(events: list[h2.events.Event]) -> dict[int, bytes]:
    bodies: dict[int, bytes] = {}
    for event in events:
        if isinstance(event, h2.events.DataReceived):
            bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
    return bodies


@given(
    buffers=st.lists(st.binary(max_size=50_000), max_size=6),
    window=st.integers(0, 100_000),
    frame_size=st.sampled_from([16_384, 20_001, 100_000]),
)
def test_h2_agrees_with_every_frame(buffers: list[bytes], window: int, frame_size: int) -> None:
    client, server = make_pair(window, frame_size)
    client.send_headers(1, HEADERS)
    pass_on(client, server)
    outgoing = Outgoing(client)
    upload = Upload.of(1, buffers)
    outgoing.add(upload)
    body, received, is_complete = b"".join(buffers), b"", False
    while not is_complete:
        frames, complete = outgoing.cut(MAX_WRITE_BYTES)
        is_complete = bool(complete)
        # The server checks sizes and windows.
        events = receive(server, b"".join(frames))
        received += bodies_in(events).get(1, b"")
        assert body.startswith(received)
        assert client.local_flow_control_window(1) == server.remote_flow_control_window(1)
        server.increment_flow_control_window(7_000, 1)
        pass_on(server, client)
    assert received == body
    assert complete == [upload]
    assert not upload.is_settled


def test_the_end_comes_after_the_body() -> None:
    client, server = make_pair(1000)
    client.send_headers(1, HEADERS)
    pass_on(client, server)
    outgoing = Outgoing(client)
    outgoing.add(Upload.of(1, [b"abc"]))
    outgoing.add(Upload(1, ends_stream=True))
    frames, complete = outgoing.cut(MAX_WRITE_BYTES)
    kinds = [type(event) for event in receive(server, b"".join(frames))]
    assert kinds == [h2.events.DataReceived, h2.events.DataReceived, h2.events.StreamEnded]
    assert len(complete) == 2
    assert not outgoing.is_waiting


def test_one_write_is_bounded_and_shared() -> None:
    client, server = make_pair(2**20)
    outgoing = Outgoing(client)
    for number in (1, 3, 5):
        client.send_headers(number, HEADERS)
        outgoing.add(Upload.of(number, [bytes(2**20)]))
    pass_on(client, server)
    frames, complete = outgoing.cut(MAX_WRITE_BYTES)
    sizes = {n: len(body) for n, body in bodies_in(receive(server, b"".join(frames))).items()}
    assert sum(sizes.values()) == MAX_WRITE_BYTES
    assert set(sizes) == {1, 3, 5}
    assert complete == []


def test_a_blocked_stream_lets_the_others_pass() -> None:
    client, server = make_pair(10)
    outgoing = Outgoing(client)
    uploads = []
    for number, size in ((1, 11), (3, 10), (5, 0)):
        client.send_headers(number, HEADERS)
        uploads.append(Upload.of(number, [bytes(size)]))
        outgoing.add(uploads[-1])
    pass_on(client, server)
    frames, complete = outgoing.cut(MAX_WRITE_BYTES)
    assert complete == uploads[1:]
    receive(server, b"".join(frames))
    assert outgoing.cut(MAX_WRITE_BYTES) == ([], [])
    assert outgoing.is_waiting
    outgoing.drop(7)
    assert not uploads[0].is_settled
    outgoing.drop(1)
    assert uploads[0].is_settled
    assert not uploads[0].is_sent
    assert not outgoing.is_waiting


def test_what_was_said_first_of_an_upload_holds() -> None:
    told: list[bool] = []
    upload = Upload(1, on_settled=told.append)
    upload.settle(is_sent=True)
    upload.settle(is_sent=False)
    assert upload.is_sent
    assert told == [True]


@pytest.mark.parametrize("buffer", [b"abcd", bytearray(b"abcd"), memoryview(b"abcd")])
def test_buffers_are_bytes_of_any_kind(buffer: bytes) -> None:
    upload = Upload.of(1, [buffer, b""])
    assert upload.size == 4
    assert b"".join(upload.take(3)) == b"abc"
    assert b"".join(upload.take(1)) == b"d"


def test_a_view_counts_by_bytes() -> None:
    assert Upload.of(1, [memoryview(array("I", [1, 2]))]).size == 2 * array("I").itemsize


def test_each_upload_is_told_what_was_written_of_it() -> None:
    client, _ = make_pair(2**20)
    outgoing = Outgoing(client)
    written: dict[int, list[int]] = {}
    for number, size in ((1, 20_000), (3, 70_000), (5, 0)):
        client.send_headers(number, HEADERS)
        upload = Upload.of(number, [bytes(size)])
        upload.on_written = written.setdefault(number, []).append
        outgoing.add(upload)
    for _ in range(3):
        outgoing.cut(40_000)
        before = {number: list(sizes) for number, sizes in written.items()}
        outgoing.note_written(0.0)
        assert sum(map(sum, written.values())) > sum(map(sum, before.values()))
        outgoing.note_written(0.0)
    assert written == {1: [20_000], 3: [20_000, 0, 40_000, 10_000], 5: []}


def test_those_in_line_are_told_every_second_that_it_moves() -> None:
    client, _ = make_pair(50_000)
    outgoing = Outgoing(client)
    told: dict[int, list[int]] = {}
    # The last one's window has no room: whether it ever gets some is for its peer to say.
    for number in (1, 3, 5):
        client.send_headers(number, HEADERS)
    client.streams[5].outbound_flow_control_window = 0
    for number in (1, 3, 5):
        upload = Upload.of(number, [bytes(50_000)])
        upload.on_written = told.setdefault(number, []).append
        outgoing.add(upload)
    for now in (10.0, 10.9, 11.0, 11.5):
        outgoing.cut(1_000)
        outgoing.note_written(now)
    assert {number: sizes.count(0) for number, sizes in told.items()} == {1: 2, 3: 2, 5: 0}
