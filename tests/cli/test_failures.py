from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.cli.address import StreamAddress
from s2frames.cli.exit_codes import ExitCode
from s2frames.cli.failures import (
    Failure,
    count,
    describe,
    explain,
    explained,
    is_terminal,
    one_line,
    say,
    say_error,
    say_interrupted,
)
from s2frames.error_bodies import parse_error
from s2frames.errors import (
    CertificateError,
    ConnectError,
    FencingTokenMismatch,
    LocalProtocolError,
    Outcome,
    RangeNotSatisfiable,
    RemoteProtocolError,
    S2FramesError,
    SeqNumMismatch,
    ServiceError,
    TransportError,
)
from s2frames.records import StreamPosition


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (ServiceError(404, "basin_not_found", "no"), "create the basin"),
        (ServiceError(404, "basin_not_found", "no"), "S2_BASIN_ENDPOINT"),
        (ServiceError(404, "stream_not_found", "no"), "create the stream"),
        (ServiceError(409, "stream_deletion_pending", "no"), "being deleted"),
        (ServiceError(409, "basin_deletion_pending", "no"), "being deleted"),
        (ServiceError(401, "authn", "no"), "set S2_ACCESS_TOKEN"),
        (ServiceError(403, "permission_denied", "no"), "set S2_ACCESS_TOKEN"),
        (ServiceError(403, "quota_exhausted", "no"), "allows no more"),
        (ServiceError(400, "decryption_failed", "no"), "encrypted"),
        (ServiceError(429, "rate_limited", "no"), "try again"),
        (ServiceError(503, "unavailable", "no"), "try again"),
        (FencingTokenMismatch("other"), "fenced"),
        (RangeNotSatisfiable(StreamPosition(7, 0)), "sequence number 7; start there or before"),
        (ConnectError("no"), "is the service running there?"),
        (ConnectError("no"), "S2_ACCOUNT_ENDPOINT"),
        (CertificateError("no"), "SSL_CERT_FILE"),
        (TransportError("no"), "try again"),
        (RemoteProtocolError("no"), "is that an S2 endpoint?"),
        (parse_error(404, b"<html>"), "is that an S2 endpoint?"),
        (parse_error(200, b"[]"), "--endpoint"),
    ],
)
def test_what_to_do_follows_what_happened(error: S2FramesError, hint: str) -> None:
    line = explain(error)
    assert line.startswith(str(error))
    assert hint in line.removeprefix("no")


@pytest.mark.parametrize(
    "error",
    [ServiceError(422, "invalid", "no such thing"), LocalProtocolError("no such thing")],
)
def test_where_nothing_helps_nothing_is_said(error: S2FramesError) -> None:
    assert explain(error) == str(error)


def test_a_condition_is_no_sign_of_another_service() -> None:
    assert "S2 endpoint" not in explain(FencingTokenMismatch("t"))
    assert "S2 endpoint" not in explain(RangeNotSatisfiable(StreamPosition(1, 1)))


@pytest.mark.parametrize(
    ("durable", "outcome", "said"),
    [
        (0, Outcome.NOT_APPLIED, "; 0 messages durable;"),
        (1, Outcome.NOT_APPLIED, "; 1 message durable"),
        (0, Outcome.UNKNOWN, "; 0 messages durable, more may be"),
        (2, Outcome.UNKNOWN, "; 2 messages durable, more may be"),
    ],
)
def test_an_append_that_failed_says_what_is_durable(
    durable: int, outcome: Outcome, said: str
) -> None:
    error = TransportError("it broke")
    error.durable_messages, error.outcome = durable, outcome
    assert said in explain(error)
    assert explain(error).count("durable") == 1
    # Once something may be durable, to try again would be to append it twice.
    assert ("try again" in explain(error)) == (durable == 0 and outcome is Outcome.NOT_APPLIED)


def test_a_token_that_the_service_repeats_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2_ACCESS_TOKEN", "made-up-token")
    line = explain(ServiceError(401, "authn", "who is made-up-token?"))
    assert "made-up" not in line
    assert "who is [secret]?" in line


def test_a_token_is_hidden_where_the_message_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2_ACCESS_TOKEN", "made-up-token")
    for before in (394, 494):
        line = explain(ServiceError(401, "authn", "x" * before + "made-up-token" + "x" * 100))
        assert "made-up" not in line
        assert "..." in line


def test_a_long_text_does_not_hide_what_is_durable() -> None:
    error = ServiceError(503, "unavailable", "x" * 100_000)
    error.durable_messages, error.outcome, error.attempts = 7, Outcome.UNKNOWN, 3
    said = describe(error)
    assert len(said) < 510
    assert said.endswith("; tried 3 times; 7 messages durable, more may be")


def test_a_page_is_not_shown_whole() -> None:
    assert len(explain(ServiceError(422, "invalid", "x" * 100_000))) < 600


@given(st.text())
def test_a_line_is_one_line_and_steers_nothing(text: str) -> None:
    line = one_line(text)
    assert line.isprintable()
    assert line == text or not text.isprintable()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größer 聊天 ☕", "größer 聊天 ☕"),
        ("a\nb\r\tc", "a\\nb\\r\\tc"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\udcff", "\\udcff"),
    ],
)
def test_what_cannot_be_shown_is_escaped(text: str, shown: str) -> None:
    assert one_line(text) == shown


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 messages"), (1, "1 message"), (2, "2 messages")]
)
def test_nouns_agree(number: int, text: str) -> None:
    assert count(number, "message") == text


def test_errors_of_the_library_become_failures_that_name_the_stream() -> None:
    error = SeqNumMismatch(3)
    with (
        pytest.raises(Failure, match=r"^s2://my-basin/a: .* is 3") as caught,
        explained(StreamAddress("my-basin", "a")),
    ):
        raise error
    assert caught.value.exit_code is ExitCode.FAILED
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [ValueError("a bug"), KeyboardInterrupt(), OSError("full")])
def test_other_errors_pass(error: BaseException) -> None:
    with pytest.raises(type(error)), explained(StreamAddress("my-basin", "a")):
        raise error


def test_what_is_closed_is_no_terminal() -> None:
    assert not is_terminal(None)


def test_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    say("so\nso")
    say_error("no")
    assert say_interrupted(1) is ExitCode.INTERRUPTED
    output, errors = capsys.readouterr()
    assert output == ""
    assert errors == "so\\nso\nerror: no\ninterrupted: 1 message known to be durable\n"


def test_an_interruption_starts_below_the_terminals_ctrl_c(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    say_interrupted(2)
    assert capsys.readouterr().err == "\ninterrupted: 2 messages known to be durable\n"
