"""HTTP requests as values: what the core asks an adapter to send."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import quote

from attrs import field, frozen

__all__ = ["SECRET_HEADERS", "Request", "path_segment", "shown_headers"]

#: Headers whose values are never shown.
SECRET_HEADERS = frozenset(("authorization", "s2-encryption-key"))


def shown_headers(headers: Mapping[str, str]) -> str:
    """Headers as they may be shown: without what is secret."""
    return repr({n: "[secret]" if n.lower() in SECRET_HEADERS else v for n, v in headers.items()})


@frozen
class Request:
    """A request to send. A session's body follows piece by piece; other bodies are whole."""

    method: str
    #: Absolute, with the query.
    url: str
    #: Names in lower case.
    headers: Mapping[str, str] = field(factory=dict, repr=shown_headers)
    body: bytes = field(default=b"", repr=lambda body: f"<{len(body)} bytes>")


def path_segment(name: str) -> str:
    """A name as one segment of a path: everything escaped, "/" too."""
    return quote(name, safe="")
