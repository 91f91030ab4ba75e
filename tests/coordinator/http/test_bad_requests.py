"""A requester's bad call gets its documented code, and leaves store, ledger, queue and nodes as they were."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import msgspec
import pytest
from http_network import Network
from talking_runtime import MODEL

from coordinator_state import everything
from parallelix.protocol.requests import REQUEST_BODY_BYTES_MAX

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAID = [{"role": "user", "content": "one two"}]
BODIES: dict[str, dict[str, Any]] = {
    "/v1/requests": {"model": MODEL, "messages": SAID},
    "/v1/quote": {"model": MODEL, "messages": SAID},
    "/v1/chat/completions": {"model": MODEL, "messages": SAID},
    "/v1/completions": {"model": MODEL, "prompt": "one two"},
    "/v1/embeddings": {"model": MODEL, "input": "one two"},
}
"""A good body for every call that takes one."""
CREATING = tuple(path for path in BODIES if path != "/v1/quote")
NESTED = b'{"model":"m","messages":' + b"[" * 50_000 + b"]" * 50_000 + b"}"


async def refusal_of(network: Network, client: httpx.AsyncClient, path: str, content: bytes, **headers: str) -> Any:
    """(status, code) of a call after which everything is as before."""
    before = await everything(network.coordinator)
    kind = {"content-type": "application/json"}
    response = await client.post(path, content=content, headers={**kind, **headers})
    assert await everything(network.coordinator) == before
    error = response.json()["error"]
    return response.status_code, error if isinstance(error, str) else error["code"]


def altered(path: str, **fields: Any) -> bytes:
    return msgspec.json.encode({**BODIES[path], **fields})


@pytest.mark.parametrize("path", BODIES)
async def test_malformed_bodies(network: Network, client: httpx.AsyncClient, path: str) -> None:
    for content in (b"", b"{", b"nul", b'{"model": "talker",}', b'{"model":\xff}', b"\x00", b"[1]", b'"text"'):
        assert await refusal_of(network, client, path, content) == (400, "malformed"), content


@pytest.mark.parametrize("path", BODIES)
async def test_oversize_bodies(network: Network, client: httpx.AsyncClient, path: str) -> None:
    content = altered(path, model="x" * REQUEST_BODY_BYTES_MAX)
    assert await refusal_of(network, client, path, content) == (413, "body_too_large")


@pytest.mark.parametrize("path", BODIES)
async def test_over_nested_bodies(network: Network, client: httpx.AsyncClient, path: str) -> None:
    tools = altered(path).removesuffix(b"}") + b',"tools":[' + b'{"a":' * 20_000 + b"1" + b"}" * 20_000 + b"]}"
    assert await refusal_of(network, client, path, NESTED) == (400, "malformed")
    assert await refusal_of(network, client, path, tools) == (400, "malformed")


@pytest.mark.parametrize(
    "fields",
    [{"model": 7}, {"model": None}, {"model": ["talker"]}, {"model": "x" * 129},
     {"messages": {}, "prompt": 7, "input": 7}],
)  # fmt: skip
@pytest.mark.parametrize("path", BODIES)
async def test_mistyped_bodies(network: Network, client: httpx.AsyncClient, path: str, fields: dict[str, Any]) -> None:
    changed = {name: value for name, value in fields.items() if name in BODIES[path]}
    assert await refusal_of(network, client, path, altered(path, **changed)) == (400, "malformed")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('"max_tokens":1.5', "malformed"), ('"max_tokens":-1', "malformed"), ('"max_tokens":1e400', "malformed"),
        ('"max_tokens":' + "9" * 400, "malformed"), ('"max_tokens":NaN', "malformed"),
        ('"max_tokens":"5"', "malformed"),
        ('"max_tokens":true', "malformed"), ('"temperature":Infinity', "malformed"), ('"temperature":1e-400000', None),
        ('"temperature":2.0000001', "malformed"), ('"seed":18446744073709551616', "malformed"),
        ('"seed":-2147483649', "malformed"), ('"seed":1e3', "malformed"), ('"stop":[1]', "malformed"),
        ('"top_p":-0.0', None),
        ('"stop":["\\u0000"]', None), ('"stop":["\\ud800"]', "malformed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("path", ["/v1/quote", "/v1/requests"])
async def test_odd_numbers_and_texts(
    network: Network, client: httpx.AsyncClient, path: str, text: str, code: str | None
) -> None:
    content = altered(path).removesuffix(b"}") + b"," + text.encode() + b"}"
    if code is not None:
        assert await refusal_of(network, client, path, content) == (400, code)
    elif path == "/v1/quote":
        response = await client.post(path, content=content, headers={"content-type": "application/json"})
        assert response.status_code == 200, response.text


@pytest.mark.parametrize("path", BODIES)
async def test_a_field_given_twice(network: Network, client: httpx.AsyncClient, path: str) -> None:
    content = altered(path).removesuffix(b"}") + b',"model":"other"}'
    assert await refusal_of(network, client, path, content) == (400, "malformed")


@pytest.mark.parametrize("path", ["/v1/requests", "/v1/quote"])
async def test_unknown_workload_class(network: Network, client: httpx.AsyncClient, path: str) -> None:
    content = altered(path, workload_class="render")
    assert await refusal_of(network, client, path, content) == (400, "unknown_workload_class")


@pytest.mark.parametrize("path", BODIES)
async def test_unknown_model(network: Network, client: httpx.AsyncClient, path: str) -> None:
    content = altered(path, model="nobody-has-this")
    assert await refusal_of(network, client, path, content) == (404, "unknown_model")


@pytest.mark.parametrize("path", CREATING)
async def test_insufficient_credits(network: Network, path: str) -> None:
    async with network.customer(credits_wei=1) as poor:
        assert await refusal_of(network, poor, path, altered(path)) == (402, "insufficient_credits")


@pytest.mark.parametrize("path", CREATING)
async def test_a_budget_that_is_too_small(network: Network, path: str) -> None:
    async with network.customer(budget_wei=1) as thrifty:
        assert await refusal_of(network, thrifty, path, altered(path)) == (402, "budget_exceeded")


@pytest.mark.parametrize("path", CREATING)
async def test_an_account_of_somebody_else(network: Network, client: httpx.AsyncClient, path: str) -> None:
    name = "credit_account" if path == "/v1/requests" else "parallelix"
    value: Any = "somebody" if path == "/v1/requests" else {"credit_account": "somebody"}
    content = altered(path, **{name: value})
    assert await refusal_of(network, client, path, content) == (403, "wrong_credit_account")


@pytest.mark.parametrize("path", BODIES)
async def test_keys_that_are_none_any_more(network: Network, path: str) -> None:
    async with network.customer() as customer:
        key_id = (await customer.get("/v1/account")).json()["key"]["id"]
        await network.coordinator.revoke_key(key_id)
        assert await refusal_of(network, customer, path, altered(path)) == (401, "revoked_key")
    async with network.customer(expires_at=1) as customer:
        assert await refusal_of(network, customer, path, altered(path)) == (401, "expired_key")


async def test_open_requests_of_a_key_are_counted(network: Network) -> None:
    async with network.customer(concurrency=2) as customer:
        # A tier that no node has: they stay open.
        waiting = altered("/v1/requests", hardware_tier=4)
        kind = {"content-type": "application/json"}
        opened = [await customer.post("/v1/requests", content=waiting, headers=kind) for _ in range(2)]
        for path in CREATING:
            assert await refusal_of(network, customer, path, altered(path)) == (429, "concurrency_exceeded")
        await customer.delete(f"/v1/requests/{opened[0].json()['id']}")
        assert (await customer.post("/v1/requests", content=waiting, headers=kind)).status_code == 201


async def test_a_budget_holds_what_is_open_and_keeps_what_was_spent(network: Network) -> None:
    quoted = {"model": MODEL, "messages": SAID, "max_tokens": 8}
    async with network.customer() as customer:
        hold_wei = int((await customer.post("/v1/quote", json=quoted)).json()["hold_wei"])
    async with network.customer(budget_wei=2 * hold_wei - 1) as customer:
        first = await customer.post("/v1/chat/completions", json=quoted)
        assert first.status_code == 200
        waiting = await customer.post("/v1/requests", json={**quoted, "hardware_tier": 4})
        refused = await customer.post("/v1/requests", json=quoted)
        assert (waiting.status_code, refused.status_code) == (201, 402)
        assert refused.json()["error"] == "budget_exceeded"


async def test_many_cancels_at_once_end_a_request_once(network: Network) -> None:
    async with network.customer() as customer:
        made = await customer.post("/v1/requests", json={**BODIES["/v1/requests"], "hardware_tier": 4})
        path = f"/v1/requests/{made.json()['id']}"
        answers = await asyncio.gather(
            *(customer.delete(path) for _ in range(10)), *(customer.post(f"{path}/cancel") for _ in range(10))
        )
        assert {(answer.status_code, answer.json()["state"]) for answer in answers} == {(200, "cancelled")}
        account = (await customer.get("/v1/account")).json()
        assert (account["held_wei"], account["open_requests"]) == ("0", 0)
        transfers = [row for row in (await everything(network.coordinator))["table transfers"] if path[-20:] in row]
        assert sorted(row.split("'")[1].partition(":")[0] for row in transfers) == ["hold", "release"]
