"""What a secret looks like where nobody should see it, however it was encoded on its way."""

from __future__ import annotations

import ast
import logging
import re
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

__all__ = ["forms_of", "found_in", "hearing_all"]

# Bytes as Python shows them.
_BYTES = re.compile(r"""\bb('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)


def forms_of(secret: bytes) -> dict[str, bytes]:
    """Every form that it may have, by name: what holds one of them holds the secret."""
    forms = {"plain": secret, "hex": secret.hex().encode(), "HEX": secret.hex().upper().encode()}
    for shift in range(3):
        # The characters that depend on it alone, whatever stands before and behind it.
        start, end = -(-shift * 4 // 3), (shift + len(secret)) * 4 // 3
        forms[f"base64 {shift}"] = b64encode(bytes(shift) + secret)[start:end]
        forms[f"urlsafe base64 {shift}"] = urlsafe_b64encode(bytes(shift) + secret)[start:end]
    bits = "".join(f"{REQUEST_CODES[byte]:0{REQUEST_CODES_LENGTH[byte]}b}" for byte in secret)
    for shift in range(8):
        whole = bits[shift : shift + (len(bits) - shift) // 8 * 8]
        huffman = int(whole, 2).to_bytes(len(whole) // 8, "big")
        forms[f"Huffman {shift}"] = huffman
        forms[f"Huffman {shift} in hex"] = huffman.hex().encode()
    return forms


def found_in(texts: Iterable[str], secrets: Iterable[bytes]) -> list[str]:
    """What of the secrets is in the texts, in which form."""
    forms = {(secret, name): form for secret in secrets for name, form in forms_of(secret).items()}
    found = []
    for text in texts:
        shown = [text.encode("utf-8", "surrogateescape"), *_bytes_in(text)]
        found += [
            f"{secret!r}, {name}, in {text[:200]!r}"
            for (secret, name), form in forms.items()
            if any(form in data for data in shown)
        ]
    return found


def _bytes_in(text: str) -> Iterator[bytes]:
    for literal in _BYTES.findall(text):
        with suppress(SyntaxError, ValueError):
            yield ast.literal_eval(f"b{literal}")


class _Ear(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.NOTSET)
        self.heard: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        said = [record.getMessage(), repr(record.args)]
        if record.exc_info:
            said.append(logging.Formatter().formatException(record.exc_info))
        self.heard.append(f"{record.name}: " + "\n".join(said))


@contextmanager
def hearing_all() -> Iterator[list[str]]:
    """What every logger of the process says meanwhile, down to DEBUG."""
    ear, root = _Ear(), logging.getLogger()
    loggers = [root, *map(logging.getLogger, list(logging.root.manager.loggerDict))]
    before = [(logger, logger.level, logger.disabled, logger.propagate) for logger in loggers]
    disabled = logging.root.manager.disable
    logging.disable(logging.NOTSET)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.disabled, logger.propagate = False, True
    root.addHandler(ear)
    try:
        yield ear.heard
    finally:
        root.removeHandler(ear)
        logging.disable(disabled)
        for logger, level, is_disabled, propagates in before:
            logger.setLevel(level)
            logger.disabled, logger.propagate = is_disabled, propagates
