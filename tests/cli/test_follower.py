from __future__ import annotations

from multiprocessing import Pipe, active_children

import pytest

from cli.shell import ADDRESS
from live_service import refused_url
from s2frames.cli.address import StreamAddress
from s2frames.cli.chain import Chain
from s2frames.cli.failures import Failure
from s2frames.cli.follower import Follower, Following, following
from s2frames.settings import Endpoints, Settings
from s2frames_httpx import Stream

CHAIN = Chain(50, 20, seed=3)


def what(url: str, start: int = 0, num_noted: int = 4) -> Following:
    settings = Settings(endpoints=Endpoints.at(url))
    return Following("httpx", settings, StreamAddress.parse(ADDRESS), start, CHAIN, num_noted)


def test_it_tells_when_messages_came(url: str, stream: Stream) -> None:
    with stream.append_session() as session:
        start = session.append(b"before").end
        with following(what(url, start)) as follower:
            follower.wait_until_ready()
            session.append_many(CHAIN)
            arrivals = follower.arrivals()
    assert len(arrivals.noted) == 4
    assert arrivals.noted == sorted(arrivals.noted)
    assert arrivals.noted[-1] <= arrivals.last
    assert active_children() == []


def test_another_message_is_named(url: str, stream: Stream) -> None:
    messages = list(CHAIN)
    with stream.append_session() as session, following(what(url)) as follower:
        follower.wait_until_ready()
        session.append_many([*messages[:7], messages[8], messages[7]])
        with pytest.raises(Failure, match=r"^the process that follows: message 8 of 20 is not"):
            follower.arrivals()


def test_what_the_service_says_is_told(url: str) -> None:
    with (
        following(what(url)) as follower,
        pytest.raises(Failure, match=r"^the process that follows: .*basin_not_found"),
    ):
        follower.wait_until_ready()


def test_an_endpoint_that_refuses_is_told() -> None:
    with (
        refused_url() as url,
        following(what(url)) as follower,
        pytest.raises(Failure, match=r"is the service running there\?"),
    ):
        follower.wait_until_ready()


def test_it_is_gone_when_the_block_is_left_early(url: str, stream: Stream) -> None:
    assert stream.check_tail().seq_num == 0
    with following(what(url)) as follower:
        follower.wait_until_ready()
    assert active_children() == []


def test_a_process_that_ended_is_told() -> None:
    ours, theirs = Pipe()
    theirs.close()
    with ours, pytest.raises(Failure, match=r"^the process that follows is gone$"):
        Follower(ours).arrivals()
