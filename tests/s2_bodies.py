"""The bodies of requests and answers, as bytes and as what is in them."""

from __future__ import annotations

from collections.abc import Sequence

from s2frames.compression import Compression
from s2frames.records import Record
from s2frames.s2s import Message, MessageDecoder, Terminal, encode_message
from s2frames.wire import AppendInput, encode_append_input, encode_conditions


def bodies(*texts: str) -> list[Record]:
    """Records with these bodies."""
    return [Record(text.encode()) for text in texts]


def encode_input(
    records: Sequence[Record], match_seq_num: int | None = None, fencing_token: str | None = None
) -> bytes:
    """An `AppendInput`, also with conditions that no client of ours would send."""
    conditions = encode_conditions(match_seq_num, fencing_token)
    return encode_append_input(AppendInput(records)) + conditions


def encode_batch(
    records: Sequence[Record],
    match_seq_num: int | None = None,
    fencing_token: str | None = None,
    compression: Compression = Compression.NONE,
) -> bytes:
    """A batch as a message of an append session."""
    body = encode_input(records, match_seq_num, fencing_token)
    return b"".join(encode_message(body, compression))


def messages_in(data: bytes) -> list[Message | Terminal]:
    """The S2S messages in `data`, which holds nothing else."""
    decoder = MessageDecoder()
    decoder.receive_data(data)
    found = []
    while (message := decoder.next_message()) is not None:
        found.append(message)
    decoder.receive_eof()
    return found
