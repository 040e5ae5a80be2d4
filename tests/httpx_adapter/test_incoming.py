from __future__ import annotations

from collections import deque

import pytest

from s2frames_httpx.incoming import Incoming

REFUSAL = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n"


class Script:
    """A channel that receives what it is told to: bytes, nothing now, or an error."""

    def __init__(self, *steps: bytes | OSError | None) -> None:
        self.steps = deque(steps)
        self.sizes: list[int] = []

    def receive(self, max_bytes: int) -> bytes | None:
        self.sizes.append(max_bytes)
        step = self.steps.popleft() if self.steps else None
        if isinstance(step, OSError):
            raise step
        return step

    def send(self, data: memoryview) -> int:
        return len(data)

    def flush(self) -> bool:
        return True

    @property
    def has_received(self) -> bool:
        return False


def test_what_was_not_looked_at_comes_straight_from_the_channel() -> None:
    incoming = Incoming(Script(b"abc", None, b""))
    assert [incoming.receive(10) for _ in range(3)] == [b"abc", None, b""]
    assert not incoming.is_dirty


def test_what_came_ahead_of_its_time_comes_first() -> None:
    incoming = Incoming(Script(b"HTTP/1.1 200 OK", None, b"later"))
    incoming.look()
    assert incoming.is_dirty
    assert [incoming.receive(8), incoming.receive(100), incoming.receive(100)] == [
        b"HTTP/1.1",
        b" 200 OK",
        b"later",
    ]


def test_no_more_is_received_ahead_than_there_is_room_for() -> None:
    script = Script(b"x" * 60_000, b"y" * 5_536, b"z")
    incoming = Incoming(script)
    incoming.look()
    assert script.sizes == [65_536, 5_536]
    assert not incoming.may_look
    assert incoming.receive(60_000) == b"x" * 60_000
    assert incoming.may_look


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("status", [b"302 Found", b"403 Forbidden", b"413 Too Large", b"503 No"])
def test_an_answer_that_says_no_is_told(version: bytes, status: bytes) -> None:
    said = b"HTTP/" + version + b" " + status
    incoming = Incoming(Script(said[:7], None, said[7:], None))
    incoming.look()
    with pytest.raises(OSError, match="has refused the request"):
        incoming.look()
    assert incoming.receive(100) == said


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 200 OK", b"HTTP/1.1 100 Continue", b"HTTP", b"SSH-2.0"]
)
def test_other_answers_let_the_request_go_on(said: bytes) -> None:
    incoming = Incoming(Script(said))
    incoming.look()
    error = incoming.stalled()
    assert not isinstance(error, TimeoutError)
    assert "has answered" in str(error)


def test_a_peer_that_says_nothing_is_out_of_time() -> None:
    incoming = Incoming(Script())
    incoming.look()
    assert isinstance(incoming.stalled(), TimeoutError)


def test_an_end_that_came_ahead_of_its_time_stays_one() -> None:
    script = Script(b"abc", b"")
    incoming = Incoming(script)
    incoming.look()
    assert not incoming.may_look
    assert [incoming.receive(9) for _ in range(3)] == [b"abc", b"", b""]
    assert incoming.is_dirty
    assert len(script.sizes) == 2


def test_an_error_that_came_ahead_of_its_time_is_for_the_reader() -> None:
    error = ConnectionResetError("it broke")
    incoming = Incoming(Script(b"abc", error))
    incoming.look()
    assert not incoming.may_look
    assert incoming.receive(9) == b"abc"
    for _ in range(2):
        with pytest.raises(ConnectionResetError):
            incoming.receive(9)
