"""The whole path on PostgreSQL, a kill -9 of the coordinator included."""

from __future__ import annotations

from pathlib import Path

import msgspec
from real_processes import eventually, scene, words

from bench.books import audit, read_books
from parallelix.protocol import receipts

PROMPT = words(30)


async def test_the_whole_path_on_postgresql(tmp_path: Path, postgresql_url: str) -> None:
    async with scene(tmp_path, store_url=postgresql_url) as on:
        client = on.client
        early = await client.create(PROMPT, key="early")
        await client.ended(early)
        open_at_the_kill = await client.create(PROMPT, key="open")
        async with client.events(open_at_the_kill) as events:
            await events.until(lambda: len(events.text) > 20)
            on.network.kill_coordinator()
        await on.network.start_coordinator()
        assert await client.create(PROMPT, key="open") == open_at_the_kill
        async with client.openai_stream(PROMPT, key="late") as late:
            await late.to_end()
        acknowledged = {"early": [early], "open": [open_at_the_kill], "late": [late.request_id]}
        for (request_id,) in acknowledged.values():
            await client.ended(request_id)
            view = await eventually(lambda request_id=request_id: client.view(request_id), lambda view: view.settled)
            assert (view.state, view.result and view.result.text) == ("completed", PROMPT)
            receipt = msgspec.convert(await client.get(f"/v1/requests/{request_id}/receipt"), receipts.Receipt)
            checks = {name: holds for name, holds, _ in receipts.verify(receipt)}
            assert checks == {"record": True, "coordinator": True, "batch": True, "audit": True}
    assert not audit(read_books(postgresql_url), acknowledged)
