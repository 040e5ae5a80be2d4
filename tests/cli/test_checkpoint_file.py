from __future__ import annotations

import os
from pathlib import Path

import pytest

from s2frames.checkpoint import Checkpoint
from s2frames.cli.checkpoint_file import CheckpointFile
from s2frames.cli.failures import Failure

CHECKPOINT = Checkpoint(5, 5, ())


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    file = CheckpointFile(tmp_path / "file")
    assert file.load() is None
    file.save(Checkpoint(1, 1, ()))
    file.save(CHECKPOINT)
    assert file.load() == CHECKPOINT
    assert os.listdir(tmp_path) == ["file"]


def test_a_name_alone_is_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = CheckpointFile(Path("file"))
    assert file.load() is None
    file.save(CHECKPOINT)
    assert (tmp_path / "file").read_text() == f"{CHECKPOINT.to_json()}\n"


def test_a_file_that_cannot_be_written_keeps_what_it_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = CheckpointFile(tmp_path / "file")
    file.save(CHECKPOINT)

    def fail(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(Failure, match="file: No space left on device"):
        file.save(Checkpoint(9, 9, ()))
    assert file.load() == CHECKPOINT
    assert os.listdir(tmp_path) == ["file"]


def test_a_directory_that_is_missing_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="missing/file: its directory is missing"):
        CheckpointFile(tmp_path / "missing" / "file").load()


def test_a_directory_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(Failure, match="folder: Is a directory"):
        CheckpointFile(tmp_path / "folder").load()


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[]", b"{}", b"nonsense", b"[" * 100_000])
def test_what_is_no_checkpoint_is_told_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(Failure, match=r"file: .*checkpoint"):
        CheckpointFile(path).load()
    assert path.read_bytes() == content
