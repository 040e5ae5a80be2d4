from __future__ import annotations

from collections.abc import Callable
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.cli.chain import MIN_MESSAGE_BYTES, Chain, ChainCheck
from s2frames.cli.failures import Failure

SIZES = [MIN_MESSAGE_BYTES, MIN_MESSAGE_BYTES + 1, 100, 1_000_000]


@pytest.mark.parametrize("size", SIZES)
def test_each_message_carries_the_hash_of_the_whole_one_before(size: int) -> None:
    messages = list(Chain(size, 5, seed=1))
    assert [len(message) for message in messages] == [size] * 5
    for number, message in enumerate(messages):
        before = crc32(messages[number - 1]) if number else 0
        assert message[-12:-4] == number.to_bytes(8, "big")
        assert message[-4:] == before.to_bytes(4, "big")


def test_a_seed_makes_a_chain() -> None:
    assert list(Chain(100, 3, 1)) == list(Chain(100, 3, 1))
    assert list(Chain(100, 3, 1)) != list(Chain(100, 3, 2))


@given(num_messages=st.integers(0, 30), cuts=st.lists(st.integers(1, 9)))
def test_the_chain_is_accepted_however_it_arrives(num_messages: int, cuts: list[int]) -> None:
    chain = Chain(20, num_messages, 7)
    left = list(chain)
    check = ChainCheck(chain)
    for cut in cuts:
        check.take(left[:cut])
        left = left[cut:]
    check.take(left)
    check.finish()


def take_all(check: ChainCheck, messages: list[bytes], num_at_once: int) -> None:
    for at in range(0, len(messages), num_at_once):
        check.take(messages[at : at + num_at_once])


def change(message: bytes) -> bytes:
    return bytes([message[0] ^ 1]) + message[1:]


@pytest.mark.parametrize("num_at_once", [1, 2, 10])
@pytest.mark.parametrize(
    ("spoil", "first"),
    [
        (lambda m: [change(m[0]), *m[1:]], 1),
        (lambda m: [*m[:-1], change(m[-1])], 5),
        (lambda m: [m[1], m[0], *m[2:]], 1),
        (lambda m: [m[0], m[0], *m[1:]], 2),
        (lambda m: m[:2] + m[3:], 3),
        (lambda m: [*m[:3], m[3][:-1], m[4]], 4),
        (lambda m: [*m, m[-1]], 6),
        (lambda m: [*m, b"more"], 6),
    ],
    ids=["first", "last", "swapped", "repeated", "lost", "cut", "last-repeated", "more"],
)
def test_the_first_message_that_is_another_is_named(
    spoil: Callable[[list[bytes]], list[bytes]], first: int, num_at_once: int
) -> None:
    chain = Chain(20, 5, 7)
    received = spoil(list(chain))
    with pytest.raises(Failure, match=f"^message {first} of 5 is not what was appended"):
        take_all(ChainCheck(chain), received, num_at_once)


def test_the_first_message_that_is_missing_is_named() -> None:
    chain = Chain(20, 5, 7)
    check = ChainCheck(chain)
    check.take(list(chain)[:3])
    with pytest.raises(Failure, match=r"^message 4 of 5 did not come back$"):
        check.finish()
