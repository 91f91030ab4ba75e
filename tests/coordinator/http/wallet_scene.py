"""A wallet that signs in to a coordinator, with whatever a test wants to be wrong about it."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec

from parallelix.protocol.sign_in import SignIn
from parallelix.protocol.signing import NodeKey


async def asked_nonce(http: httpx.AsyncClient) -> dict[str, Any]:
    answer = await http.post("/v1/auth/nonce")
    assert answer.status_code == 200, answer.text
    return answer.json()


def message_of(asked: dict[str, Any], account: str, **changes: Any) -> SignIn:
    message = SignIn(
        domain=asked["domain"], address=account, statement="Sign in to ParalleliX.", uri=asked["uri"],
        version=asked["version"], chain_id=asked["chain_id"], nonce=asked["nonce"], issued_at=asked["issued_at"],
        expiration_time=asked["expiration_time"],
    )  # fmt: skip
    return msgspec.structs.replace(message, **changes)


def signed(wallet: NodeKey, text: str) -> dict[str, str]:
    return {"message": text, "signature": "0x" + wallet.sign(text).hex()}


async def sign_in(http: httpx.AsyncClient, wallet: NodeKey, **changes: Any) -> httpx.Response:
    message = message_of(await asked_nonce(http), wallet.address, **changes)
    return await http.post("/v1/auth/sign-in", json=signed(wallet, message.text))


def bearer(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}
