"""Cutting a payload into pieces that fit records."""

from __future__ import annotations

from s2frames.checks import check_int
from s2frames.errors import LocalProtocolError
from s2frames.records import MAX_RECORD_BYTES

__all__ = ["MAX_CHUNK_BODY_BYTES", "chunk_bytes"]

# Metered overhead of a first record: 8 for the record, 2 for each of its four headers, and their
# names and values: _frame_records, _frame_bytes, _dedupe_seq (8 each), _writer_id (12).
_FIRST_RECORD_OVERHEAD = 8 + 4 * 2 + (14 + 8) + (12 + 8) + (11 + 8) + (10 + 12)

#: Body bytes that fit a first record beside the four reserved headers and a writer id of 12
#: characters: 1,048,477. It is the chunk size of the npm package, and the default one here.
MAX_CHUNK_BODY_BYTES = MAX_RECORD_BYTES - _FIRST_RECORD_OVERHEAD


def chunk_bytes(
    data: bytes | bytearray | memoryview, max_chunk_size: int = MAX_CHUNK_BODY_BYTES
) -> list[memoryview]:
    """Cut `data` into views of at most `max_chunk_size` bytes, without copying it.

    Empty `data` gives no chunk. Raises `LocalProtocolError` for a chunk size below 1, for what is
    no bytes, and for a view with gaps.
    """
    check_int("max_chunk_size", max_chunk_size, 1)
    try:
        whole = memoryview(data)
    except TypeError:
        raise LocalProtocolError(
            f"data is bytes, bytearray or memoryview, not {type(data).__name__}"
        ) from None
    if not whole.c_contiguous:
        raise LocalProtocolError("the data must lie in one piece of memory")
    view = whole.cast("B")
    return [view[at : at + max_chunk_size] for at in range(0, len(view), max_chunk_size)]
