from __future__ import annotations

import sys
from typing import Any

import pytest
from attrs import evolve
from attrs.exceptions import FrozenInstanceError

from s2frames.checkpoint import Checkpoint, LaneCheckpoint
from s2frames.compression import Compression
from s2frames.errors import LocalProtocolError
from s2frames.retry import Retry
from s2frames.settings import (
    ACCESS_TOKEN_VARIABLE,
    ACCOUNT_ENDPOINT_VARIABLE,
    BASIN_ENDPOINT_VARIABLE,
    AppendSettings,
    Endpoints,
    ReadSettings,
    Settings,
)
from s2frames.writer_state import WriterState

TOKEN = "token-hunter2"
STATE = WriterState(writer_id="w", next_dedupe_seq=3)
BASIN = "my-basin"


# Endpoints


def test_the_default_is_the_cloud() -> None:
    endpoints = Endpoints()
    assert endpoints.account_url() == "https://a.s2.dev"
    assert endpoints.basin_url(BASIN) == "https://my-basin.b.s2.dev"
    assert endpoints.is_private


def test_one_url_for_everything() -> None:
    endpoints = Endpoints.at("http://localhost:8080/")
    assert endpoints.account_url() == "http://localhost:8080"
    assert endpoints.basin_url(BASIN) == "http://localhost:8080"


def test_a_path_is_kept_and_may_hold_the_basin() -> None:
    endpoints = Endpoints("https://host/s2/", "https://host/{basin}/s2/")
    assert endpoints.account_url() == "https://host/s2"
    assert endpoints.basin_url(BASIN) == "https://host/my-basin/s2"


def test_a_basin_cannot_lead_elsewhere() -> None:
    with pytest.raises(LocalProtocolError, match="evil"):
        Endpoints().basin_url("evil.example/")


@pytest.mark.parametrize(
    ("url", "private"),
    [
        ("https://a.s2.dev", True),
        ("HTTPS://a.s2.dev", True),
        ("http://localhost", True),
        ("http://LOCALHOST:80", True),
        ("http://s2.localhost:8080", True),
        ("http://127.0.0.1:80", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:80", True),
        ("http://{basin}.localhost", True),
        ("http://a.s2.dev", False),
        ("http://notlocalhost", False),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://10.0.0.1", False),
        ("http://0.0.0.0", False),
        ("http://[::]", False),
    ],
)
def test_is_private(url: str, private: bool) -> None:
    assert Endpoints(basin=url).is_private is private
    assert Endpoints(account=url.replace("{basin}", BASIN)).is_private is private


BAD_URLS: list[Any] = [
    "",
    "localhost:8080",
    "//localhost",
    "ftp://localhost",
    "http://",
    "http://:80",
    "http://localhost:port",
    "http://localhost:99999",
    "http://[::1",
    "http://user@localhost",
    "http://localhost?a=b",
    "http://localhost#a",
    None,
]


@pytest.mark.parametrize("url", BAD_URLS)
def test_refuses_what_is_no_endpoint(url: Any) -> None:
    with pytest.raises(LocalProtocolError, match="the account endpoint"):
        Endpoints(account=url)
    with pytest.raises(LocalProtocolError, match="the basin endpoint"):
        Endpoints(basin=url)


@pytest.mark.parametrize(
    "url",
    [
        "http://user:hunter2@localhost",
        "http://localhost/?key=hunter2",
        "http://localhost/#hunter2",
        "ftp://user:hunter2@localhost",
        "http://user:hunter2@localhost:port",
        "http://user:hunter2@",
    ],
)
def test_a_refused_url_does_not_show_its_secrets(url: str) -> None:
    with pytest.raises(LocalProtocolError) as caught:
        Endpoints.at(url)
    assert "hunter2" not in str(caught.value)


# Settings


def test_defaults() -> None:
    settings = Settings()
    assert settings.access_token is None
    assert settings.endpoints == Endpoints()
    assert settings.compression is Compression.NONE
    assert (settings.connect_timeout, settings.request_timeout) == (3.0, 5.0)


def test_the_token_is_never_shown() -> None:
    settings = Settings(access_token=TOKEN)
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)


def test_settings_are_frozen() -> None:
    settings: Any = Settings()
    with pytest.raises(FrozenInstanceError):
        settings.allow_insecure = True


@pytest.mark.parametrize("token", ["", "hunter2\n", "hunter2\0", "hünter2", "hunter2\x7f"])
def test_refuses_a_token_that_no_header_can_hold(token: str) -> None:
    with pytest.raises(LocalProtocolError, match="printable ASCII") as caught:
        Settings(access_token=token)
    assert "nter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["connect_timeout", "request_timeout"])
@pytest.mark.parametrize("seconds", [0, -1, -0.5, float("nan")])
def test_refuses_a_time_that_is_not_above_zero(name: str, seconds: float) -> None:
    changes: Any = {name: seconds}
    with pytest.raises(LocalProtocolError, match=f"{name} .* not {seconds}"):
        Settings(**changes)


OPEN = Endpoints.at("http://s2.example.com")
HALF_OPEN = Endpoints(basin="http://s2.example.com")


@pytest.mark.parametrize("endpoints", [OPEN, HALF_OPEN])
def test_a_token_over_plain_http_is_refused(endpoints: Endpoints) -> None:
    with pytest.raises(LocalProtocolError, match="allow_insecure=True") as caught:
        Settings(access_token=TOKEN, endpoints=endpoints)
    assert "hunter2" not in str(caught.value)
    assert "--allow-insecure" in str(caught.value)


@pytest.mark.parametrize(
    ("token", "endpoints", "allow_insecure"),
    [
        (TOKEN, OPEN, True),
        (None, OPEN, False),
        (TOKEN, Endpoints.at("http://localhost"), False),
        (TOKEN, Endpoints.at("https://s2.example.com"), False),
    ],
)
def test_a_token_that_stays_private_or_is_allowed_out(
    token: str | None, endpoints: Endpoints, allow_insecure: bool
) -> None:
    settings = Settings(access_token=token, endpoints=endpoints, allow_insecure=allow_insecure)
    assert settings.access_token == token


def test_a_changed_copy_is_checked_again() -> None:
    settings = Settings(access_token=TOKEN)
    with pytest.raises(LocalProtocolError, match="allow_insecure"):
        evolve(settings, endpoints=OPEN)


# The environment


def test_from_env() -> None:
    settings = Settings.from_env(
        {
            ACCESS_TOKEN_VARIABLE: TOKEN,
            ACCOUNT_ENDPOINT_VARIABLE: "http://localhost:1",
            BASIN_ENDPOINT_VARIABLE: "http://localhost:2",
            "HOME": "/elsewhere",
        }
    )
    assert settings.access_token == TOKEN
    assert settings.endpoints == Endpoints("http://localhost:1", "http://localhost:2")


def test_the_variables_are_those_of_the_official_clients() -> None:
    assert ACCESS_TOKEN_VARIABLE == "S2_ACCESS_TOKEN"
    assert ACCOUNT_ENDPOINT_VARIABLE == "S2_ACCOUNT_ENDPOINT"
    assert BASIN_ENDPOINT_VARIABLE == "S2_BASIN_ENDPOINT"


@pytest.mark.parametrize("environ", [{}, {ACCESS_TOKEN_VARIABLE: "", BASIN_ENDPOINT_VARIABLE: ""}])
def test_what_is_unset_or_empty_keeps_its_default(environ: dict[str, str]) -> None:
    assert Settings.from_env(environ) == Settings()


ENDPOINT_VARIABLES = (ACCOUNT_ENDPOINT_VARIABLE, BASIN_ENDPOINT_VARIABLE)


@pytest.mark.parametrize(("there", "missing"), [ENDPOINT_VARIABLES, ENDPOINT_VARIABLES[::-1]])
@pytest.mark.parametrize("empty", [{}, dict.fromkeys(ENDPOINT_VARIABLES, "")])
def test_one_endpoint_without_the_other_is_refused(
    there: str, missing: str, empty: dict[str, str]
) -> None:
    # The other one would be the cloud's, and would get the token.
    environ = {**empty, there: "http://localhost:1", ACCESS_TOKEN_VARIABLE: TOKEN}
    with pytest.raises(LocalProtocolError, match=f"^{there} is set and {missing} is not: "):
        Settings.from_env(environ)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (" http://localhost", "white space or a line break around it"),
        ("http://localhost\n", "white space or a line break around it"),
        ("http://local\nhost", "a character that no URL has"),
        ("http://local host", "a character that no URL has"),
        ("localhost:8080", "must be http://HOST or https://HOST"),
        ("{basin}.b.s2.dev", "must be http://HOST or https://HOST"),
        ("http://localhost:0", "a port from 1 to 65535, or none"),
        ("http://localhost:65536", "a port from 1 to 65535, or none"),
        ("http://localhost:-1", "a port from 1 to 65535, or none"),
        ("http://localhost:port", "a port from 1 to 65535, or none"),
        ("http://user:hunter2@localhost:0", "no user, query or fragment"),
        ("http://ex\u00e4mple", "a character that no URL has"),
    ],
)
@pytest.mark.parametrize("variable", ENDPOINT_VARIABLES)
def test_an_endpoint_that_is_refused_is_named_by_its_variable(
    variable: str, url: str, words: str
) -> None:
    environ = {**dict.fromkeys(ENDPOINT_VARIABLES, "http://localhost"), variable: url}
    with pytest.raises(LocalProtocolError) as raised:
        Settings.from_env(environ)
    said = str(raised.value)
    assert said.startswith("the ")
    assert f"endpoint ({variable}) " in said
    assert words in said
    assert "\n" not in said
    assert "hunter2" not in said


@pytest.mark.parametrize(
    "url", ["HTTP://localhost:9", "http://localhost:9/", "http://localhost:9//", "http://[::1]:9"]
)
def test_endpoints_that_are_taken_as_they_are(url: str) -> None:
    settings = Settings.from_env(dict.fromkeys(ENDPOINT_VARIABLES, url))
    assert settings.endpoints.account_url().lower() == url.lower().rstrip("/")
    assert settings.endpoints.basin_url(BASIN).lower() == url.lower().rstrip("/")


@pytest.mark.parametrize(
    ("token", "words"),
    [
        (f"Bearer {TOKEN}", 'the token alone, without "Bearer "'),
        (f" bearer {TOKEN}", 'the token alone, without "Bearer "'),
        (f" {TOKEN}", "white space or a line break around it"),
        (f"{TOKEN}\n", "white space or a line break around it"),
        (f"{TOKEN}\r", "white space or a line break around it"),
        (f"{TOKEN} {TOKEN}", "printable ASCII without spaces"),
        (f"{TOKEN}\u00e4", "printable ASCII without spaces"),
    ],
)
def test_a_token_that_is_refused_is_not_shown(token: str, words: str) -> None:
    with pytest.raises(LocalProtocolError, match=words) as raised:
        Settings(access_token=token)
    assert TOKEN not in str(raised.value)
    with pytest.raises(LocalProtocolError, match=words) as raised:
        Settings.from_env({ACCESS_TOKEN_VARIABLE: token})
    assert TOKEN not in str(raised.value)
    assert f"({ACCESS_TOKEN_VARIABLE})" in str(raised.value)


def test_changes_win_over_the_environment() -> None:
    environ = {
        ACCESS_TOKEN_VARIABLE: TOKEN,
        ACCOUNT_ENDPOINT_VARIABLE: "http://localhost:1",
        BASIN_ENDPOINT_VARIABLE: "http://localhost:2",
    }
    settings = Settings.from_env(environ, access_token="other", connect_timeout=9.0)
    assert settings.access_token == "other"
    assert settings.connect_timeout == 9.0
    assert settings.endpoints.basin == "http://localhost:2"


def test_the_environment_is_checked_as_arguments_are() -> None:
    environ = {
        ACCESS_TOKEN_VARIABLE: TOKEN,
        ACCOUNT_ENDPOINT_VARIABLE: "http://s2.example.com",
        BASIN_ENDPOINT_VARIABLE: "http://s2.example.com",
    }
    with pytest.raises(LocalProtocolError, match="allow_insecure"):
        Settings.from_env(environ)
    assert Settings.from_env(environ, allow_insecure=True).allow_insecure


# Headers


def test_headers_on_one_url_name_the_basin() -> None:
    settings = Settings(access_token=TOKEN, endpoints=Endpoints.at("http://localhost"))
    assert settings.account_headers() == {"authorization": f"Bearer {TOKEN}"}
    assert settings.basin_headers(BASIN) == {
        "authorization": f"Bearer {TOKEN}",
        "s2-basin": BASIN,
    }


def test_headers_where_the_url_names_the_basin() -> None:
    assert Settings().account_headers() == {}
    assert Settings().basin_headers(BASIN) == {}
    assert Settings(access_token=TOKEN).basin_headers(BASIN) == {"authorization": f"Bearer {TOKEN}"}


def test_a_basin_cannot_smuggle_a_header() -> None:
    settings = Settings(endpoints=Endpoints.at("http://localhost"))
    with pytest.raises(LocalProtocolError, match="basin"):
        settings.basin_headers("my-basin\r\nx: y")


# Sessions


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"dedupe": False},
        {"writer_id": "w", "first_dedupe_seq": 0},
        {"linger": 0.0},
        {"burst_batches": None},
        {"burst_batches": 1},
        {"burst_batches": 500},
        {"exclusive": True},
        {"match_seq_num": 0},
        {"exclusive": True, "match_seq_num": 7},
        {"dedupe": False, "allow_duplicates": True},
        {"allow_duplicates": True},
        {"resume": STATE},
        {"resume": STATE, "exclusive": True},
        {"retry": Retry(max_attempts=1)},
        {"retry": None},
    ],
)
def test_append_settings(arguments: dict[str, Any]) -> None:
    settings = AppendSettings(**arguments)
    assert {name: getattr(settings, name) for name in arguments} == arguments


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"writer_id": "w"}, "writer_id and first_dedupe_seq go together"),
        ({"first_dedupe_seq": 0}, "writer_id and first_dedupe_seq go together"),
        ({"writer_id": "w", "first_dedupe_seq": 0, "dedupe": False}, "dedupe=True"),
        ({"dedupe": False, "exclusive": True}, "exclusive and match_seq_num need dedupe=True"),
        ({"dedupe": False, "match_seq_num": 0}, "exclusive and match_seq_num need dedupe=True"),
        ({"dedupe": False, "resume": STATE}, "writer_id and resume need dedupe=True"),
        ({"resume": STATE, "match_seq_num": 0}, "resume says who writes and where"),
        (
            {"resume": STATE, "writer_id": "w", "first_dedupe_seq": 0},
            "resume says who writes and where",
        ),
        ({"linger": -0.001}, "linger .* not -0.001"),
        ({"linger": float("nan")}, "linger .* not nan"),
        ({"burst_batches": 0}, "burst_batches .* not 0"),
        ({"burst_batches": 501}, "burst_batches .* 500, not 501"),
    ],
)
def test_refused_append_settings(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(LocalProtocolError, match=named):
        AppendSettings(**arguments)


@pytest.mark.parametrize(
    ("arguments", "is_exclusive", "first"),
    [
        ({}, False, None),
        ({"exclusive": True}, True, None),
        ({"match_seq_num": 0}, True, 0),
        ({"resume": STATE}, False, None),
        ({"resume": evolve(STATE, match_seq_num=0)}, True, 0),
        ({"resume": STATE, "exclusive": True}, True, None),
    ],
)
def test_who_is_exclusive_and_from_where(
    arguments: dict[str, Any], is_exclusive: bool, first: int | None
) -> None:
    settings = AppendSettings(**arguments)
    assert settings.is_exclusive is is_exclusive
    assert settings.first_match_seq_num == first


CHECKPOINT = Checkpoint(3, 5, (LaneCheckpoint(b"w", None, 3),))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"start": 0},
        {"start": 2**64 - 1},
        {"start": CHECKPOINT},
        {"timestamp": 0},
        {"start": 0, "timestamp": 2**64 - 1},
        {"limit": 1},
        {"last": 1},
        {"last": 1, "start": 0},
        {"last": 1, "follow": True, "limit": 2},
        {"last": 1, "wait": 1},
        {"wait": 1},
        {"wait": 2**31 - 1},
        {"until": 0, "follow": True},
        {"end": 0},
        {"end": 2**64 - 1, "until": 2**64 - 1},
        {"max_scan_bytes": 1},
        {"retry": Retry()},
        {"retry": None},
    ],
)
def test_read_settings(arguments: dict[str, Any]) -> None:
    settings = ReadSettings(**arguments)
    assert {name: getattr(settings, name) for name in arguments} == arguments


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"start": -1}, "start .* not -1"),
        ({"start": 2**64}, f"start .* not {2**64}"),
        ({"start": "0"}, "start .* not '0'"),
        ({"start": None}, "start .* not None"),
        ({"start": 1, "timestamp": 1}, "start and timestamp say where to start: give one"),
        ({"start": CHECKPOINT, "timestamp": 1}, "start and timestamp say"),
        ({"start": Checkpoint(0, 0), "timestamp": 1}, "start and timestamp say"),
        ({"start": 1, "last": 1}, "start and last say"),
        ({"start": Checkpoint(0, 0), "last": 1}, "start and last say"),
        ({"timestamp": 0, "last": 1}, "timestamp and last say"),
        ({"start": 1, "timestamp": 0, "last": 1}, "start and timestamp and last say"),
        ({"last": 0}, "last .* not 0"),
        ({"wait": 0}, "wait .* not 0"),
        ({"wait": 2**31}, f"wait .* not {2**31}"),
        ({"wait": 1, "follow": True}, "follow never ends and wait does"),
        ({"until": -1}, "until .* not -1"),
        ({"end": -1}, "end .* not -1"),
        ({"end": 2**64}, f"end .* not {2**64}"),
        ({"max_scan_bytes": 0}, "max_scan_bytes .* not 0"),
        ({"timestamp": -1}, "timestamp .* not -1"),
        ({"timestamp": 2**64}, f"timestamp .* not {2**64}"),
        ({"limit": 0}, "limit .* not 0"),
        ({"limit": -1}, "limit .* not -1"),
    ],
)
def test_refused_read_settings(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(LocalProtocolError, match=named):
        ReadSettings(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"access_token": 5}, "the access token must be a str, not int"),
        ({"access_token": "hunter2 "}, "without spaces"),
        ({"endpoints": "http://localhost"}, "endpoints must be a Endpoints, not str"),
        ({"compression": "gzip"}, "compression must be a Compression, not str"),
        ({"connect_timeout": "5"}, "connect_timeout must be a number of seconds"),
        ({"request_timeout": None}, "request_timeout must be a number of seconds"),
        ({"allow_insecure": "no"}, "allow_insecure must be a bool, not str"),
        ({"retry": None}, "retry must be a Retry, not NoneType"),
    ],
)
def test_refuses_settings_of_the_wrong_type(arguments: Any, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=message) as caught:
        Settings(**arguments)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"burst_batches": "x"}, "burst_batches must be an int from 1 to 500"),
        ({"linger": None}, "linger must be a number of seconds"),
        ({"dedupe": 1}, "dedupe must be a bool"),
        ({"exclusive": 1}, "exclusive must be a bool"),
        ({"allow_duplicates": "yes"}, "allow_duplicates must be a bool"),
        ({"resume": "w"}, "resume must be a WriterState, not str"),
        ({"retry": 3}, "retry must be a Retry, not int"),
        ({"max_frame_bytes": "x"}, "max_frame_bytes must be an int from 1 .* not 'x'"),
        ({"max_frame_bytes": 0}, "max_frame_bytes must be an int from 1 .* not 0"),
        ({"max_inflight_batches": 0}, "max_inflight_batches must be an int from 1 .* not 0"),
        ({"max_inflight_batches": True}, "max_inflight_batches .* not True"),
        ({"max_inflight_bytes": "x"}, "max_inflight_bytes must be an int from 1048576 .* not 'x'"),
        ({"max_inflight_bytes": 1}, "max_inflight_bytes must be an int from 1048576 .* not 1"),
        ({"writer_id": 7, "first_dedupe_seq": 0}, "a writer id is a str in UTF-8, not 7"),
        ({"writer_id": "", "first_dedupe_seq": 0}, "a writer id has 1 to 256 UTF-8 bytes, not 0"),
        ({"writer_id": "w", "first_dedupe_seq": True}, "first_dedupe_seq must be .* not True"),
        ({"writer_id": "w", "first_dedupe_seq": 2**53}, f"first_dedupe_seq .* not {2**53}"),
        ({"match_seq_num": "5"}, "match_seq_num must be an int from 0 .* not '5'"),
        ({"fencing_token": 5}, "a fencing token is a str, not int"),
        ({"fencing_token": "x" * 37}, "a fencing token has at most 36 UTF-8 bytes, not 37"),
    ],
)
def test_refuses_append_settings_of_the_wrong_type(arguments: Any, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=message):
        AppendSettings(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limit": "5"}, "limit must be an int from 1"),
        ({"limit": 1.5}, "limit must be an int from 1"),
        ({"follow": "no"}, "follow must be a bool, not str"),
        ({"last": "1"}, "last must be an int from 1"),
        ({"wait": 1.5}, "wait must be an int from 1"),
        ({"end": "9"}, "end must be an int from 0"),
        ({"until": "9"}, "until must be an int from 0"),
        ({"timestamp": 1.5}, "timestamp must be an int from 0"),
        ({"max_scan_bytes": None}, "max_scan_bytes must be an int from 1"),
        ({"retry": 3}, "retry must be a Retry, not int"),
        ({"start": True}, "start must be a sequence number .* not True"),
        ({"start": Checkpoint(5, 3)}, "the checkpoint is damaged"),
        ({"max_frame_bytes": "x"}, "max_frame_bytes must be an int from 1 .* not 'x'"),
        ({"max_frame_bytes": 0}, "max_frame_bytes must be an int from 1 .* not 0"),
        ({"max_writers": None}, "max_writers must be an int from 1 .* not None"),
        ({"max_writers": 0}, "max_writers must be an int from 1 .* not 0"),
        ({"max_buffered_bytes": "x"}, "max_buffered_bytes must be an int from 1 .* not 'x'"),
        ({"max_buffered_bytes": 5}, r"max_buffered_bytes \(5\) must not be below max_frame_bytes"),
    ],
)
def test_refuses_read_settings_of_the_wrong_type(arguments: Any, message: str) -> None:
    with pytest.raises(LocalProtocolError, match=message):
        ReadSettings(**arguments)


def test_zstd_without_its_extra_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(ImportError, match=r"pip install 's2frames\[zstd\]'"):
        Settings(compression=Compression.ZSTD)


def test_endpoints_that_are_given_spare_those_of_the_environment() -> None:
    environ = {"S2_BASIN_ENDPOINT": "nonsense", "S2_ACCOUNT_ENDPOINT": "http://localhost"}
    endpoints = Endpoints.at("http://localhost")
    assert Settings.from_env(environ, endpoints=endpoints).endpoints == endpoints
    with pytest.raises(LocalProtocolError, match="the basin endpoint"):
        Settings.from_env(environ)
