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
    # Who was told of it is not told again.
    await session.__aexit__(None, None, None)
    assert host.num_open == 0
