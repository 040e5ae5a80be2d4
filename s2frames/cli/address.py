"""Addresses of streams, as users write them: s2://BASIN/STREAM."""

from __future__ import annotations

import click
from attrs import field, frozen

from s2frames.errors import LocalProtocolError
from s2frames.records import check_basin_name, check_stream_name

__all__ = ["FORM", "StreamAddress", "stream_address"]

#: What an address looks like.
FORM = "s2://BASIN/STREAM"

_SCHEME = "s2://"


@frozen
class StreamAddress:
    """A stream of a basin. Slashes after the first belong to the stream's name."""

    basin: str = field(converter=check_basin_name)
    stream: str = field(converter=check_stream_name)

    @classmethod
    def parse(cls, text: str) -> StreamAddress:
        """The address in `text`. Raises `LocalProtocolError` when it is none.

        Nothing is unescaped: a stream's name may hold every character, also `%`, `?` and `#`.
        """
        basin, slash, stream = text.removeprefix(_SCHEME).partition("/")
        if not (text.startswith(_SCHEME) and basin and slash and stream):
            raise LocalProtocolError(f"{text!r} is not of the form {FORM}")
        return cls(basin, stream)

    def __str__(self) -> str:
        return f"{_SCHEME}{self.basin}/{self.stream}"


def stream_address(text: str) -> StreamAddress:
    """The address that an argument names; the `type` of such arguments."""
    try:
        return StreamAddress.parse(text)
    except LocalProtocolError as error:
        raise click.UsageError(str(error)) from error
