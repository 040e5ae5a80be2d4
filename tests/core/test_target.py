from __future__ import annotations

from base64 import b64decode
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from attrs import evolve
from attrs.exceptions import FrozenInstanceError
from hypothesis import example, given
from hypothesis import strategies as st

from s2frames.compression import Compression
from s2frames.errors import LocalProtocolError
from s2frames.settings import Endpoints, Settings
from s2frames.target import StreamTarget

BASIN = "my-basin"
TOKEN = "token-hunter2"
KEY = b"hunter3-hunter3-hunter3-hunter3-"

LITE = Settings(endpoints=Endpoints.at("http://localhost:8080/"))


def target(stream: str = "s", settings: Settings = LITE, **more: Any) -> StreamTarget:
    return StreamTarget(settings, BASIN, stream, **more)


# URLs

names = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=128
).filter(lambda name: name not in (".", ".."))


@given(names)
@example("/")
@example("../../v1/basins")
@example("a?b=c#d")
@example("%2F")
@example("%")
@example("+ &;=")
@example("\1\n\r\t\x7f")
@example("...")
@example("\u202e\U0001f600é")
@example("a" * 512)
def test_any_name_is_one_segment_of_the_path(name: str) -> None:
    url = target(name).records_url
    assert url.isascii()
    assert url.isprintable()
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == (
        "http",
        "localhost:8080",
        "",
        "",
    )
    empty, version, streams, segment, records = parts.path.split("/")
    assert (empty, version, streams, records) == ("", "v1", "streams", "records")
    assert unquote(segment, errors="strict") == name


@pytest.mark.parametrize(
    ("endpoints", "url"),
    [
        (Endpoints(), "https://my-basin.b.s2.dev/v1/streams/s/records"),
        (Endpoints.at("https://h/s2/"), "https://h/s2/v1/streams/s/records"),
        (Endpoints("https://a", "https://b/{basin}"), "https://b/my-basin/v1/streams/s/records"),
    ],
)
def test_where_a_stream_is(endpoints: Endpoints, url: str) -> None:
    assert target(settings=Settings(endpoints=endpoints)).records_url == url


# Names


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a\0b", "a" * 513, "é" * 257, "\U0001f600" * 129, "\ud800", None, 7, b"s"],
)
def test_names_that_no_stream_has(name: Any) -> None:
    with pytest.raises(LocalProtocolError, match="stream"):
        target(name)


@pytest.mark.parametrize("name", ["a", "é" * 256, "\U0001f600" * 128, ". ", "..."])
def test_names_at_the_limits(name: str) -> None:
    assert target(name).stream == name


@pytest.mark.parametrize(
    "basin",
    ["", "a" * 7, "a" * 49, "-" + "a" * 8, "a" * 8 + "-", "My-Basin", "my_basin", "my-basin.", 8],
)
def test_names_that_no_basin_has(basin: Any) -> None:
    with pytest.raises(LocalProtocolError, match="basin"):
        StreamTarget(LITE, basin, "s")


# Keys


@pytest.mark.parametrize(
    "key",
    [b"", KEY[:-1], KEY + b"!", KEY * 2, KEY.decode(), bytearray(KEY), memoryview(KEY), 32],
)
def test_keys_of_another_length_or_kind(key: Any) -> None:
    with pytest.raises(LocalProtocolError, match="encryption_key must be 32 bytes") as caught:
        target(encryption_key=key)
    assert "hunter" not in str(caught.value) + repr(caught.value)


@given(st.binary(min_size=32, max_size=32))
def test_a_key_travels_in_base64(key: bytes) -> None:
    value = target(encryption_key=key).headers()["s2-encryption-key"]
    assert b64decode(value, validate=True) == key
    # The most that the service takes.
    assert len(value) == 44


# Headers


def test_headers_of_a_request() -> None:
    plain = target(settings=Settings())
    assert plain.headers() == {}
    assert plain.headers(content_type="a/b", accept="c") == {"content-type": "a/b", "accept": "c"}
    full = target(
        settings=Settings(access_token=TOKEN, endpoints=LITE.endpoints), encryption_key=KEY
    )
    assert set(full.headers()) == {"authorization", "s2-basin", "s2-encryption-key"}
    assert full.headers()["authorization"] == f"Bearer {TOKEN}"
    assert full.headers()["s2-basin"] == BASIN


def test_headers_are_made_anew() -> None:
    one = target()
    one.headers()["x"] = "y"
    assert "x" not in one.headers()


# Requests


def test_a_read_request() -> None:
    request = target().read_request({"seq_num": 2**64 - 1, "wait": 0})
    assert request.method == "GET"
    assert request.url == f"{target().records_url}?seq_num={2**64 - 1}&wait=0"
    assert request.headers == target().headers(
        content_type="s2s/proto", accept="s2s/proto", accept_encoding="identity"
    )
    assert request.body == b""


def test_append_requests() -> None:
    session = target().append_request()
    assert (session.method, session.url, session.body) == ("POST", target().records_url, b"")
    assert session.headers == target().read_request({}).headers
    unary = target().unary_append_request(b"batch")
    assert (unary.method, unary.url, unary.body) == ("POST", target().records_url, b"batch")
    assert unary.headers == target().headers(
        content_type="application/protobuf",
        accept="application/protobuf",
        accept_encoding="identity",
    )


@pytest.mark.parametrize(
    ("compression", "accepted"),
    [(Compression.NONE, "identity"), (Compression.GZIP, "gzip"), (Compression.ZSTD, "zstd")],
)
def test_only_sessions_are_compressed(compression: Compression, accepted: str) -> None:
    made = target(settings=evolve(LITE, compression=compression))
    for request in (made.read_request({}), made.append_request()):
        assert request.headers["accept-encoding"] == accepted
    assert made.unary_append_request().headers["accept-encoding"] == "identity"


# Secrets


def test_secrets_are_never_shown() -> None:
    secret: Any = target(
        settings=Settings(access_token=TOKEN, endpoints=LITE.endpoints), encryption_key=KEY
    )
    with pytest.raises(FrozenInstanceError) as frozen:
        secret.encryption_key = KEY
    with pytest.raises(TypeError) as missing:
        secret.headers(KEY)
    for shown in (repr(secret), str(secret), f"{secret}", str(frozen.value), str(missing.value)):
        assert "hunter" not in shown
        assert b64decode(secret.headers()["s2-encryption-key"]) == KEY
    assert "my-basin" in repr(secret)


@pytest.mark.parametrize(("basin", "stream"), [("no", "s"), (BASIN, ""), (BASIN, "\ud800")])
def test_secrets_are_not_in_errors(basin: str, stream: str) -> None:
    settings = Settings(access_token=TOKEN, endpoints=LITE.endpoints)
    with pytest.raises(LocalProtocolError) as caught:
        StreamTarget(settings, basin, stream, KEY)
    assert "hunter" not in str(caught.value) + repr(caught.value)
