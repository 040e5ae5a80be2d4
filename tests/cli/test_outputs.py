from __future__ import annotations

import os
from io import BufferedWriter, RawIOBase, TextIOWrapper
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.cli.failures import Failure
from s2frames.cli.outputs import Directory, Stdout
from s2frames.u64 import U64_MAX


class Pipe(RawIOBase):
    """What standard output leads to."""

    def __init__(self, *, is_terminal: bool = False) -> None:
        self.arrived = b""
        self._is_terminal = is_terminal

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return self._is_terminal

    def write(self, data: Any) -> int:
        self.arrived += bytes(data)
        return len(data)


def redirect(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    monkeypatch.setattr("sys.stdout", TextIOWrapper(BufferedWriter(pipe)))


@pytest.mark.parametrize(("is_live", "is_terminal"), [(True, False), (False, True)])
def test_live_output_is_sent_on_at_once(
    monkeypatch: pytest.MonkeyPatch, is_live: bool, is_terminal: bool
) -> None:
    redirect(monkeypatch, pipe := Pipe(is_terminal=is_terminal))
    output = Stdout(is_live=is_live)
    output.put(0, b"a\x00\xff")
    assert pipe.arrived == b"a\x00\xff\n"
    output.put(1, b"\n")
    assert pipe.arrived == b"a\x00\xff\n\n\n"


def test_other_output_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    redirect(monkeypatch, pipe := Pipe())
    output = Stdout(is_live=False)
    for start in range(10):
        output.put(start, b"abc")
    assert pipe.arrived == b""


def test_closed_output_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", None)
    with pytest.raises(Failure, match="standard output is closed"):
        Stdout(is_live=False)


def test_a_directory_gets_a_file_a_message(tmp_path: Path) -> None:
    output = Directory(tmp_path / "a" / "b")
    output.put(7, b"seven")
    output.put(U64_MAX, b"\x00\n\xff")
    files = {path.name: path.read_bytes() for path in (tmp_path / "a" / "b").iterdir()}
    assert files == {"0" * 19 + "7": b"seven", str(U64_MAX): b"\x00\n\xff"}


@given(st.sets(st.integers(0, U64_MAX), min_size=1))
def test_names_sort_as_the_numbers_do(
    tmp_path_factory: pytest.TempPathFactory, starts: set[int]
) -> None:
    folder = tmp_path_factory.mktemp("output")
    for start in starts:
        Directory(folder).put(start, b"x")
    assert [int(name) for name in sorted(os.listdir(folder))] == sorted(starts)


@pytest.mark.parametrize("kind", ["file", "directory", "link to nowhere"])
def test_what_exists_is_never_replaced(tmp_path: Path, kind: str) -> None:
    existing = tmp_path / ("0" * 20)
    match kind:
        case "file":
            existing.write_bytes(b"precious")
        case "directory":
            existing.mkdir()
        case _:
            existing.symlink_to("nowhere")
    with pytest.raises(Failure, match="exists already"):
        Directory(tmp_path).put(0, b"new")
    assert os.listdir(tmp_path) == [existing.name]
    if kind == "file":
        assert existing.read_bytes() == b"precious"


def test_a_file_is_there_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def fail(partial: Path, _payload: bytes) -> int:
        partial.touch()
        seen.append(os.listdir(tmp_path))
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(Failure, match=r"0000: No space left on device$"):
        Directory(tmp_path).put(0, b"new")
    assert len(seen) == 1
    assert all(name.startswith(".") for name in seen[0])
    assert os.listdir(tmp_path) == []


def test_ctrl_c_leaves_no_half_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(partial: Path, _target: Path) -> None:
        assert partial.exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Directory(tmp_path).put(0, b"new")
    assert os.listdir(tmp_path) == []


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileExistsError):
        Directory(tmp_path / "file")
