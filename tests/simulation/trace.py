"""What happened in a run, for comparing two runs and for people."""

from __future__ import annotations

from hashlib import sha256

from attrs import define, field

__all__ = ["Trace"]

#: When, who, what, and a number or a few words.
_Entry = tuple[float, str, str, object]


@define(eq=False)
class Trace:
    """Everything worth telling, in order. Entries become text only when somebody looks."""

    _entries: list[_Entry] = field(factory=list)

    def note(self, at: float, who: str, what: str, detail: object = "") -> None:
        """Add an entry. `detail` is a number or text: it is shown later, as it is then."""
        self._entries.append((at, who, what, detail))

    def digest(self) -> str:
        """The same for equal traces only."""
        return sha256(str(self).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self._entries)

    def __str__(self) -> str:
        return "\n".join(
            f"{at:12.6f} {who:<12} {what} {detail}".rstrip()
            for at, who, what, detail in self._entries
        )
