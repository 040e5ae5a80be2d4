from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.cli.chat import IMAGE_BYTES, chat


@pytest.mark.parametrize("seed", [0, 1, -1, 2**70])
def test_a_seed_makes_one_chat(seed: int) -> None:
    assert list(chat(200, seed)) == list(chat(200, seed))
    assert list(chat(200, seed)) != list(chat(200, seed + 1))


@given(st.integers(1, 30), st.integers())
def test_every_chat_has_one_image_and_no_empty_message(num_messages: int, seed: int) -> None:
    messages = list(chat(num_messages, seed))
    assert len(messages) == num_messages
    assert [len(m.payload) for m in messages if m.kind == "image"] == [IMAGE_BYTES]
    assert all(m.payload for m in messages)


def test_most_messages_are_short_and_a_few_are_long() -> None:
    messages = [m for m in chat(2000, 0) if m.kind != "image"]
    kinds = Counter(m.kind for m in messages)
    assert kinds["text"] > 5 * kinds["code"] > 0
    sizes = sorted(len(m.payload) for m in messages)
    assert sizes[len(sizes) // 2] < 200
    assert sizes[-1] > 3000
    assert all(m.payload.decode() for m in messages)


def test_repr_does_not_show_megabytes() -> None:
    (image,) = chat(1, 0)
    assert repr(image) == f"ChatMessage(kind='image', payload=<{IMAGE_BYTES} bytes>)"
