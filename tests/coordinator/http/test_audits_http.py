"""Audits between real daemons, and what callers of either kind are told of them."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest
from event_streams import Event, all_events
from http_network import Network, StartNetwork, eventually
from talking_runtime import MODEL, TalkingRuntime

from parallelix.node.runtimes import base


class SureRuntime(TalkingRuntime):
    """Repeats the prompt, gives as many alternatives with each word as an audit needs, and knows where it ends."""

    def _entry(self, text: str) -> base.TokenEntry:
        text = "" if text.strip() == "…" else text
        others = tuple((f" {text.strip()}{number}", math.log(0.02)) for number in range(5))
        return base.TokenEntry(text=text, logprob=math.log(0.9), top=((text, math.log(0.9)), *others))


PROMPT = "one two three four five six seven eight"


async def create(client: httpx.AsyncClient, **body: Any) -> str:
    asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "temperature": 0} | body
    response = await client.post("/v1/requests", json=asked)
    assert response.status_code == 201, response.text
    return response.json()["id"]


async def follow(client: httpx.AsyncClient, request_id: str) -> list[Event]:
    async with client.stream("GET", f"/v1/requests/{request_id}/events") as response:
        assert response.status_code == 200, await response.aread()
        return await all_events(response)


async def test_daemons_of_two_owners_audit_each_other_and_the_follower_is_told(start_network: StartNetwork) -> None:
    async with (
        start_network(SureRuntime(), nodes=2, audits=True, audit_queue_seconds=1) as network,
        network.customer() as client,
    ):
        request_id = await create(client)
        *_, end, verdict = await follow(client, request_id)
        assert (end.name, verdict.name) == ("completed", "audit")
        assert verdict.data | {"reason": ""} == {
            "id": request_id,
            "verdict": "agree",
            "reason": "",
            "refunded_wei": "0",
            "charge_wei": end.data["charge_wei"],
        }
        view = (await client.get(f"/v1/requests/{request_id}")).json()
        assert (view["audit"], view["charge_wei"]) == ("agree", end.data["charge_wei"])
        (ended,) = [fields for name, fields in network.logged if name == "audit.ended"]
        assert ended["node_id"] != ended["auditor_id"]
        stages = [fields["stage"] for name, fields in network.logged if name == "audit.answered"]
        assert stages == ["first"], "it was not a spot check"


@pytest.mark.parametrize("kind", ["embedding", "sealed in whole"])
async def test_what_cannot_be_probed_is_run_again_by_another_daemon(start_network: StartNetwork, kind: str) -> None:
    runtime = SureRuntime() if kind == "embedding" else TalkingRuntime()
    body: dict[str, Any] = {"messages": None, "input": ["so be it"], "temperature": None} if kind == "embedding" else {}
    async with (
        start_network(runtime, nodes=2, audits=True, audit_queue_seconds=1) as network,
        network.customer() as client,
    ):
        *_, verdict = await follow(client, await create(client, **body))
        assert (verdict.name, verdict.data["verdict"]) == ("audit", "agree")
        assert [fields["stage"] for name, fields in network.logged if name == "audit.answered"] == ["whole"]


async def finished(network: Network) -> bool:
    return not network.coordinator.engine.audits


async def test_openai_callers_are_told_that_an_audit_is_pending_and_wait_for_none(start_network: StartNetwork) -> None:
    # The one node has nobody to audit it.
    async with (
        start_network(SureRuntime(), audits=True, audit_queue_seconds=1) as network,
        network.customer() as client,
    ):
        asked: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}]}
        whole = (await client.post("/v1/chat/completions", json=asked)).json()
        assert whole["parallelix"]["audit"] == "pending"
        async with client.stream("POST", "/v1/chat/completions", json=asked | {"stream": True}) as response:
            chunks = await all_events(response)
        assert chunks[-1].data == "[DONE]"
        assert [chunk.data["parallelix"]["audit"] for chunk in chunks if "parallelix" in chunk.data] != []
        assert len(network.coordinator.engine.audits) == 2


async def test_metrics_count_audits(start_network: StartNetwork) -> None:
    async with (
        start_network(SureRuntime(), nodes=2, audits=True, audit_queue_seconds=1) as network,
        network.customer() as client,
    ):
        await follow(client, await create(client))
        await eventually(lambda: finished(network))
        told = (await client.get("/metrics")).text
        assert 'parallelix_audits_opened_total{kind="drawn"} 1.0' in told
        assert 'parallelix_audit_verdicts_total{verdict="agree"}' in told
        assert "parallelix_compare_seconds_count 1.0" in told
