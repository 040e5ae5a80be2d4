"""HPACK without its log, for what speaks HTTP/2. The core itself has no use for it.

At the level DEBUG hpack logs each header block, and each header of one that it decodes: the access
token and the encryption key are in them, Huffman-coded or plain, though they are marked as secret.
Its log cannot be turned off for some of a process's connections, and is not ours to turn off for
the others. So connections of ours have a copy of hpack, made of its own code, that logs nothing.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

__all__ = ["quieten"]


class _NoLog:
    """A logger that drops everything."""

    def __getattr__(self, name: str) -> _NoLog:
        return self

    def __call__(self, *args: object, **options: object) -> None:
        """Log nothing."""


def quieten(connection: Any) -> None:
    """Let an h2 connection that has not begun log no headers. `ImportError` if hpack lacks."""
    hpack = _quiet_hpack()
    max_bytes = connection.decoder.max_header_list_size
    connection.encoder, connection.decoder = hpack.Encoder(), hpack.Decoder(max_bytes)


@cache
def _quiet_hpack() -> Any:
    copy: Any = _without_log("hpack.hpack")
    copy.HeaderTable = _without_log("hpack.table").HeaderTable
    return copy


def _without_log(name: str) -> Any:
    """The module once more, which is in no list of modules, with no logger in it.

    What it imports is there once, as ever: so its errors and headers are those of hpack.
    """
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no {name}", name=name)
    module: ModuleType = module_from_spec(spec)
    spec.loader.exec_module(module)
    # By what it can do: whatever it is called, and whatever wraps it.
    for attribute, value in list(vars(module).items()):
        if hasattr(value, "isEnabledFor"):
            setattr(module, attribute, _NoLog())
    return module
