from __future__ import annotations

import ssl
import sys
from pathlib import Path
from typing import Any

import certifi
import pytest
import trustme

from s2frames import LocalProtocolError
from s2frames_httpx.certificates import check_context, default_context


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str | None]]:
    """What contexts were made with."""
    made: list[dict[str, str | None]] = []

    def create(**options: str | None) -> ssl.SSLContext:
        made.append(options)
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    monkeypatch.setattr(ssl, "create_default_context", create)
    return made


def paths(monkeypatch: pytest.MonkeyPatch, **found: str | None) -> None:
    """Let Python find these."""

    class Paths:
        cafile = found.get("cafile")
        capath = found.get("capath")

    monkeypatch.setattr(ssl, "get_default_verify_paths", Paths)


def test_the_system_is_trusted(
    loaded: list[dict[str, str | None]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "one.pem").touch()
    for found in ({"cafile": "/etc/ssl/cert.pem"}, {"capath": str(tmp_path)}):
        paths(monkeypatch, **found)
        default_context({})
    assert loaded == [{"cafile": None}] * 2


def test_where_the_system_has_none_those_of_httpx_are(
    loaded: list[dict[str, str | None]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    nothing: list[dict[str, str | None]] = [{}, {"capath": str(tmp_path)}]
    for found in nothing:
        paths(monkeypatch, **found)
        default_context({"SSL_CERT_FILE": "", "SSL_CERT_DIR": ""})
    assert loaded == [{"cafile": certifi.where()}] * 2


def test_windows_has_its_own_store(
    loaded: list[dict[str, str | None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    paths(monkeypatch)
    default_context({})
    assert loaded == [{"cafile": None}]


def test_a_file_and_a_directory_replace_them(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    context = default_context({"SSL_CERT_FILE": str(file)})
    assert context.cert_store_stats()["x509_ca"] == 1
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    context = default_context({"SSL_CERT_DIR": str(tmp_path)})
    assert context.cert_store_stats()["x509_ca"] == 0
    both = {"SSL_CERT_FILE": str(file), "SSL_CERT_DIR": str(tmp_path)}
    assert default_context(both).cert_store_stats()["x509_ca"] == 1


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("SSL_CERT_FILE", "missing.pem", "No such file"),
        ("SSL_CERT_FILE", "notes.txt", "no certificates in"),
        ("SSL_CERT_DIR", "missing", "no such directory"),
        ("SSL_CERT_DIR", "notes.txt", "no such directory"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(
    tmp_path: Path, name: str, value: str, words: str
) -> None:
    (tmp_path / "notes.txt").write_text("nothing to trust")
    path = str(tmp_path / value)
    with pytest.raises(LocalProtocolError, match=f"^{name}: .*{words}") as raised:
        default_context({name: path})
    assert path in str(raised.value)


# A context that is given


def test_a_context_for_clients() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    assert check_context(context) is context


def test_a_context_for_servers_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="one for servers, not for clients"):
        check_context(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))


@pytest.mark.parametrize("context", [True, "ca.pem"])
def test_what_is_no_context_is_refused(context: Any) -> None:
    with pytest.raises(LocalProtocolError, match=r"^ssl_context must be an ssl\.SSLContext, not "):
        check_context(context)
