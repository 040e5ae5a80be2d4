from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2frames.cli import inputs
from s2frames.cli.inputs import STDIN, InputError, Lines, whole_files

LIMIT = 1000


def give_stdin(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(data)))


def make(folder: Path, **files: bytes) -> list[str]:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return [str(folder / name) for name in files]


def take(bunches: Iterator[Iterator[bytes]]) -> tuple[list[bytes], str | None]:
    """All messages, and why there are no more, if that is an error."""
    messages: list[bytes] = []
    try:
        for bunch in bunches:
            messages += bunch
    except InputError as error:
        return messages, str(error)
    return messages, None


def take_lines(*names: str, max_bytes: int = LIMIT) -> tuple[list[bytes], str | None]:
    with Lines(names, max_bytes) as lines:
        return take(lines.bunches())


# Whole files


def test_each_file_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b"from stdin\n")
    first, second = make(tmp_path, a=b"a\n", b=bytes(range(256)))
    assert take(whole_files([first, STDIN, second], LIMIT)) == (
        [b"a\n", b"from stdin\n", bytes(range(256))],
        None,
    )


def test_a_large_file_comes_in_several_blocks(tmp_path: Path) -> None:
    data = os.urandom(1_000_001)
    assert take(whole_files(make(tmp_path, a=data), len(data))) == ([data], None)


@pytest.mark.parametrize("size", [LIMIT, LIMIT + 1])
def test_the_limit_is_exact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    data = b"x" * size
    give_stdin(monkeypatch, data)
    for names in ([STDIN], make(tmp_path, a=data)):
        messages, error = take(whole_files(names, LIMIT))
        assert messages == ([data] if size == LIMIT else [])
        assert (error is None) == (size == LIMIT)
        assert error is None or str(LIMIT) in error


def test_a_file_that_is_too_large_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(2**40)
    monkeypatch.setattr(inputs, "_blocks", lambda _name: pytest.fail("it was read"))
    messages, error = take(whole_files([str(large)], LIMIT))
    assert messages == []
    assert error == (f"{large}: it has {2**40} bytes, and a message has at most {LIMIT} bytes")


@pytest.mark.parametrize("bad", ["missing", "folder", "empty", "large"])
def test_a_bad_file_is_seen_before_anything_is_sent(tmp_path: Path, bad: str) -> None:
    (good,) = make(tmp_path, good=b"good")
    make(tmp_path, empty=b"", large=b"x" * (LIMIT + 1))
    (tmp_path / "folder").mkdir()
    messages, error = take(whole_files([good, str(tmp_path / bad)], LIMIT))
    assert messages == []
    assert error is not None
    assert error.startswith(f"{tmp_path / bad}: ")


def test_a_file_that_changes_meanwhile_ends_the_messages(tmp_path: Path) -> None:
    names = make(tmp_path, a=b"a", b=b"b", c=b"c")
    bunches = whole_files(names, LIMIT)
    bunch = next(bunches)
    Path(names[1]).unlink()
    assert list(bunch) == [b"a"]
    with pytest.raises(InputError, match="No such file"):
        next(bunches)


@pytest.mark.parametrize("name", ["/proc/self/status", "/proc/version"])
def test_a_file_with_content_and_no_size_is_read(name: str) -> None:
    if not os.path.exists(name):
        pytest.skip(f"there is no {name}")
    assert os.stat(name).st_size == 0
    messages, error = take(whole_files([name], 100_000))
    assert error is None
    assert [len(message) > 0 for message in messages] == [True]


def test_a_pipe_is_opened_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"through the pipe",))
    writer.start()
    assert take(whole_files([str(pipe)], LIMIT)) == ([b"through the pipe"], None)
    writer.join()


@pytest.mark.parametrize(("data", "said"), [(b"", "it is empty"), (b"x" * (LIMIT + 1), "at most")])
def test_standard_input_is_called_so(
    monkeypatch: pytest.MonkeyPatch, data: bytes, said: str
) -> None:
    give_stdin(monkeypatch, data)
    messages, error = take(whole_files([STDIN], LIMIT))
    assert messages == []
    assert error is not None
    assert error.startswith("standard input: ")
    assert said in error


@pytest.mark.parametrize("as_lines", [False, True])
def test_closed_standard_input_is_an_error(monkeypatch: pytest.MonkeyPatch, as_lines: bool) -> None:
    monkeypatch.setattr("sys.stdin", None)
    result = take_lines(STDIN) if as_lines else take(whole_files([STDIN], LIMIT))
    assert result == ([], "standard input: it is closed")


def test_input_that_does_not_block_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    waits: list[object] = []

    def feed(readable: list[object], *_: object) -> None:
        waits.append(readable)
        if len(waits) == 1:
            os.write(writing, b"late")
        else:
            os.close(writing)

    monkeypatch.setattr("select.select", feed)
    with open(reading) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        assert take(whole_files([STDIN], LIMIT)) == ([b"late"], None)
    assert len(waits) == 2


# Lines


@pytest.mark.parametrize(
    ("data", "lines", "num_empty"),
    [
        (b"", [], 0),
        (b"\n", [], 1),
        (b"a", [b"a"], 0),
        (b"a\n", [b"a"], 0),
        (b"a\nb", [b"a", b"b"], 0),
        (b"\n\na\n\nb\n\n", [b"a", b"b"], 4),
        (b"a\r\n\r\n", [b"a\r", b"\r"], 0),
        (b"a\x00\xff\x0b\x0c\x85\n", [b"a\x00\xff\x0b\x0c\x85"], 0),
    ],
)
def test_lines_end_in_a_newline_and_nothing_else(
    tmp_path: Path, data: bytes, lines: list[bytes], num_empty: int
) -> None:
    with Lines(make(tmp_path, a=data), LIMIT) as reading:
        assert take(reading.bunches()) == (lines, None)
        assert reading.num_empty == num_empty


@given(
    st.lists(st.binary(max_size=50).map(lambda data: data.replace(b"x", b"\n")), max_size=4),
    st.integers(1, 20),
)
def test_it_does_not_matter_how_the_bytes_arrive(files: list[bytes], block_bytes: int) -> None:
    splitter = inputs._Splitter(LIMIT)
    lines: list[bytes] = []
    for data in files:
        blocks = [data[at : at + block_bytes] for at in range(0, len(data), block_bytes)]
        for block in (*blocks, b""):
            lines += splitter.split(inputs._Block("file", block))
    expected = [line for data in files for line in data.split(b"\n")]
    assert [line for line in lines if line] == [line for line in expected if line]


def test_the_last_line_of_a_file_ends_with_the_file(tmp_path: Path) -> None:
    assert take_lines(*make(tmp_path, a=b"1\n2", b=b"3\n4")) == ([b"1", b"2", b"3", b"4"], None)


@pytest.mark.parametrize(("size", "number"), [(LIMIT, None), (LIMIT + 1, 3)])
def test_a_line_over_the_limit_is_named(tmp_path: Path, size: int, number: int | None) -> None:
    names = make(tmp_path, a=b"1\n2\n3\n4\n", b=b"1\n2\n" + b"x" * size + b"\n4\n")
    lines, error = take_lines(*names)
    if number is None:
        assert error is None
        assert lines[-2:] == [b"x" * size, b"4"]
    else:
        assert lines == [b"1", b"2", b"3", b"4", b"1", b"2"]
        assert error == (
            f"{names[1]}: line {number} has more, and a message has at most {LIMIT} bytes"
        )


def test_a_line_without_end_is_refused_in_bounded_memory() -> None:
    splitter = inputs._Splitter(LIMIT)
    block = inputs._Block("file", b"x" * 100)
    for _ in range(LIMIT // 100):
        assert list(splitter.split(block)) == []
    with pytest.raises(InputError, match="line 1 has more"):
        list(splitter.split(block))


@pytest.mark.parametrize("bad", ["missing", "folder"])
def test_the_lines_before_a_bad_file_come_first(tmp_path: Path, bad: str) -> None:
    (good,) = make(tmp_path, good=b"1\n2")
    (tmp_path / "folder").mkdir()
    lines, error = take_lines(good, str(tmp_path / bad), good)
    assert lines == [b"1", b"2"]
    assert error is not None
    assert error.startswith(f"{tmp_path / bad}: ")


def test_a_bunch_ends_where_one_would_have_to_wait(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with Lines([str(pipe)], LIMIT) as lines, pipe.open("wb", buffering=0) as writer:
        bunches = lines.bunches()
        for text in (b"one", b"two", b"three"):
            writer.write(text + b"\nhalf of ")
            # The writer is still there, and this ends all the same.
            (line,) = list(next(bunches))
            assert line.removeprefix(b"half of ") == text
        writer.close()
        assert take(bunches) == ([b"half of "], None)


def test_reading_ahead_is_bounded_and_ends_with_the_block(tmp_path: Path) -> None:
    endless = tmp_path / "large"
    with endless.open("wb") as file:
        file.truncate(2**40)
    before = set(threading.enumerate())
    with Lines([str(endless)], 2**50) as lines:
        (thread,) = set(threading.enumerate()) - before
        next(lines.bunches())
        assert lines._queue.maxsize * inputs._BLOCK_BYTES == 16 * 1024 * 1024
    thread.join()
