from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from attrs.exceptions import FrozenInstanceError
from hypothesis import given
from hypothesis import strategies as st

from s2frames.http import SECRET_HEADERS, Request, path_segment


@pytest.mark.parametrize("name", sorted(SECRET_HEADERS))
def test_secret_headers_are_never_shown(name: str) -> None:
    request = Request("GET", "https://a.s2.dev/v1/basins", {name: "hunter2", "accept": "*/*"})
    assert "hunter2" not in repr(request)
    assert "hunter2" not in str(request)
    assert name in repr(request)
    assert "'accept': '*/*'" in repr(request)
    assert request.headers[name] == "hunter2"


def test_the_token_and_the_encryption_key_are_secret() -> None:
    assert {"authorization", "s2-encryption-key"} <= SECRET_HEADERS


def test_a_body_is_shown_by_its_size() -> None:
    shown = repr(Request("POST", "http://localhost/", body=b"private" * 100))
    assert "<700 bytes>" in shown
    assert "private" not in shown


def test_defaults() -> None:
    request = Request("GET", "http://localhost/")
    assert (dict(request.headers), request.body) == ({}, b"")


def test_requests_are_frozen() -> None:
    request: Any = Request("GET", "http://localhost/")
    with pytest.raises(FrozenInstanceError):
        request.method = "POST"


@pytest.mark.parametrize(
    ("name", "segment"),
    [
        ("plain-name_1.0~", "plain-name_1.0~"),
        ("chat/42", "chat%2F42"),
        ("a b", "a%20b"),
        ("a?b#c%d&e=f", "a%3Fb%23c%25d%26e%3Df"),
        ("é", "%C3%A9"),
        ("\r\n", "%0D%0A"),
        ("", ""),
    ],
)
def test_path_segment(name: str, segment: str) -> None:
    assert path_segment(name) == segment


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_a_name_stays_one_segment(name: str) -> None:
    parts = urlsplit(f"http://localhost/v1/streams/{path_segment(name)}/records")
    assert parts.path.split("/")[1:3] == ["v1", "streams"]
    assert unquote(parts.path.split("/")[3]) == name
    assert parts.path.split("/")[4:] == ["records"]
    assert parts.query == parts.fragment == ""
