"""A made-up chat: messages of the kinds and sizes that one has."""

from __future__ import annotations

import random
from collections.abc import Iterator

from attrs import field, frozen

__all__ = ["IMAGE_BYTES", "ChatMessage", "chat"]

#: Bytes of the one image.
IMAGE_BYTES = 5 * 1024 * 1024

# How an image file begins that is a PNG.
_PNG = b"\x89PNG\r\n\x1a\n"

# One message in eight is code.
_CODE_SHARE = 1 / 8

# Median words of a text and lines of code, how widely they vary (the sigma of a log-normal
# distribution: most are short, a few very long), and the most.
_WORDS = (9, 1.1, 5_000)
_LINES = (12, 1.3, 20_000)

_PEOPLE = ("ada", "björn", "chloé", "deniz", "emeka", "小林")
_WORD_LIST = (
    "the a to and of in it is that for on with this was but not you we they I can will just "
    "stream record batch frame message tail deploy server client retry bug test build merge "
    "works broke again maybe thanks yes no hm really tomorrow coffee ☕ 👍 🎉 naïve größer 好的"
)
_VOCABULARY = tuple(_WORD_LIST.split())
_CODE = (
    "def handle(request):",
    "    for record in batch:",
    "        total += len(record.body)",
    "    if not total:",
    "        raise ValueError('nothing to do')",
    "    return total",
    "const tail = await stream.checkTail();",
    "SELECT room, count(*) FROM messages GROUP BY room;",
)


@frozen
class ChatMessage:
    """One message."""

    #: "text", "code" or "image".
    kind: str
    payload: bytes = field(repr=lambda payload: f"<{len(payload)} bytes>")


def chat(num_messages: int, seed: int) -> Iterator[ChatMessage]:
    """`num_messages` messages, the same for the same `seed`; one of them is the image."""
    # For variety, not for secrets.
    chance = random.Random(seed)  # noqa: S311
    image_at = chance.randrange(num_messages)
    for i in range(num_messages):
        if i == image_at:
            yield ChatMessage("image", _PNG + chance.randbytes(IMAGE_BYTES - len(_PNG)))
        elif chance.random() < _CODE_SHARE:
            yield ChatMessage("code", "\n".join(_pick(chance, _CODE, *_LINES)).encode())
        else:
            words = " ".join(_pick(chance, _VOCABULARY, *_WORDS))
            yield ChatMessage("text", f"{chance.choice(_PEOPLE)}: {words}".encode())


def _pick(
    chance: random.Random, what: tuple[str, ...], median: int, sigma: float, most: int
) -> list[str]:
    """Some of `what`, about `median` of them."""
    number = int(median * chance.lognormvariate(0, sigma))
    return chance.choices(what, k=min(max(number, 1), most))
