"""The ledger finds what it is there to find."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from real_server.ledger import Chain, Figures, Read, compare, parse

SIZES = [0, 1, 5000]


def chain_of(writer: int, count: int = 5) -> Chain:
    """A writer of which so many messages were acknowledged, and one more was sent."""
    chain = Chain(writer, 7, SIZES)
    for index in range(count + 1):
        chain.message(index)
    chain.acked.update(range(count))
    return chain


def reads_of(chain: Chain, indices: list[int]) -> list[Read]:
    return [Read(parse(chain.message(index)), (index, index + 1)) for index in indices]


@pytest.mark.parametrize(
    ("indices", "figures"),
    [
        ([0, 1, 2, 3, 4], Figures(5, 0, 0)),
        # Sent, and not acknowledged.
        ([0, 1, 2, 3, 4, 5], Figures(5, 0, 0)),
        ([0, 1, 3, 4], Figures(5, 1, 0)),
        ([0, 1, 2, 3], Figures(5, 1, 0)),
        ([], Figures(5, 5, 0)),
        ([0, 1, 1, 2, 3, 4], Figures(5, 0, 1)),
        ([0, 1, 2, 3, 4, 0, 1], Figures(5, 0, 2)),
        ([0, 1, 2, 3, 4, 5, 5], Figures(5, 0, 1)),
    ],
)
def test_messages_are_counted(indices: list[int], figures: Figures) -> None:
    chain = chain_of(1)
    assert compare([chain], reads_of(chain, indices)) == figures


def test_writers_may_interleave() -> None:
    first, second = chain_of(1, 2), chain_of(2, 2)
    reads = [
        read
        for pair in zip(reads_of(first, [0, 1]), reads_of(second, [0, 1]), strict=True)
        for read in pair
    ]
    assert compare([first, second], reads) == Figures(4, 0, 0)


def test_the_order_must_be_right() -> None:
    chain = chain_of(1)
    with pytest.raises(AssertionError, match="message 1 of 1 after 2"):
        compare([chain], reads_of(chain, [0, 2, 1, 3, 4]))


def test_what_was_left_in_doubt_may_land_late_and_once() -> None:
    chain = chain_of(1)
    chain.acked.remove(1)
    chain.abandoned.add(1)
    assert compare([chain], reads_of(chain, [0, 2, 3, 1, 4])) == Figures(4, 0, 0)
    assert compare([chain], reads_of(chain, [0, 2, 3, 4])) == Figures(4, 0, 0)
    assert compare([chain], reads_of(chain, [0, 1, 2, 3, 1, 4])) == Figures(4, 0, 1)
    with pytest.raises(AssertionError, match="message 2 of 1 after 3"):
        compare([chain], reads_of(chain, [0, 1, 3, 2, 4]))


def test_messages_of_another_stream_are_found() -> None:
    with pytest.raises(AssertionError, match="writer 2 writes elsewhere"):
        compare([chain_of(1)], reads_of(chain_of(2), [0]))


def test_messages_that_were_never_sent_are_found() -> None:
    longer = chain_of(1, 9)
    with pytest.raises(AssertionError, match="was never sent"):
        compare([chain_of(1)], reads_of(longer, [8]))


def test_messages_of_another_run_are_found() -> None:
    other = Chain(1, 8, [3])
    with pytest.raises(AssertionError, match="message 0 is another"):
        compare([chain_of(1)], reads_of(other, [0]))


@pytest.mark.parametrize(
    "damage",
    [
        lambda message: message[:-1],
        lambda message: message + b"\0",
        lambda message: message[:-1] + bytes([message[-1] ^ 1]),
        lambda message: b"\0\2" + message[2:],
        lambda message: message[:10] + b"\xff" + message[11:],
        lambda message: message[:60],
        lambda _message: b"",
    ],
)
def test_damage_is_found(damage: Callable[[bytes], bytes]) -> None:
    chain = chain_of(1)
    with pytest.raises(AssertionError, match=r"damaged|a message of"):
        parse(damage(chain.message(2)))


def test_messages_are_the_same_each_time_and_name_the_one_before() -> None:
    chain = chain_of(3)
    links = [parse(chain.message(index)) for index in range(6)]
    assert [link.index for link in links] == list(range(6))
    assert [link.previous for link in links] == [bytes(32)] + [link.digest for link in links[:-1]]
    assert len(chain.digests) == 6


@pytest.mark.parametrize("is_exclusive", [False, True])
@pytest.mark.parametrize(
    ("told", "is_right_if_exclusive", "is_right_else"),
    [
        ((2, 3), True, True),
        ((4, 5), False, True),
        # Its first record landed once, its second one twice.
        ((2, 4), False, True),
        ((1, 2), False, False),
        ((1, 3), False, False),
    ],
)
def test_messages_are_where_their_writer_was_told(
    told: tuple[int, int], is_right_if_exclusive: bool, is_right_else: bool, is_exclusive: bool
) -> None:
    chain = chain_of(1)
    chain.places[2] = told
    reads = reads_of(chain, [0, 1, 2, 3, 4])
    if is_right_if_exclusive if is_exclusive else is_right_else:
        assert compare([chain], reads, is_exclusive=is_exclusive) == Figures(5, 0, 0)
        return
    with pytest.raises(AssertionError, match="as its writer was told"):
        compare([chain], reads, is_exclusive=is_exclusive)


def test_reads_agree_as_far_as_both_are_told() -> None:
    chain = chain_of(1)
    first, second = reads_of(chain, [0, 1])
    assert first.agrees(Read(first.link, (0, 1)))
    assert first.agrees(Read(first.link))
    assert Read(first.link).agrees(first)
    assert not first.agrees(Read(first.link, (0, 2)))
    assert not first.agrees(second)
    assert not Read(first.link).agrees(second)
