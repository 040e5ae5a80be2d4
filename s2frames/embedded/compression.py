"""With what the service compresses its answers."""

from __future__ import annotations

from importlib.util import find_spec

from s2frames.compression import Compression

__all__ = ["choose_compression"]


def choose_compression(accept_encoding: str) -> Compression:
    """What an answer is compressed with: zstd if the client and this process know it, else gzip.

    The order and the weights in the header do not matter, save that a weight of 0 refuses.
    """
    accepted = {_accepted_coding(part) for part in accept_encoding.split(",")}
    if "zstd" in accepted and find_spec("zstandard") is not None:
        return Compression.ZSTD
    return Compression.GZIP if "gzip" in accepted else Compression.NONE


def _accepted_coding(part: str) -> str | None:
    coding, _, parameters = part.partition(";")
    weight = parameters.replace(" ", "").lower()
    is_refused = weight.startswith("q=0") and not weight[3:].strip(".0")
    return None if is_refused else coding.strip().lower()
