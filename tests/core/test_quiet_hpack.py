from __future__ import annotations

import logging
from typing import Any

import pytest

from s2frames.quiet_hpack import quieten

# An extra brings them, where this is of use.
hpack = pytest.importorskip("hpack")
h2_connection = pytest.importorskip("h2.connection")

SECRET = "token-that-is-secret"
HEADERS = [
    (":method", "GET"),
    (":path", "/"),
    ("authorization", SECRET),
    *((f"x-{number}", "y" * 200) for number in range(40)),
]


def make_connection() -> Any:
    connection = h2_connection.H2Connection()
    connection.decoder.max_header_list_size = 12_345
    return connection


def exchange(connection: Any) -> None:
    """Encode and decode more than the tables hold."""
    for _ in range(2):
        block = connection.encoder.encode(HEADERS)
        decoded = connection.decoder.decode(block)
        assert [(name, value) for name, value in decoded] == HEADERS


def test_hpack_logs_headers(caplog: pytest.LogCaptureFixture) -> None:
    # Else the next test could not fail.
    caplog.set_level(logging.DEBUG)
    exchange(make_connection())
    assert SECRET in caplog.text
    assert "Evicting" in caplog.text


def test_a_quiet_connection_logs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    connection = make_connection()
    quieten(connection)
    exchange(connection)
    assert caplog.records == []


def test_nothing_else_changes() -> None:
    loud, quiet = make_connection(), make_connection()
    quieten(quiet)
    assert quiet.encoder.encode(HEADERS) == loud.encoder.encode(HEADERS)
    assert quiet.decoder.max_header_list_size == 12_345
    assert quiet.decoder.max_allowed_table_size == loud.decoder.max_allowed_table_size
    with pytest.raises(hpack.HPACKDecodingError):
        quiet.decoder.decode(b"\xff" * 9)
    with pytest.raises(hpack.OversizedHeaderListError):
        quiet.decoder.decode(loud.encoder.encode([("x", "y" * 13_000)]))
    (header,) = quiet.decoder.decode(hpack.Encoder().encode([("x", "y", True)]))
    assert isinstance(header, hpack.NeverIndexedHeaderTuple)
    # The others log as before.
    assert isinstance(hpack.hpack.log, logging.Logger)


def test_without_hpack(monkeypatch: pytest.MonkeyPatch) -> None:
    from s2frames import quiet_hpack

    monkeypatch.setattr(quiet_hpack, "find_spec", lambda _name: None)
    quiet_hpack._quiet_hpack.cache_clear()
    with pytest.raises(ImportError, match=r"hpack\.hpack"):
        quieten(make_connection())
