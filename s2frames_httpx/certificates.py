"""Whom a client trusts: the system's certificates, other ones by variable, or a context."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Mapping
from pathlib import Path

from s2frames.errors import LocalProtocolError

__all__ = ["check_context", "default_context"]

_FILE_VARIABLE = "SSL_CERT_FILE"
_FOLDER_VARIABLE = "SSL_CERT_DIR"


def check_context(context: ssl.SSLContext) -> ssl.SSLContext:
    """Raise `LocalProtocolError` for what no client can use."""
    if not isinstance(context, ssl.SSLContext):
        raise LocalProtocolError(
            f"ssl_context must be an ssl.SSLContext, not {type(context).__name__}"
        )
    if context.protocol is ssl.PROTOCOL_TLS_SERVER:
        raise LocalProtocolError("the ssl_context is one for servers, not for clients")
    return context


def default_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """A context that trusts what the environment says, else what the system does.

    Raises `LocalProtocolError`, which names the variable, for one that cannot be used.
    """
    file, folder = environ.get(_FILE_VARIABLE), environ.get(_FOLDER_VARIABLE)
    if file:
        _check_file(file)
    if folder and not Path(folder).is_dir():
        # OpenSSL looks only when it looks for a certificate, and then in silence.
        raise LocalProtocolError(f"{_FOLDER_VARIABLE}: there is no such directory: {folder}")
    if file or folder:
        return ssl.create_default_context(cafile=file or None, capath=folder or None)
    return ssl.create_default_context(cafile=None if _has_system_any() else _collected())


def _check_file(file: str) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=file)
    except ssl.SSLError:
        raise LocalProtocolError(f"{_FILE_VARIABLE}: there are no certificates in {file}") from None
    except OSError as error:
        raise LocalProtocolError(f"{_FILE_VARIABLE}: {file}: {error.strerror}") from None


def _has_system_any() -> bool:
    """Whether the system has certificates where Python looks for them."""
    if sys.platform == "win32":
        return True
    paths = ssl.get_default_verify_paths()
    folder = None if paths.capath is None else Path(paths.capath)
    return paths.cafile is not None or (folder is not None and any(folder.iterdir()))


def _collected() -> str:
    """The file of those that httpx brings."""
    import certifi

    return certifi.where()
