"""A coordinator that stops answers everyone who waits for it."""

from __future__ import annotations

import httpx
from http_network import Network, StartNetwork, eventually
from talking_runtime import TalkingRuntime


async def test_a_node_that_polls_again_is_told_to_come_back_later(
    start_network: StartNetwork, runtime: TalkingRuntime
) -> None:
    async with start_network(runtime) as network:
        network.coordinator.stop()
        await eventually(lambda: was_refused(network, "stopping"))


async def was_refused(network: Network, code: str) -> bool:
    async with httpx.AsyncClient(base_url=network.url) as anyone:
        return f'refusals_total{{code="{code}"}}' in (await anyone.get("/metrics")).text
