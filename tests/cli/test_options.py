from __future__ import annotations

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.cli.address import StreamAddress
from s2frames.cli.failures import Failure
from s2frames.cli.options import Connection, u64
from s2frames.errors import LocalProtocolError, TransportError
from s2frames.settings import Endpoints
from s2frames.u64 import U64_MAX

ADDRESS = StreamAddress("my-basin", "a/b")
TOKEN = "made-up-token"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("S2_ACCESS_TOKEN", raising=False)
    monkeypatch.setenv("S2_ACCOUNT_ENDPOINT", "https://account.example")
    monkeypatch.setenv("S2_BASIN_ENDPOINT", "https://{basin}.example")


def test_the_environment_says_where_the_service_is() -> None:
    with Connection().client() as client:
        expected = Endpoints("https://account.example", "https://{basin}.example")
        assert client.settings.endpoints == expected
        assert client.settings.access_token is None


def test_an_endpoint_goes_before_the_environment() -> None:
    with Connection("http://127.0.0.1:8080").client() as client:
        assert client.settings.endpoints == Endpoints.at("http://127.0.0.1:8080")


def test_a_token_over_plain_http_must_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2_ACCESS_TOKEN", TOKEN)
    with pytest.raises(LocalProtocolError, match="--allow-insecure") as caught:
        Connection("http://example.com").client()
    assert TOKEN not in str(caught.value)
    with Connection("http://example.com", allow_insecure=True).client() as client:
        assert client.settings.access_token == TOKEN


@pytest.mark.parametrize(
    "endpoint", ["", "foo", "ftp://x", "http://", "http://u:secret@x", "http://x:x"]
)
def test_an_endpoint_that_is_none_is_wrong_usage(endpoint: str) -> None:
    with (
        pytest.raises(click.UsageError, match="endpoint") as caught,
        Connection(endpoint).stream(ADDRESS),
    ):
        pytest.fail("there is no stream there")
    assert "secret" not in caught.value.message
    assert caught.value.message.startswith("--endpoint: ")


@pytest.mark.parametrize("missing", ["S2_ACCOUNT_ENDPOINT", "S2_BASIN_ENDPOINT"])
@pytest.mark.parametrize("is_empty", [False, True])
def test_one_endpoint_without_the_other_is_wrong_usage(
    monkeypatch: pytest.MonkeyPatch, missing: str, is_empty: bool
) -> None:
    if is_empty:
        monkeypatch.setenv(missing, "")
    else:
        monkeypatch.delenv(missing)
    with (
        pytest.raises(click.UsageError, match=f"and {missing} is not"),
        Connection().stream(ADDRESS),
    ):
        pytest.fail("there is no stream there")
    # What is not needed is not looked at.
    Connection("http://127.0.0.1:8080").client().close()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("https_proxy", "http://u:secret@x:x"),
        ("all_proxy", "socks://u:secret@x:7890"),
        ("SSL_CERT_FILE", "/nonexistent.pem"),
        ("SSL_CERT_DIR", "/nonexistent"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    for name in ("https_proxy", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(variable, value)
    with (
        pytest.raises(click.UsageError, match=f"^{variable}: ") as caught,
        Connection().stream(ADDRESS),
    ):
        pytest.fail("there is no way to the stream")
    assert "secret" not in caught.value.message
    assert "\n" not in caught.value.message
    # On this machine none of them matters.
    with Connection("http://127.0.0.1:8080").stream(ADDRESS):
        """Nothing is asked for."""


def test_errors_name_the_stream() -> None:
    def use_stream() -> None:
        with Connection().stream(ADDRESS) as stream:
            assert repr(stream) == "Stream('s2://my-basin/a/b')"
            raise TransportError("it broke")

    with pytest.raises(Failure, match=r"^s2://my-basin/a/b: it broke"):
        use_stream()


@given(st.integers(0, U64_MAX))
def test_numbers_may_have_the_zeros_of_file_names(number: int) -> None:
    assert u64(str(number)) == u64(f"{number:020}") == number


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", " 1", "1_0", "1.0", "0x1", "²", "٣", str(U64_MAX + 1), "9" * 5000]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(click.UsageError, match=str(U64_MAX)):
        u64(text)
