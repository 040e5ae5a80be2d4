from __future__ import annotations

import socket
import threading
from typing import Any

import pytest

from s2frames_httpx import addresses
from s2frames_httpx.addresses import Address, Resolver, in_order, look_up_literal

V4, V6 = socket.AF_INET, socket.AF_INET6


def address(family: int, name: str) -> Address:
    return Address(family, (name, 80))


def test_families_take_turns() -> None:
    given = [address(V6, "a"), address(V6, "b"), address(V6, "c"), address(V4, "d")]
    assert [one.name[0] for one in in_order(given)] == ["a", "d", "b", "c"]


def test_the_first_family_stays_the_first() -> None:
    given = [address(V4, "a"), address(V6, "b"), address(V4, "c")]
    assert [one.name[0] for one in in_order(given)] == ["a", "b", "c"]
    assert in_order([]) == []


@pytest.mark.parametrize(("host", "family"), [("127.0.0.1", V4), ("::1", V6)])
def test_an_address_needs_no_resolving(host: str, family: int) -> None:
    found = look_up_literal(host, 80)
    assert found is not None
    assert [(one.family, one.name[:2]) for one in found] == [(family, (host, 80))]


def test_a_name_is_no_address() -> None:
    assert look_up_literal("localhost", 80) is None


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
def test_what_no_name_can_be(host: str) -> None:
    with pytest.raises(UnicodeError):
        look_up_literal(host, 80)


# In threads


def found(*hosts: str) -> list[tuple[Any, ...]]:
    return [(V4, socket.SOCK_STREAM, 0, "", (host, 80)) for host in hosts]


def test_a_name_is_resolved_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def getaddrinfo(*_args: Any, **_options: Any) -> list[tuple[Any, ...]]:
        threads.append(threading.current_thread())
        return found("10.0.0.1", "10.0.0.2", "10.0.0.1")

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    done = threading.Event()
    lookup = Resolver().start("example.com", 80, done.set)
    assert done.wait(60)
    result = lookup.result()
    assert result == [address(V4, "10.0.0.1"), address(V4, "10.0.0.2")]
    assert [thread.daemon for thread in threads] == [True]
    assert threads[0] is not threading.current_thread()


@pytest.mark.parametrize("error", [socket.gaierror(-2, "no such name"), UnicodeError("no name")])
def test_what_resolving_raises_is_raised_where_it_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def getaddrinfo(*_args: Any, **_options: Any) -> list[tuple[Any, ...]]:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    done = threading.Event()
    lookup = Resolver().start("example.com", 80, done.set)
    assert done.wait(60)
    with pytest.raises(type(error)):
        lookup.result()


def test_there_are_only_so_many_threads_and_the_others_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(addresses, "_MAX_THREADS", 2)
    entered = threading.Semaphore(0)
    go_on = threading.Event()
    resolved: list[str] = []
    num_at_once: list[int] = []
    inside: set[str] = set()

    def getaddrinfo(host: str, *_args: Any, **_options: Any) -> list[tuple[Any, ...]]:
        inside.add(host)
        num_at_once.append(len(inside))
        entered.release()
        assert go_on.wait(60)
        inside.discard(host)
        resolved.append(host)
        return found(host)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    resolver = Resolver()
    bells = [threading.Event() for _ in range(5)]
    lookups = [resolver.start(f"h{n}", 80, bell.set) for n, bell in enumerate(bells)]
    for _ in range(2):
        assert entered.acquire(timeout=60)
    assert [lookup.result() for lookup in lookups] == [None] * 5
    # Nobody waits for this one any more: it is passed over.
    lookups[3].give_up()
    go_on.set()
    assert all(bell.wait(60) for bell in bells)
    assert sorted(resolved) == ["h0", "h1", "h2", "h4"]
    assert lookups[3].result() is None
    assert max(num_at_once) == 2


def test_a_thread_too_many_leaves_its_work_to_the_others() -> None:
    resolver = Resolver()
    permits, resolver._permits = resolver._permits, []
    lookup = resolver.start("example.com", 80, lambda: None)
    resolver._work()
    assert list(resolver._lookups) == [lookup]
    assert len(permits) > 1
