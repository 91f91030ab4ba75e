"""Signing in with a wallet and making keys, over real HTTP against a real coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from http_network import CREDITS_WEI, Network
from wallet_scene import asked_nonce, bearer, message_of, sign_in, signed

from parallelix.engine import events
from parallelix.protocol.signing import NodeKey

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def http(network: Network) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=network.url, timeout=30) as client:
        yield client


async def test_a_wallet_signs_in_and_sees_its_account(http: httpx.AsyncClient) -> None:
    wallet = NodeKey.generate()
    answer = await sign_in(http, wallet)
    assert answer.status_code == 201, answer.text
    session = answer.json()
    assert session["account"] == wallet.address
    assert session["scopes"] == ["read", "keys", "withdraw"]
    account = (await http.get("/v1/account", headers=bearer(session["token"]))).json()
    assert (account["account"], account["available_wei"]) == (wallet.address, "0")
