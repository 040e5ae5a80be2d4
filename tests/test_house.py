"""Rules of the house that no single module can show."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each folder of modules, and where their tests are.
ROOMS = {
    "s2frames": "core",
    "s2frames/system": "system",
    "s2frames/embedded": "embedded",
    "s2frames/cli": "cli",
    "s2frames_httpx": "httpx_adapter",
    "s2frames_trio": "trio_adapter",
}

PACKAGES = ["s2frames", "s2frames_httpx", "s2frames_trio"]

# The core does no I/O, reads no clock, draws no random number, starts no thread, logs nothing.
IMPURE = frozenset(
    (
        "anyio",
        "asyncio",
        "httpx",
        "logging",
        "os",
        "random",
        "secrets",
        "socket",
        "ssl",
        "threading",
        "time",
        "trio",
        "uuid",
    )
)

# What stands on the core; it knows nothing of them.
ABOVE_THE_CORE = (
    "s2frames.cli",
    "s2frames.embedded",
    "s2frames.system",
    "s2frames_httpx",
    "s2frames_trio",
)


def modules(folder: str) -> list[Path]:
    """The modules of a room; `__main__` is a door to another one, and importing it runs it."""
    return sorted(path for path in (ROOT / folder).glob("*.py") if path.stem != "__main__")


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


ALL_MODULES = [path for folder in ROOMS for path in modules(folder)]
each_module = pytest.mark.parametrize("path", ALL_MODULES, ids=name_of)
each_package = pytest.mark.parametrize("package", PACKAGES)


def test_every_module_is_in_a_room() -> None:
    files = {path for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert {path for path in files if path.stem != "__main__"} == set(ALL_MODULES)
    assert ROOT / "s2frames" / "u64.py" in files


# Purity


def imports(source: str) -> Iterator[str]:
    """Every module that `source` imports, wherever and however it does."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = ".".join(filter(None, ["s2frames" if level else "", module]))
                yield base
                yield from (f"{base}.{alias.name}" for alias in names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def impurities(source: str) -> set[str]:
    """What `source` imports and the core must not."""
    return {
        name
        for name in imports(source)
        if name.split(".")[0] in IMPURE
        or f"{name}.".startswith(tuple(f"{n}." for n in ABOVE_THE_CORE))
    }


@pytest.mark.parametrize("path", modules("s2frames"), ids=name_of)
def test_the_core_is_pure(path: Path) -> None:
    assert impurities(path.read_text()) == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time", "time"),
        ("import json, os.path", "os.path"),
        ("import random as chance", "random"),
        ("from os import environ", "os"),
        ("from asyncio.locks import Lock", "asyncio.locks"),
        ("def f():\n    if g():\n        import socket", "socket"),
        ("try:\n    import trio\nexcept ImportError:\n    trio = None", "trio"),
        ("import importlib\nimportlib.import_module('uuid')", "uuid"),
        ("import_module('httpx')", "httpx"),
        ("__import__('secrets')", "secrets"),
        ("from s2frames import embedded", "s2frames.embedded"),
        ("from s2frames.cli.main import main", "s2frames.cli.main"),
        ("from . import cli", "s2frames.cli"),
        ("from .embedded.service import Service", "s2frames.embedded.service"),
        ("import s2frames_httpx", "s2frames_httpx"),
    ],
)
def test_the_check_for_purity_finds_offenders(source: str, found: str) -> None:
    assert found in impurities(source)


@pytest.mark.parametrize(
    "source",
    [
        "import json, enum, zlib",
        "from s2frames.records import Record",
        "from .timeouts import Timeout",
        "time = 3.0\nrandom = lambda: 0.5",
        "import timeit_like\nfrom s2frames.embedded_in import x",
        "f('import os')",
    ],
)
def test_the_check_for_purity_lets_others_pass(source: str) -> None:
    assert impurities(source) == set()


# Tests


@pytest.mark.parametrize(
    ("folder", "path"),
    [
        pytest.param(folder, path, id=name_of(path))
        for folder in ROOMS
        for path in modules(folder)
        if path.stem != "__init__"
    ],
)
def test_every_module_has_its_test_file(folder: str, path: Path) -> None:
    test_file = ROOT / "tests" / ROOMS[folder] / f"test_{path.stem.lstrip('_')}.py"
    assert test_file.is_file()


# Exports


def is_public(path: Path) -> bool:
    return path.stem == "__init__" or not path.stem.startswith("_")


@each_module
def test_public_modules_say_what_they_export(path: Path) -> None:
    module: Any = import_module(name_of(path))
    assert hasattr(module, "__all__") is is_public(path)
    exported: list[str] = getattr(module, "__all__", [])
    assert [name for name in exported if not hasattr(module, name)] == []
    assert len(exported) == len(set(exported))


def export_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the others: the order that ruff's RUF022 keeps."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@each_package
def test_packages_export_sorted_names(package: str) -> None:
    exported: list[str] = import_module(package).__all__
    assert exported == sorted(exported, key=export_order)


@each_package
def test_packages_are_typed(package: str) -> None:
    file = import_module(package).__file__
    assert file is not None
    assert (Path(file).parent / "py.typed").is_file()
