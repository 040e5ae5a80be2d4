"""An S2 service in pure Python, for trying, testing and small local use.

How data flows: a host (an ASGI app, an in-process transport, a simulation) calls `Service.open` for
each HTTP request and gets an `Exchange`, which it feeds and drains.

    request   what a request's head says                 exchange      request in, response out
    control   basins, streams and tails   -> catalog     compression   of bodies
    append    one batch, or a session     -> stream      json_records, json_values, error_bodies
    read      one batch, S2S, or events   <- stream      what bodies look like in JSON
    stream    one stream in use; append_rules says what it takes
    catalog   which basins and streams there are; config says how they can be set up
    store     where everything is kept: in memory, or in a file (sqlite_store)

On top of it, with the extra `serve`: `asgi` makes the service an ASGI app, `serving` puts it on a
port of this machine.
"""

from __future__ import annotations

from s2frames.embedded.exchange import Exchange, ResponseHead
from s2frames.embedded.service import Service
from s2frames.embedded.store import MemoryStore, Store, StoreError

__all__ = ["Exchange", "MemoryStore", "ResponseHead", "Service", "Store", "StoreError"]
