"""h2's side of a connection, set up for large bodies."""

from __future__ import annotations

import h2.connection
from h2.config import H2Configuration
from h2.settings import SettingCodes, Settings

from s2frames.quiet_hpack import quieten
from s2frames_trio.frame_buffer import MAX_HEADER_BYTES, FrameBuffer
from s2frames_trio.receive_window import STREAM_WINDOW

__all__ = ["CONNECTION_WINDOW", "MAX_FRAME_BYTES", "bound_encoder", "make_h2"]

#: Bytes that the peer may have on the way, for all streams together.
CONNECTION_WINDOW = 64 * 1024 * 1024

#: Bytes of the largest frame the peer may send. A server fills them: fewer frames, less work.
MAX_FRAME_BYTES = 1024 * 1024

# The default size of what is remembered of sent headers (RFC 9113, 6.5.2); a peer may offer more.
_HEADER_TABLE_BYTES = 4096

# `Pool` and `Response.parse` check headers. h2's checks, a loop over each byte, took a sixth of the
# time of opening a stream.
_CONFIG = H2Configuration(
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
    validate_inbound_headers=False,
)


def make_h2(frames: FrameBuffer) -> h2.connection.H2Connection:
    """h2's side, with its first frames ready.

    The settings are in force from the start: as soon as it knows them, and before this side can
    know that it does, the peer uses them.
    """
    connection = h2.connection.H2Connection(_CONFIG)
    connection.local_settings = Settings(
        client=True,
        initial_values={
            SettingCodes.ENABLE_PUSH: 0,
            SettingCodes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            SettingCodes.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES,
        },
    )
    connection.max_inbound_frame_size = MAX_FRAME_BYTES
    connection.decoder.max_header_list_size = MAX_HEADER_BYTES
    quieten(connection)
    connection.incoming_buffer = frames
    connection.initiate_connection()
    # Only a WINDOW_UPDATE changes the connection's window (RFC 9113, 6.9.2).
    connection.increment_flow_control_window(
        CONNECTION_WINDOW - connection.inbound_flow_control_window
    )
    return connection


def bound_encoder(connection: h2.connection.H2Connection) -> None:
    """Remember no more of the headers that were sent than usual, whatever the peer offers.

    Nor of the sizes it has asked for since: only the next request tells it of them, and may never
    come. It has to hear of the smallest and of the last one (RFC 7541, 4.2).
    """
    encoder = connection.encoder
    if encoder.header_table_size > _HEADER_TABLE_BYTES:
        encoder.header_table_size = _HEADER_TABLE_BYTES
    sizes = encoder.table_size_changes
    if len(sizes) > 2:
        sizes[:] = [min(sizes), sizes[-1]]
