"""Signing in with a wallet and making keys, over real HTTP against a real coordinator."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from http_network import CREDITS_WEI, Ground, Network, running_network
from talking_runtime import MODEL, TalkingRuntime
from wallet_scene import asked_nonce, bearer, message_of, sign_in, signed

from parallelix.coordinator import accounts
from parallelix.coordinator.http.endpoints import endpoints
from parallelix.engine import events
from parallelix.protocol.accounts import SCOPES
from parallelix.protocol.sign_in import time_text
from parallelix.protocol.signing import NodeKey

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = {"model": MODEL, "prompt": "one two"}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "one two"}]}


@pytest_asyncio.fixture(loop_scope="module")
async def http(network: Network) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=network.url, timeout=30) as client:
        yield client


async def endow(network: Network, wallet: NodeKey) -> None:
    grant = events.Grant(grant_id=f"grant:{wallet.address}", account=wallet.address, amount_wei=CREDITS_WEI)
    await network.coordinator.settle(grant)


@pytest_asyncio.fixture(loop_scope="module")
async def wallet(network: Network) -> NodeKey:
    """One whose account has credits."""
    wallet = NodeKey.generate()
    await endow(network, wallet)
    return wallet


@pytest_asyncio.fixture(loop_scope="module")
async def owner(network: Network, http: httpx.AsyncClient, wallet: NodeKey) -> AsyncIterator[httpx.AsyncClient]:
    """A client that is signed in with the wallet."""
    token = (await sign_in(http, wallet)).json()["token"]
    async with network.client(token) as client:
        yield client


def code_of(answer: httpx.Response) -> str:
    body = answer.json()["error"]
    return body if isinstance(body, str) else body["code"]


# Signing in


async def test_a_wallet_signs_in_and_sees_its_account(http: httpx.AsyncClient) -> None:
    wallet = NodeKey.generate()
    answer = await sign_in(http, wallet)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    session = answer.json()
    assert session["account"] == wallet.address
    assert session["scopes"] == ["read", "keys", "withdraw"]
    account = (await http.get("/v1/account", headers=bearer(session["token"]))).json()
    assert (account["account"], account["available_wei"], account["vault"]) == (wallet.address, "0", None)
    assert account["key"]["kind"] == "session"


async def test_the_nonce_comes_with_all_that_a_message_must_say(http: httpx.AsyncClient, network: Network) -> None:
    nonce = await asked_nonce(http)
    assert f"http://{nonce['domain']}" == nonce["uri"] == network.url
    assert (nonce["chain_id"], nonce["version"]) == (31337, "1")
    below_the_base = (await http.post("/api/v1/auth/nonce")).json()
    assert below_the_base["nonce"] != nonce["nonce"]


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"domain": "evil.example"}, 401, "foreign_sign_in"),
        ({"uri": "https://evil.example"}, 401, "foreign_sign_in"),
        ({"chain_id": 1}, 401, "foreign_sign_in"),
        ({"version": "2"}, 401, "foreign_sign_in"),
        ({"nonce": "a" * 76}, 401, "unknown_nonce"),
        ({"expiration_time": time_text(1_600_000_000_000)}, 401, "stale_sign_in"),
        ({"not_before": time_text(4_000_000_000_000)}, 401, "stale_sign_in"),
        ({"issued_at": time_text(1_600_000_000_000)}, 401, "stale_sign_in"),
        ({"address": NodeKey.generate().address}, 401, "wrong_signer"),
        ({"address": "0x" + "ab" * 20}, 400, "malformed_sign_in"),
    ],
)
async def test_a_sign_in_that_is_wrong_is_refused_with_its_code(
    http: httpx.AsyncClient, changes: dict[str, Any], status: int, code: str
) -> None:
    refused = await sign_in(http, NodeKey.generate(), **changes)
    assert (refused.status_code, code_of(refused)) == (status, code)
    assert status != 401 or refused.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"message": "", "signature": "0x00"},
        {"message": "x" * 4097, "signature": "0x00"},
        {"message": "x", "signature": "00"},
        {"message": "x", "signature": "0x0"},
        {"message": "x", "signature": "0x" + "00" * 5000},
        {"message": "x", "signature": "0x00", "account": "me"},
    ],
)
async def test_a_body_that_is_no_sign_in_is_malformed(http: httpx.AsyncClient, body: dict[str, str]) -> None:
    refused = await http.post("/v1/auth/sign-in", json=body)
    assert (refused.status_code, code_of(refused)) == (400, "malformed")


async def test_a_sign_in_is_taken_once_however_many_come_at_the_same_time(http: httpx.AsyncClient) -> None:
    wallet = NodeKey.generate()
    body = signed(wallet, message_of(await asked_nonce(http), wallet.address).text)
    answers = await asyncio.gather(*(http.post("/v1/auth/sign-in", json=body) for _ in range(50)))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 401: 49}
    assert {code_of(answer) for answer in answers if answer.status_code == 401} == {"used_nonce"}


async def test_a_nonce_serves_one_wallet_only(http: httpx.AsyncClient) -> None:
    nonce = await asked_nonce(http)
    first, second = NodeKey.generate(), NodeKey.generate()
    taken = await http.post("/v1/auth/sign-in", json=signed(first, message_of(nonce, first.address).text))
    refused = await http.post("/v1/auth/sign-in", json=signed(second, message_of(nonce, second.address).text))
    assert (taken.status_code, code_of(refused)) == (201, "used_nonce")


async def test_a_refused_sign_in_leaves_its_nonce_unused(http: httpx.AsyncClient) -> None:
    nonce, wallet = await asked_nonce(http), NodeKey.generate()
    text = message_of(nonce, wallet.address).text
    refused = await http.post("/v1/auth/sign-in", json=signed(NodeKey.generate(), text))
    assert code_of(refused) == "wrong_signer"
    assert (await http.post("/v1/auth/sign-in", json=signed(wallet, text))).status_code == 201


def ground_in(folder: Path) -> Ground:
    return Ground(folder=folder, homes=(), runtime=TalkingRuntime(), catalogue="", settings={"port": 0})


async def test_a_sign_in_is_refused_again_after_a_restart_and_by_every_other_coordinator(tmp_path: Path) -> None:
    wallet = NodeKey.generate()
    (tmp_path / "one").mkdir(mode=0o700)
    (tmp_path / "two").mkdir(mode=0o700)
    public = {"public_url": "https://parallelix.test/api"}
    one, two = ground_in(tmp_path / "one"), ground_in(tmp_path / "two")
    one.settings, two.settings = public, public
    async with running_network(one) as network, httpx.AsyncClient(base_url=network.url) as http:
        nonce, spare = await asked_nonce(http), await asked_nonce(http)
        assert (nonce["domain"], nonce["uri"]) == ("parallelix.test", public["public_url"])
        body = signed(wallet, message_of(nonce, wallet.address).text)
        token = (await http.post("/v1/auth/sign-in", json=body)).json()["token"]
        assert code_of(await http.post("/v1/auth/sign-in", json=body)) == "used_nonce"
    async with running_network(one) as network, httpx.AsyncClient(base_url=network.url) as http:
        assert code_of(await http.post("/v1/auth/sign-in", json=body)) == "used_nonce"
        assert (await http.get("/v1/account", headers=bearer(token))).json()["account"] == wallet.address
        still_good = signed(wallet, message_of(spare, wallet.address).text)
        assert (await http.post("/v1/auth/sign-in", json=still_good)).status_code == 201
    async with running_network(two) as network, httpx.AsyncClient(base_url=network.url) as http:
        assert code_of(await http.post("/v1/auth/sign-in", json=body)) == "unknown_nonce"
        assert code_of(await http.get("/v1/account", headers=bearer(token))) == "invalid_api_key"
    stored = b"".join(path.read_bytes() for path in (tmp_path / "one").glob("coordinator.db*"))
    assert wallet.address.encode() in stored
    assert token.encode() not in stored


async def test_an_accounts_ninth_session_ends_its_first(http: httpx.AsyncClient, wallet: NodeKey) -> None:
    tokens = [(await sign_in(http, wallet)).json()["token"] for _ in range(accounts.SESSIONS_OPEN_MAX + 1)]
    first = await http.get("/v1/account", headers=bearer(tokens[0]))
    assert (first.status_code, code_of(first)) == (401, "revoked_key")
    listed = (await http.get("/v1/keys", headers=bearer(tokens[-1]))).json()["data"]
    assert [key["kind"] for key in listed] == ["session"] * accounts.SESSIONS_OPEN_MAX
    assert (await http.get("/v1/account", headers=bearer(tokens[1]))).status_code == 200


async def test_an_account_signs_in_so_often_an_hour(http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "SESSIONS_OF_ACCOUNT_MAX", 3)
    wallet = NodeKey.generate()
    answers = [await sign_in(http, wallet) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [201, 201, 201, 429]
    assert code_of(answers[-1]) == "rate_limited"
    assert 3000 < int(answers[-1].headers["retry-after"]) <= 3600


async def test_strangers_leave_room_for_whoever_has_credits(
    http: httpx.AsyncClient, wallet: NodeKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "STRANGERS_MAX", 0)
    refused = await sign_in(http, NodeKey.generate())
    assert (refused.status_code, code_of(refused)) == (503, "overloaded")
    assert (await sign_in(http, wallet)).status_code == 201


# Keys


async def test_a_key_is_shown_once_and_works_within_its_limits(
    network: Network, owner: httpx.AsyncClient, wallet: NodeKey
) -> None:
    given = {"name": "ci", "budget_wei": "500000", "requests_per_minute": 60, "concurrency": 2}
    answer = await owner.post("/v1/keys", json=given)
    assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
    made = answer.json()
    assert answer.headers["location"] == f"/v1/keys/{made['id']}"
    assert made["key"] | given == made["key"]
    assert made["key"]["scopes"] == ["inference", "read"]
    async with network.client(made["api_key"]) as client:
        created = await client.post("/v1/requests", json=ASK | {"max_tokens": 8})
        assert created.status_code == 201, created.text
        dear = await client.post("/v1/requests", json=ASK | {"max_tokens": 1000})
        assert code_of(dear) == "budget_exceeded"
        assert (await client.get("/v1/account")).json()["account"] == wallet.address
        listed = (await client.get("/v1/keys")).text
    assert made["id"] in listed
    assert made["api_key"] not in listed
    logged = str(network.logged)
    assert made["id"] in logged
    assert made["api_key"] not in logged


async def test_an_expired_key_is_refused_and_one_in_the_past_is_not_made(
    network: Network, owner: httpx.AsyncClient
) -> None:
    soon = network.coordinator.clock() + 150
    made = (await owner.post("/v1/keys", json={"expires_at": soon})).json()
    while network.coordinator.clock() < soon:
        await asyncio.sleep(0.02)
    async with network.client(made["api_key"]) as client:
        assert code_of(await client.get("/v1/account")) == "expired_key"
    past = await owner.post("/v1/keys", json={"expires_at": soon})
    assert (past.status_code, code_of(past)) == (400, "invalid_request")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"scopes": []}, "malformed"),
        ({"scopes": ["everything"]}, "malformed"),
        ({"budget_wei": "-1"}, "malformed"),
        ({"budget_wei": 5}, "malformed"),
        ({"budget_wei": "9" * 31}, "invalid_request"),
        ({"concurrency": 1_000_001}, "malformed"),
        ({"name": "a\u202eb"}, "invalid_request"),
        ({"name": "n" * 129}, "malformed"),
        ({"secret": "mine"}, "malformed"),
    ],
)
async def test_a_key_that_cannot_be_is_refused(owner: httpx.AsyncClient, body: dict[str, Any], code: str) -> None:
    refused = await owner.post("/v1/keys", json=body)
    assert (refused.status_code, code_of(refused)) == (400, code)


async def test_a_revoked_key_ends_at_once_and_for_good(network: Network, owner: httpx.AsyncClient) -> None:
    made = (await owner.post("/v1/keys", json={})).json()
    assert (await owner.delete(f"/v1/keys/{made['id']}")).json()["revoked"] is True
    assert (await owner.delete(f"/v1/keys/{made['id']}")).json()["revoked"] is True
    async with network.client(made["api_key"]) as client:
        assert code_of(await client.get("/v1/account")) == "revoked_key"


async def test_nobody_sees_or_revokes_the_keys_of_another_account(network: Network, owner: httpx.AsyncClient) -> None:
    made = (await owner.post("/v1/keys", json={})).json()
    other = NodeKey.generate()
    async with network.client((await sign_in(owner, other)).json()["token"]) as stranger:
        refused = await stranger.delete(f"/v1/keys/{made['id']}")
        assert (refused.status_code, code_of(refused)) == (404, "unknown_key")
        assert code_of(await stranger.delete("/v1/keys/everything")) == "unknown_key"
        assert made["id"] not in (await stranger.get("/v1/keys")).text
    async with network.client(made["api_key"]) as client:
        assert (await client.get("/v1/account")).status_code == 200


async def test_an_account_without_credits_makes_no_keys(network: Network, http: httpx.AsyncClient) -> None:
    stranger = NodeKey.generate()
    async with network.client((await sign_in(http, stranger)).json()["token"]) as client:
        refused = await client.post("/v1/keys", json={})
        assert (refused.status_code, code_of(refused)) == (402, "no_deposit")
        await endow(network, stranger)
        assert (await client.post("/v1/keys", json={})).status_code == 201


async def test_an_account_has_so_many_keys_and_forgets_the_oldest_dead_ones(
    network: Network, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "KEYS_MAX", 2)
    wallet = NodeKey.generate()
    await endow(network, wallet)
    async with network.client((await sign_in(http, wallet)).json()["token"]) as client:
        made = [(await client.post("/v1/keys", json={})).json()["id"] for _ in range(2)]
        refused = await client.post("/v1/keys", json={})
        assert (refused.status_code, code_of(refused)) == (409, "too_many_keys")
        for _ in range(4):
            await client.delete(f"/v1/keys/{made[-1]}")
            made.append((await client.post("/v1/keys", json={})).json()["id"])
        listed = [key["id"] for key in (await client.get("/v1/keys")).json()["data"] if key["kind"] == "key"]
    # Two that can be used, and the two that died last.
    assert set(listed) == {made[0], *made[-3:]}
    await network.coordinator.journal.flushed()
    assert made[1] not in network.coordinator.engine.keys


# Scopes


async def key_with(owner: httpx.AsyncClient, *scopes: str, **limits: Any) -> dict[str, str]:
    answer = await owner.post("/v1/keys", json={"scopes": scopes, **limits})
    assert answer.status_code == 201, answer.text
    return bearer(answer.json()["api_key"])


UNKNOWN = "req_" + "0" * 64
CALLS: dict[tuple[str, str], tuple[str | None, dict[str, Any] | None]] = {
    ("POST", "/v1/requests"): ("inference", ASK),
    ("GET", "/v1/requests"): ("read", None),
    ("GET", "/v1/requests/{id}"): ("read", None),
    ("DELETE", "/v1/requests/{id}"): ("inference", None),
    ("POST", "/v1/requests/{id}/cancel"): ("inference", None),
    ("GET", "/v1/requests/{id}/events"): ("read", None),
    ("GET", "/v1/requests/{id}/receipt"): ("read", None),
    ("POST", "/v1/quote"): ("inference", ASK),
    ("POST", "/v1/chat/completions"): ("inference", CHAT),
    ("POST", "/v1/completions"): ("inference", ASK),
    ("POST", "/v1/embeddings"): ("inference", {"model": MODEL, "input": "one"}),
    ("GET", "/v1/models"): (None, None),
    ("GET", "/v1/models/{model}"): (None, None),
    ("GET", "/v1/account"): ("read", None),
    ("GET", "/v1/keys"): ("read", None),
    ("POST", "/v1/keys"): ("keys", {"scopes": ["keys"]}),
    ("DELETE", "/v1/keys/{id}"): ("keys", None),
    ("POST", "/v1/account/clearance"): ("withdraw", {"amount_wei": "1"}),
}
"""The scope that each call needs, and a body that it takes."""


async def test_every_call_that_needs_a_key_is_listed_here_with_its_scope(network: Network) -> None:
    assert set(CALLS) == {(each.method, each.path) for each in endpoints(network.coordinator) if each.needs_key}


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_key_may_do_what_its_one_scope_says_and_nothing_else(owner: httpx.AsyncClient, scope: str) -> None:
    headers = await key_with(owner, scope)
    for (method, path), (needed, body) in CALLS.items():
        url = path.replace("{id}", UNKNOWN).replace("{model}", MODEL)
        answer = await owner.request(method, url, json=body, headers=headers)
        if needed in (scope, None):
            assert answer.status_code != 403, (method, path, answer.text)
        else:
            assert (answer.status_code, code_of(answer)) == (403, "missing_scope"), (method, path, answer.text)
            assert needed in answer.text


async def test_a_session_asks_for_no_inference(owner: httpx.AsyncClient) -> None:
    assert code_of(await owner.post("/v1/requests", json=ASK)) == "missing_scope"
    assert code_of(await owner.post("/v1/chat/completions", json=CHAT)) == "missing_scope"


async def test_who_may_only_look_cancels_nothing_by_leaving_a_stream(
    network: Network, owner: httpx.AsyncClient
) -> None:
    asking, looking = await key_with(owner, "inference"), await key_with(owner, "read")
    created = (await owner.post("/v1/requests", json=ASK | {"model": MODEL, "prompt": "slow"}, headers=asking)).json()
    async with owner.stream("GET", f"/v1/requests/{created['id']}/events", headers=looking) as stream:
        assert stream.status_code == 200
    assert created["id"] not in network.coordinator._graces  # pyright: ignore[reportPrivateUsage]


async def test_a_key_makes_no_key_that_may_do_more_than_itself(network: Network, owner: httpx.AsyncClient) -> None:
    later = network.coordinator.clock() + 3_600_000
    plain = await key_with(owner, "keys", "read")
    for body, status in (
        ({"scopes": ["read"]}, 201),
        ({"scopes": ["read", "keys"]}, 201),
        ({"scopes": ["inference"]}, 403),
        ({}, 403),
    ):
        assert (await owner.post("/v1/keys", json=body, headers=plain)).status_code == status, body
    ending = await key_with(owner, "keys", "inference", expires_at=later)
    for body, status in (
        ({"scopes": ["inference"], "expires_at": later}, 201),
        ({"scopes": ["inference"], "expires_at": later + 1}, 403),
        ({"scopes": ["inference"]}, 403),
    ):
        assert (await owner.post("/v1/keys", json=body, headers=ending)).status_code == status, body
    for limit in ({"budget_wei": "1"}, {"concurrency": 1}, {"requests_per_minute": 1}):
        limited = await key_with(owner, "keys", "inference", **limit)
        refused = await owner.post("/v1/keys", json={"scopes": ["inference"], **limit}, headers=limited)
        assert (refused.status_code, code_of(refused)) == (403, "exceeds_key")


async def test_credits_that_are_no_deposit_are_not_cleared(owner: httpx.AsyncClient) -> None:
    refused = await owner.post("/v1/account/clearance", json={"amount_wei": "1"})
    assert (refused.status_code, code_of(refused)) == (409, "no_vault")
    for amount in ("0", "-1", "01", 1, ""):
        assert code_of(await owner.post("/v1/account/clearance", json={"amount_wei": amount})) == "malformed"
