from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from attrs import evolve

import s2frames
from embedded.host import BASIN, EPOCH, RECORDS, S2S, Host, HostStores, SqliteStores, drain_messages
from embedded.test_service import StreamModel
from s2_bodies import bodies, encode_batch
from s2frames.embedded import Service, StoreError
from s2frames.embedded.sqlite_store import FORMAT_VERSION, SqliteStore
from s2frames.records import StreamPosition, fence, trim
from s2frames.u64 import U64_MAX

KEY = (BASIN, "room/1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data.s2"


def host_over(store: SqliteStore) -> Host:
    return Host(Service(store, random=lambda: 0.5))


def make_stream(store: SqliteStore, **config: object) -> Host:
    host = host_over(store)
    host.send_json("PUT", f"/v1/basins/{BASIN}", {"config": {"create_stream_on_read": True}})
    host.send_json("PUT", "/v1/streams/room%2F1", config)
    return host


def test_everything_is_there_when_the_file_is_opened_again(path: Path) -> None:
    with SqliteStore(path) as store:
        host = make_stream(store, timestamping={"mode": "client-require", "uncapped": True})
        host.append_ok(*(evolve(r, timestamp=U64_MAX) for r in bodies("a", "b", "c")))
        host.append_ok(*(evolve(r, timestamp=5) for r in (fence("token"), trim(2))))
        lists = [host.send("GET", f"/v1/{kind}").json for kind in ("basins", "streams")]
        details = [
            host.send("GET", f"/v1/{name}").json for name in (f"basins/{BASIN}", "streams/room%2F1")
        ]
    with SqliteStore(path) as store:
        state = store.state(KEY)
        assert state.tail == StreamPosition(5, U64_MAX)
        assert (state.fencing_token, state.trim_point) == ("token", 2)
        assert [r.seq_num for r in store.read(KEY, 0, 99)] == [2, 3, 4]
        assert store.find_timestamp(KEY, U64_MAX) == 2
        again = host_over(store)
        assert [again.send("GET", f"/v1/{k}").json for k in ("basins", "streams")] == lists
        assert details == [
            again.send("GET", f"/v1/{name}").json
            for name in (f"basins/{BASIN}", "streams/room%2F1")
        ]


def test_what_was_trimmed_leaves_the_file(path: Path) -> None:
    with SqliteStore(path) as store:
        host = make_stream(store)
        for _ in range(3):
            host.append_ok(*bodies("a", "b"))
        host.append_ok(trim(5))
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT end FROM appends").fetchall() == [(6,), (7,)]
    database.close()


def test_appends_that_come_together_are_committed_together(
    path: Path,
) -> None:
    with SqliteStore(path) as store:
        host = make_stream(store)
        statements: list[str] = []
        store._database.set_trace_callback(statements.append)
        session = host.open("POST", RECORDS, S2S)
        session.receive_data(encode_batch(bodies("a")) * 9 + encode_batch(bodies("x"), 99), EPOCH)
        assert statements.count("COMMIT") == 1
        # Nine acks, and the error of the last one, which changes nothing of that.
        assert len(drain_messages(session)) == 10
        assert not store._database.in_transaction


def test_what_was_not_committed_is_gone(path: Path) -> None:
    with SqliteStore(path) as store:
        host = make_stream(store)
        host.append_ok(*bodies("a"))
        state = store.state(KEY)
        records = list(store.read(KEY, 0, 9))
        more = [evolve(records[0], seq_num=1)]
        tail = StreamPosition(2, state.tail.timestamp)
        store.append(KEY, more, evolve(state, tail=tail))
        assert store.state(KEY).tail == tail
    with SqliteStore(path) as store:
        assert store.state(KEY) == state


def test_a_file_belongs_to_one_process(path: Path) -> None:
    with SqliteStore(path), pytest.raises(StoreError) as raised:
        SqliteStore(path)
    assert str(raised.value) == f"{path}: another process is using it"
    SqliteStore(path).close()


def write_other_format(path: Path) -> None:
    SqliteStore(path).close()
    with sqlite3.connect(path) as database:
        database.execute(f"PRAGMA user_version = {FORMAT_VERSION + 1}")
    database.close()


def write_other_database(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE mine (x)")
    database.close()


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (write_other_format, "it has format 2, and this release reads 1"),
        (write_other_database, "this is no file of the embedded service"),
        (lambda path: path.write_bytes(b"hello" * 1000), "this is no file of the embedded service"),
        (lambda path: path.mkdir(), "unable to open database file"),
    ],
)
def test_other_files_are_refused_and_left_alone(
    path: Path, write: Callable[[Path], object], said: str
) -> None:
    write(path)
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(StoreError) as raised:
        SqliteStore(path)
    assert str(raised.value) == f"{path}: {said}"
    assert (path.read_bytes() if path.is_file() else b"") == before


def test_no_name_of_a_file_is_a_special_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    SqliteStore(":memory:").close()
    assert (tmp_path / ":memory:").is_file()


def test_a_write_that_fails_ends_the_store(path: Path) -> None:
    with SqliteStore(path) as store:
        host = make_stream(store)
        pages = store._database.execute("PRAGMA page_count").fetchone()[0]
        store._database.execute(f"PRAGMA max_page_count = {pages + 1}")
        session = host.open("POST", RECORDS, S2S)
        with pytest.raises(StoreError, match="full"):
            session.receive_data(
                encode_batch(bodies("a")) + encode_batch(bodies("b" * 100_000)), EPOCH
            )
        with pytest.raises(StoreError):
            host.append(bodies("c"))
    with SqliteStore(path) as store:
        # No ack came out of that call, and the first batch went with the second one.
        assert store.state(KEY).tail.seq_num == 0


def test_damage_is_told(path: Path) -> None:
    with SqliteStore(path) as store:
        make_stream(store).append_ok(*bodies("a"))
    with sqlite3.connect(path) as database:
        database.execute("UPDATE appends SET records = x'ff'")
    database.close()
    with SqliteStore(path) as store, pytest.raises(StoreError, match="damaged"):
        list(store.read(KEY, 0, 9))


def test_lists_are_of_one_basin(path: Path) -> None:
    with SqliteStore(path) as store:
        host = make_stream(store)
        host.send("PUT", "/v1/basins/other-basin")
        host.send("PUT", "/v1/streams/elsewhere", basin="other-basin")
        found = [info.key for info in store.streams("other-basin", "else", "")]
        assert found == [("other-basin", "elsewhere")]
        assert list(store.streams(BASIN, "\ud800", "")) == []


KILLED = """
import sys, time
from embedded.host import Host
from s2_bodies import bodies
from embedded.test_sqlite_store import make_stream
from s2frames.embedded.sqlite_store import SqliteStore
host = make_stream(SqliteStore(sys.argv[1]))
while True:
    ack = host.append_ok(*bodies("a", "b"))
    print(ack.end.seq_num, flush=True)
"""


def test_a_killed_process_leaves_what_it_acked(path: Path) -> None:
    assert s2frames.__file__ is not None
    root = Path(s2frames.__file__).parent.parent
    env = {"PYTHONPATH": f"{root}:{Path(__file__).parent.parent}"}
    command = [sys.executable, "-W", "error", "-c", KILLED, str(path)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        for _ in range(20):
            running.stdout.readline()
        running.kill()
        acked = [int(line) for line in running.stdout.read().split()]
        assert running.wait() == -signal.SIGKILL
    with SqliteStore(path) as store:
        tail = store.state(KEY).tail.seq_num
        assert tail >= max([40, *acked])
        assert tail % 2 == 0
        assert [r.seq_num for r in store.read(KEY, 0, tail)] == list(range(tail))


class SqliteStreamModel(StreamModel):
    """The model of a stream, over a file."""

    _folders: Callable[[], Path]

    def __init__(self) -> None:
        stores = SqliteStores(self._folders())
        before, HostStores.make = HostStores.make, stores
        try:
            super().__init__()
        finally:
            HostStores.make = before
        self._stores = stores

    def teardown(self) -> None:
        super().teardown()
        self._stores.close()


class TestSqliteStreamModel(SqliteStreamModel.TestCase):  # type: ignore[misc, valid-type]
    """Runs it."""

    @pytest.fixture(autouse=True)
    def folders(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        SqliteStreamModel._folders = staticmethod(lambda: tmp_path_factory.mktemp("model"))
