from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest

from httpx_adapter.gates import Recorder
from s2frames import Endpoints, LocalProtocolError, Settings
from s2frames_httpx import Client, EmbeddedTransport
from s2frames_httpx.embedded import EMBEDDED_SETTINGS

ENVIRONMENT = {
    "S2_ACCESS_TOKEN": "secret",
    "S2_ACCOUNT_ENDPOINT": "https://account.example.com",
    "S2_BASIN_ENDPOINT": "https://{basin}.example.com",
}
ENDPOINTS = Endpoints("https://account.example.com", "https://{basin}.example.com")


# Settings


def test_from_a_mapping() -> None:
    with Client.from_env(ENVIRONMENT, request_timeout=7.0) as client:
        assert client.settings == Settings(
            access_token="secret", endpoints=ENDPOINTS, request_timeout=7.0
        )


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with Client.from_env() as client:
        assert client.settings == Settings(access_token="secret", endpoints=ENDPOINTS)


@pytest.mark.parametrize("environ", [{}, dict.fromkeys(ENVIRONMENT, "")])
def test_what_is_unset_keeps_its_default(environ: dict[str, str]) -> None:
    with Client.from_env(environ) as client, Client() as default:
        assert client.settings == default.settings == Settings()


def test_a_token_in_the_clear_is_refused() -> None:
    environ = {**ENVIRONMENT, "S2_ACCOUNT_ENDPOINT": "http://account.example.com"}
    with pytest.raises(LocalProtocolError, match="allow_insecure"):
        Client.from_env(environ)
    Client.from_env(environ, allow_insecure=True).close()


def test_deadlines_are_those_of_the_settings() -> None:
    with Client(Settings(connect_timeout=1.0, request_timeout=2.0)) as client:
        timeout = client.http.timeout
    assert (timeout.connect, timeout.read, timeout.write, timeout.pool) == (1.0, 2.0, 2.0, 1.0)


# Requests


def test_no_request_is_made_before_it_is_needed() -> None:
    recorder = Recorder(EmbeddedTransport())
    with Client(EMBEDDED_SETTINGS, transport=recorder) as client:
        stream = client.stream("test-basin", "room/1")
        stream.append_session().close()
        with stream.read_session():
            """Nothing is asked for."""
        client.list_streams("test-basin")
    assert recorder.requests == []


def test_a_list_asks_for_pages_as_they_are_needed() -> None:
    recorder = Recorder(EmbeddedTransport())
    with Client(EMBEDDED_SETTINGS, transport=recorder) as client:
        client.create_basin("test-basin")
        for n in range(1001):
            client.stream("test-basin", f"s{n:04}").create()
        recorder.requests.clear()
        names = [info.name for info in islice(client.list_streams("test-basin"), 1000)]
        assert (len(names), len(recorder.requests)) == (1000, 1)
        assert len(list(client.list_streams("test-basin"))) == 1001
        assert len(recorder.requests) == 3


def test_threads_share_a_client() -> None:
    with Client.embedded() as client, ThreadPoolExecutor(8) as pool:
        client.create_basin("test-basin")
        names = [f"s{n:03}" for n in range(100)]
        list(pool.map(lambda name: client.stream("test-basin", name).create(), names))
        assert [info.name for info in client.list_streams("test-basin")] == names


# Values


def test_a_stream_says_which_it_is() -> None:
    with Client.embedded() as client:
        stream = client.stream("test-basin", "room/1", encryption_key=b"k" * 32)
    assert repr(stream) == "Stream('s2://test-basin/room/1')"
    assert (stream.target.basin, stream.target.stream) == ("test-basin", "room/1")


def test_each_embedded_client_has_a_service_of_its_own() -> None:
    with Client.embedded() as one, Client.embedded() as other:
        one.create_basin("test-basin")
        assert [info.name for info in one.list_basins()] == ["test-basin"]
        assert list(other.list_basins()) == []


# Closing


def test_a_closed_client_says_so() -> None:
    client = Client.embedded()
    with client as entered:
        assert entered is client
    client.close()
    with pytest.raises(LocalProtocolError, match="client is closed"):
        client.create_basin("test-basin")
    with pytest.raises(LocalProtocolError, match="client is closed"):
        list(client.list_basins())
