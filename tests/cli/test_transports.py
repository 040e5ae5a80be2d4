from __future__ import annotations

from itertools import chain, pairwise

import pytest

from cli.shell import ADDRESS, opened_stream
from cli.test_serve import served
from s2frames.cli.address import StreamAddress
from s2frames.cli.transports import TRANSPORTS
from s2frames.errors import ServiceError
from s2frames.settings import Endpoints, Settings

each_transport = pytest.mark.parametrize("name", list(TRANSPORTS))


@each_transport
def test_what_is_appended_is_read(name: str) -> None:
    alone, together = [b"a", b"b", b"c"], [b"%d" % n for n in range(100)]
    received: list[bytes] = []
    tails: list[int] = []
    with served() as (_, url), opened_stream(url):
        settings = Settings(endpoints=Endpoints.at(url))
        transport = TRANSPORTS[name](settings, StreamAddress.parse(ADDRESS))
        assert transport.num_durable() == 0
        appending = transport.append(iter(alone), iter(together))
        assert transport.num_durable() == 103
        seconds = transport.read(
            received.extend, {"start": 1, "wait": 1}, lambda tail: tails.append(tail.seq_num)
        )
    assert received == [*alone[1:], *together]
    assert tails[-1] == 103
    assert seconds > 0
    # Each message was handed in after the one before was durable.
    moments = list(chain.from_iterable(zip(appending.sent, appending.acked, strict=True)))
    moments += [appending.began, appending.ended]
    assert len(moments) == 8
    assert all(before <= after for before, after in pairwise(moments))


@each_transport
def test_errors_come_out_as_they_are(name: str) -> None:
    with served() as (_, url), opened_stream(url) as stream:
        address = StreamAddress(stream.target.basin, "missing")
        transport = TRANSPORTS[name](Settings(endpoints=Endpoints.at(url)), address)
        with pytest.raises(ServiceError, match="stream_not_found"):
            transport.append(iter([]), iter([]))
        with pytest.raises(ServiceError, match="stream_not_found"):
            transport.read(lambda _: None, {})
