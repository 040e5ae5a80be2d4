"""Where a connection is, and where it can go from there."""

from __future__ import annotations

import enum
from collections.abc import Mapping

__all__ = ["TRANSITIONS", "ConnectionInput", "ConnectionState"]


class ConnectionState(enum.Enum):
    """Where a connection is."""

    #: The peer's SETTINGS have not come yet.
    OPENING = enum.auto()
    #: It takes new streams.
    OPEN = enum.auto()
    #: It takes none, and ends with the last one it has.
    LEAVING = enum.auto()
    #: It is over.
    LOST = enum.auto()


class ConnectionInput(enum.Enum):
    """What can happen to a connection."""

    #: The peer's SETTINGS came.
    SETTINGS = enum.auto()
    #: Either side wants no new streams on it.
    LEAVE = enum.auto()
    #: It broke, or there is no more use for it.
    LOSE = enum.auto()


_S, _I = ConnectionState, ConnectionInput

TRANSITIONS: Mapping[tuple[ConnectionState, ConnectionInput], ConnectionState] = {
    (_S.OPENING, _I.SETTINGS): _S.OPEN,
    (_S.OPENING, _I.LEAVE): _S.LEAVING,
    (_S.OPENING, _I.LOSE): _S.LOST,
    (_S.OPEN, _I.SETTINGS): _S.OPEN,
    (_S.OPEN, _I.LEAVE): _S.LEAVING,
    (_S.OPEN, _I.LOSE): _S.LOST,
    (_S.LEAVING, _I.SETTINGS): _S.LEAVING,
    (_S.LEAVING, _I.LEAVE): _S.LEAVING,
    (_S.LEAVING, _I.LOSE): _S.LOST,
}
