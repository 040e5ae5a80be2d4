"""Which stores the tests run over: the service's own tests run over each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from embedded.host import HostStores, SqliteStores
from s2frames.embedded import MemoryStore, Store

STORES = ["memory", "sqlite"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests whose module makes hosts run over each store."""
    if hasattr(metafunc.module, "make_host") and "backend" not in metafunc.fixturenames:
        metafunc.parametrize("store_of_hosts", STORES, indirect=True)


@pytest.fixture(params=STORES)
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[], Store]]:
    """What makes an empty store, of each kind."""
    with_files = SqliteStores(tmp_path)
    yield MemoryStore if request.param == "memory" else with_files
    with_files.close()


@pytest.fixture(autouse=True)
def store_of_hosts(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[None]:
    """Hosts get stores of this kind, in memory unless something else is asked for."""
    if getattr(request, "param", "memory") == "memory":
        yield
        return
    stores = SqliteStores(tmp_path_factory.mktemp("stores"))
    monkeypatch.setattr(HostStores, "make", stores)
    yield
    stores.close()
