"""A client, its streams, and its end."""

from __future__ import annotations

import pytest

from s2frames import LocalProtocolError
from trio_adapter.host import Host, opened


async def test_a_client_that_is_closed_takes_its_sessions_along() -> None:
    host = Host()
    async with opened(host) as (_, stream):
        session = stream.append_session(linger=60)
        await session.__aenter__()
        ticket = await session.submit(b"never sent")
    with pytest.raises(LocalProtocolError, match="client is closed"):
        await ticket
    for call in (session.flush, session.close, lambda: session.submit(b"x")):
        with pytest.raises(LocalProtocolError, match="client is closed"):
            await call()
    # It was told of that.
    await session.__aexit__(None, None, None)
    assert host.num_open == 0


async def test_leaving_a_session_of_a_client_that_was_closed_tells_who_was_not_told() -> None:
    async with opened(Host()) as (_, stream):
        session = stream.append_session(linger=60)
        await session.__aenter__()
        await session.submit(b"never sent")
    with pytest.raises(LocalProtocolError, match=r"^the client is closed; 0 messages durable$"):
        await session.__aexit__(None, None, None)
