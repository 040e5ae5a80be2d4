from __future__ import annotations

from hpack import Decoder

from s2frames_trio.frame_buffer import MAX_HEADER_BYTES, FrameBuffer
from s2frames_trio.h2_setup import (
    CONNECTION_WINDOW,
    MAX_FRAME_BYTES,
    bound_encoder,
    make_h2,
)
from s2frames_trio.receive_window import STREAM_WINDOW


def test_the_settings_are_in_force_at_once() -> None:
    connection = make_h2(FrameBuffer())
    assert connection.max_inbound_frame_size == MAX_FRAME_BYTES
    assert connection.local_settings.max_frame_size == MAX_FRAME_BYTES
    assert connection.local_settings.initial_window_size == STREAM_WINDOW
    assert connection.inbound_flow_control_window == CONNECTION_WINDOW
    assert connection.decoder.max_header_list_size == MAX_HEADER_BYTES
    assert connection.data_to_send().startswith(b"PRI * HTTP/2.0")


def test_the_encoder_remembers_no_more_than_usual() -> None:
    connection = make_h2(FrameBuffer())
    for offered, used in ((100, 100), (4096, 4096), (2**31, 4096)):
        connection.encoder.header_table_size = offered
        bound_encoder(connection)
        assert connection.encoder.header_table_size == used


def test_sizes_that_change_without_end_are_not_kept() -> None:
    connection = make_h2(FrameBuffer())
    encoder, theirs = connection.encoder, Decoder()
    for offered in (4096, 2**20, 100, 4096, 2000) * 100:
        encoder.header_table_size = offered
        bound_encoder(connection)
        assert len(encoder.table_size_changes) <= 2
    assert encoder.table_size_changes == [100, 2000]
    # The peer, which has been told of both, reads what follows.
    theirs.decode(encoder.encode([("x-a", "1")]))
    assert theirs.header_table_size == 2000
    assert dict(theirs.decode(encoder.encode([("x-a", "1")]), raw=True)) == {b"x-a": b"1"}
