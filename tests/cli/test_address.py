from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.cli.address import FORM, StreamAddress, stream_address

names = st.text(min_size=1, max_size=100).filter(
    lambda name: name not in (".", "..") and len(name.encode(errors="replace")) <= 512
)


@pytest.mark.parametrize(
    ("text", "stream"),
    [
        ("s2://my-basin/a", "a"),
        ("s2://my-basin/a/b", "a/b"),
        ("s2://my-basin//", "/"),
        ("s2://my-basin/a/", "a/"),
        ("s2://my-basin/chat 42?x=%20#y", "chat 42?x=%20#y"),
        ("s2://my-basin/s2://my-basin/a", "s2://my-basin/a"),
        ("s2://my-basin/größer/聊天/☕", "größer/聊天/☕"),
    ],
)
def test_everything_after_the_basin_is_the_stream(text: str, stream: str) -> None:
    address = stream_address(text)
    assert address == StreamAddress("my-basin", stream)
    assert str(address) == text


@given(names.filter(lambda name: name.isprintable()))
def test_every_name_survives(name: str) -> None:
    address = StreamAddress("my-basin", name)
    assert StreamAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "my-basin/a",
        "s2:",
        "s2://",
        "s2:///",
        "s2:///a",
        "s2://my-basin",
        "s2://my-basin/",
        "s2:/my-basin/a",
        "S2://my-basin/a",
        "https://my-basin/a",
        " s2://my-basin/a",
    ],
)
def test_what_is_no_address_is_told_the_form(text: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        stream_address(text)
    assert FORM in caught.value.message
    assert repr(text) in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("s2://short/a", "8 to 48 characters, not 5"),
        ("s2://My-Basin/a", "lowercase"),
        ("s2://my-basin-/a", "begins and ends"),
        ("s2://my-basin/.", "cannot be named"),
        ("s2://my-basin/" + "x" * 513, "1 to 512 UTF-8 bytes, not 513"),
        ("s2://my-basin/" + "é" * 257, "1 to 512 UTF-8 bytes, not 514"),
        ("s2://my-basin/\udcff", "must encode as UTF-8"),
    ],
)
def test_names_that_s2_does_not_take_are_told_why(text: str, said: str) -> None:
    with pytest.raises(click.UsageError, match=said):
        stream_address(text)
