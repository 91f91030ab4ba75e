"""The requester's own calls over real HTTP, with a real node behind them."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from event_streams import Event, all_events, events_of
from http_network import Network, StartNetwork
from joserfc.jwk import RSAKey
from talking_runtime import MODEL, TalkingRuntime

from parallelix.protocol import canonical, envelope, receipts
from parallelix.protocol.records import ExecutionRecord, record_hash
from parallelix.protocol.requests import RequestView
from parallelix.protocol.work import Message, Payload, ResultContent, Sampling

pytestmark = pytest.mark.asyncio(loop_scope="module")

MESSAGES = [{"role": "user", "content": "one two three"}]


async def create(client: httpx.AsyncClient, **fields: Any) -> str:
    body = {"model": MODEL, "messages": MESSAGES, **fields}
    response = await client.post("/v1/requests", json=body)
    assert response.status_code == 201, response.text
    return response.json()["id"]


async def follow(client: httpx.AsyncClient, request_id: str, **headers: str) -> list[Event]:
    async with client.stream("GET", f"/v1/requests/{request_id}/events", headers=headers) as response:
        assert response.status_code == 200, await response.aread()
        return await all_events(response)


async def test_a_request_is_created_followed_and_read(client: httpx.AsyncClient) -> None:
    request_id = await create(client)
    events = await follow(client, request_id)
    view = msgspec.convert((await client.get(f"/v1/requests/{request_id}")).json(), RequestView)
    end = events[-1]
    assert [event.name for event in events[:2]] == ["dispatched", "running"]
    assert "".join(event.data["text"] for event in events if event.name == "delta") == "one two three"
    assert (end.name, end.id, end.data["finish_reason"], end.data["audit"]) == ("completed", "1.13", "stop", "off")
    assert end.data["usage"] == {"prompt_tokens": 5, "completion_tokens": 3}
    assert (view.state, view.record_hash, view.charge_wei) == ("completed", end.data["record_hash"], "11000")
    assert view.result is not None
    assert view.result.text == "one two three"
    assert (await client.get(end.data["receipt"])).status_code == 200


async def test_the_receipt_proves_prompt_and_answer(client: httpx.AsyncClient) -> None:
    request_id = await create(client, max_tokens=50)
    await follow(client, request_id)
    receipt = msgspec.json.decode(
        (await client.get(f"/v1/requests/{request_id}/receipt")).content, type=receipts.Receipt
    )
    payload = Payload(
        kind="chat", model=MODEL, messages=(Message(role="user", content="one two three"),),
        sampling=Sampling(max_tokens=50),
    )  # fmt: skip
    result = ResultContent(text="one two three", finish_reason="stop")
    checks = receipts.verify(receipt, payload=canonical.encode(payload), result=canonical.encode(result))
    assert {name: holds for name, holds, _ in checks} == dict.fromkeys([name for name, _, _ in checks], True)
    forged = receipts.verify(receipt, result=canonical.encode(ResultContent(text="one", finish_reason="stop")))
    assert ("result", False) in [(name, holds) for name, holds, _ in forged]


async def test_a_follower_continues_where_it_was(start_network: StartNetwork, runtime: TalkingRuntime) -> None:
    async with start_network(runtime) as network, network.customer() as client:
        request_id = await create(client, messages=[{"role": "user", "content": "wait here"}])
        async with client.stream("GET", f"/v1/requests/{request_id}/events?detached=true") as response:
            first = await anext(event async for event in events_of(response) if event.name == "delta")
        runtime.gate.set()
        events = await follow(client, request_id, **{"last-event-id": first.id})
    assert first.id == "1.4"
    assert [(each.name, each.data.get("text"), each.data.get("offset")) for each in events if each.name == "delta"] == [
        ("delta", " here", 4)
    ]
    assert (events[-1].name, events[-1].id) == ("completed", "1.9")


async def test_a_follower_of_an_attempt_that_was_lost_is_told_to_begin_anew(
    start_network: StartNetwork, runtime: TalkingRuntime
) -> None:
    async with start_network(runtime, nodes=2) as network, network.customer() as client:
        request_id = await create(client, messages=[{"role": "user", "content": "fail late"}])
        events: list[Event] = []
        async with client.stream("GET", f"/v1/requests/{request_id}/events") as response:
            async for event in events_of(response):
                events.append(event)
                if event.name == "delta":
                    runtime.gate.set()
    names = [event.name for event in events if event.name not in ("held", "dispatched", "running")]
    after = events[[event.name for event in events].index("attempt.restarted") :]
    assert names[:2] == ["delta", "attempt.restarted"]
    assert after[0].data == {"attempt": 2}
    assert "".join(event.data["text"] for event in after if event.name == "delta") == "fail late"
    assert events[-1].name == "completed"


async def test_leaving_the_events_gives_the_work_up_unless_detached(
    start_network: StartNetwork, runtime: TalkingRuntime
) -> None:
    async with start_network(runtime, client_grace_seconds=0.05) as network, network.customer() as client:
        request_id = await create(client, messages=[{"role": "user", "content": "wait here"}])
        async with client.stream("GET", f"/v1/requests/{request_id}/events") as response:
            async for event in events_of(response):
                if event.name == "delta":
                    break
        async with asyncio.timeout(20):
            await runtime.stopped.wait()
        assert (await follow(client, request_id))[-1].name == "cancelled"


@pytest.mark.parametrize(("method", "suffix"), [("POST", "/cancel"), ("DELETE", "")])
async def test_a_cancelled_request_ends_once(start_network: StartNetwork, method: str, suffix: str) -> None:
    async with start_network(TalkingRuntime(), nodes=0) as network, network.customer() as client:
        request_id = await create(client)
        held = (await client.get(f"/v1/requests/{request_id}")).json()["held"]
        assert held["reason"] == "no_capable_node"
        for _ in range(2):
            response = await client.request(method, f"/v1/requests/{request_id}{suffix}")
            assert (response.status_code, response.json()["state"]) == (200, "cancelled")
        receipt = await client.get(f"/v1/requests/{request_id}/receipt")
        assert (receipt.status_code, receipt.json()["error"]) == (409, "not_recorded_yet")
        account = (await client.get("/v1/account")).json()
        assert (account["held_wei"], account["open_requests"]) == ("0", 0)


async def test_requests_are_listed_newest_first_in_pages(client: httpx.AsyncClient) -> None:
    created = [await create(client) for _ in range(3)]
    for request_id in created:
        await follow(client, request_id)
    first = (await client.get("/v1/requests", params={"limit": 2})).json()
    second = (await client.get("/v1/requests", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [each["id"] for each in first["data"] + second["data"]] == created[::-1]
    assert second["next_cursor"] is None
    assert (await client.get("/v1/requests", params={"state": "failed"})).json()["data"] == []


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=101", "limit=x", "limit=%00", "state=lost", "cursor=", "cursor=%00", "cursor=zzz", "what=1",
     "limit=1&limit=2", "&".join(f"a{at}=1" for at in range(40))],
)  # fmt: skip
async def test_a_list_asked_wrongly_is_refused(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"/v1/requests?{query}")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


async def test_a_result_for_ones_own_key_comes_sealed_and_shows_no_text(client: httpx.AsyncClient) -> None:
    key = RSAKey.import_key(rsa.generate_private_key(public_exponent=65537, key_size=3072))
    request_id = await create(client, requester_public_key=key.as_pem(private=False).decode())
    events = await follow(client, request_id)
    view = (await client.get(f"/v1/requests/{request_id}")).json()
    content = canonical.decode(
        envelope.open_as_requester(view["sealed_result"], key, unit_id=request_id), ResultContent
    )
    assert "delta" not in [event.name for event in events]
    assert view["result"] is None
    assert content.text == "one two three"


async def test_a_quote_says_what_would_be_held_and_keeps_nothing(client: httpx.AsyncClient) -> None:
    before = (await client.get("/v1/account")).json()
    quote = (await client.post("/v1/quote", json={"model": MODEL, "messages": MESSAGES, "max_tokens": 100})).json()
    assert quote["affordable"] is True
    assert quote["completion_tokens_max"] == 100
    assert (quote["capable_nodes"], quote["waiting"]) == (1, 0)
    assert (await client.get("/v1/account")).json() == before
    assert (await client.get("/v1/requests")).json()["data"] == []


async def test_the_same_idempotency_key_is_the_same_request(client: httpx.AsyncClient) -> None:
    body = {"model": MODEL, "messages": MESSAGES}
    headers = {"idempotency-key": "k1"}
    answers = await asyncio.gather(*(client.post("/v1/requests", json=body, headers=headers) for _ in range(6)))
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await client.post("/v1/requests", json={**body, "max_tokens": 3}, headers=headers)
    assert (other.status_code, other.json()["error"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize(("asked", "shown"), [(0, None), (1, 1), (2, 2)])
async def test_a_result_shows_as_many_alternatives_as_were_asked_for(
    client: httpx.AsyncClient, asked: int, shown: int | None
) -> None:
    request_id = await create(client, top_logprobs=asked)
    await follow(client, request_id)
    entries = (await client.get(f"/v1/requests/{request_id}")).json()["result"]["logprobs"]
    assert [len(entry["top"]) for entry in entries] == ([shown] * 3 if shown else [])


async def test_another_accounts_request_does_not_exist(network: Network, client: httpx.AsyncClient) -> None:
    request_id = await create(client)
    async with network.customer() as stranger:
        for method, suffix in (
            ("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/events"), ("GET", "/receipt"),
        ):  # fmt: skip
            response = await stranger.request(method, f"/v1/requests/{request_id}{suffix}")
            assert (response.status_code, response.json()["error"]) == (404, "unknown_request")
    assert (await follow(client, request_id))[-1].name == "completed"


@pytest.mark.parametrize("name", ["x", "req_", "req_" + "g" * 64, "%00", "req_" + "0" * 64, "..%2f..", "\u00fc"])
async def test_an_id_that_is_none_is_not_found(client: httpx.AsyncClient, name: str) -> None:
    response = await client.get(f"/v1/requests/{name}")
    assert response.status_code == 404


UNADMITTED: list[tuple[dict[str, Any], str]] = [
    ({"workload_class": "render"}, "unknown_workload_class"),
    ({"model": "nobody-has-this"}, "unknown_model"),
    ({"prompt": "and a prompt"}, "invalid_request"),
    ({"messages": None}, "invalid_request"),
    ({"messages": []}, "invalid_request"),
    ({"messages": [{"role": "user", "content": "x", "colour": "red"}]}, "malformed"),
    ({"colour": "red"}, "malformed"),
    ({"hardware_tier": 5}, "malformed"),
    ({"deadline_seconds": 0}, "malformed"),
    ({"requester_public_key": "no key"}, "malformed"),
    ({"tools": [{}]}, "malformed"),
    ({"credit_account": "somebody"}, "wrong_credit_account"),
]


@pytest.mark.parametrize(("fields", "code"), UNADMITTED)
async def test_a_request_that_cannot_be_admitted_leaves_no_trace(
    client: httpx.AsyncClient, fields: dict[str, Any], code: str
) -> None:
    response = await client.post("/v1/requests", json={"model": MODEL, "messages": MESSAGES, **fields})
    assert response.json()["error"] == code, response.text
    assert 400 <= response.status_code < 500
    assert (await client.get("/v1/requests")).json()["data"] == []


@pytest.mark.parametrize("given", ["1", "1.x", "99999.1", "1.99999999999", "-1.0", "\u0661.0"])
async def test_a_place_that_is_none_is_refused(client: httpx.AsyncClient, given: str) -> None:
    request_id = await create(client)
    headers = {"last-event-id": given.encode()}
    response = await client.get(f"/v1/requests/{request_id}/events", headers=headers)  # pyright: ignore[reportArgumentType]
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")


async def test_account_keys_and_models_say_what_a_requester_needs(client: httpx.AsyncClient) -> None:
    account = (await client.get("/v1/account")).json()
    keys = (await client.get("/v1/keys")).json()["data"]
    models = (await client.get("/v1/models")).json()["data"]
    assert [key["id"] for key in keys] == [account["key"]["id"]]
    assert [model["id"] for model in models] == [MODEL]
    assert (await client.get(f"/v1/models/{MODEL}")).json() == models[0]
    missing = await client.get("/v1/models/some/other:model")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_model")


async def test_anyone_may_check_the_chain(network: Network, client: httpx.AsyncClient) -> None:
    request_id = await create(client)
    end = (await follow(client, request_id))[-1].data
    async with httpx.AsyncClient(base_url=network.url) as anyone:
        body = (await anyone.get(f"/v1/records/{end['record_hash']}")).content
        totals = (await anyone.get("/v1/network")).json()
        assert record_hash(canonical.decode(body, ExecutionRecord)) == end["record_hash"]
        assert totals["records"] >= 1
        for path in ("/v1/records/0x" + "0" * 64, "/v1/records/zz", "/v1/batches/999999", "/v1/batches/x",
                     "/v1/batches/" + "9" * 15, "/v1/nothing", "/"):  # fmt: skip
            response = await anyone.get(path)
            assert response.status_code == 404, (path, response.text)
            assert set(response.json()) == {"error", "message"}


async def test_no_answer_tells_which_node_did_the_work(network: Network, client: httpx.AsyncClient) -> None:
    request_id = await create(client)
    read: list[bytes] = [msgspec.json.encode([event.data for event in await follow(client, request_id)])]
    chat = await client.post("/v1/chat/completions", json={"model": MODEL, "messages": MESSAGES, "logprobs": True})
    paths = (
        f"/v1/requests/{request_id}", f"/v1/requests/{request_id}/receipt", "/v1/requests", "/v1/account", "/v1/keys",
        "/v1/models", "/v1/network", "/healthz", "/readyz", "/metrics", "/schema/openapi.json",
        f"/v1/records/{chat.json()['parallelix']['record_hash']}", "/v1/batches/0",
    )  # fmt: skip
    for response in [chat, *[await client.get(path) for path in paths]]:
        read += [response.content, *(name + b":" + value for name, value in response.headers.raw)]
    everything = b"\n".join(read).lower()
    assert network.identities
    assert [identity for identity in network.identities if identity.encode() in everything] == []
    # The search finds what is there.
    assert request_id.encode() in everything
