"""What a wallet's owner asks of a coordinator over HTTP: a sign-in, an API key, a clearance to withdraw."""

from __future__ import annotations

from typing import Self

import httpx
import msgspec
from eth_account.messages import encode_defunct
from eth_account.signers.local import LocalAccount

from parallelix.protocol import accounts
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.requests import AccountView
from parallelix.protocol.sign_in import STATEMENT, SignIn

CALL_SECONDS = 60.0


class CallRefused(Exception):
    """`code` is the coordinator's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class WalletCalls:
    """One wallet's calls. Each raises `CallRefused`, or `httpx.HTTPError` without an answer."""

    def __init__(self, url: str, wallet: LocalAccount) -> None:
        self._wallet = wallet
        self._token = ""
        self._http = httpx.AsyncClient(base_url=url, timeout=CALL_SECONDS, trust_env=False, verify=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def message(self) -> str:
        """What the wallet must sign to sign in now."""
        nonce = msgspec.json.decode(await self._call("POST", "/v1/auth/nonce"), type=accounts.NonceView)
        return SignIn(
            domain=nonce.domain,
            address=self._wallet.address,
            statement=STATEMENT,
            uri=nonce.uri,
            version=nonce.version,
            chain_id=nonce.chain_id,
            nonce=nonce.nonce,
            issued_at=nonce.issued_at,
            expiration_time=nonce.expiration_time,
        ).text

    async def sign_in(self, message: str, *, signer: LocalAccount | None = None) -> None:
        """Opens a session, signed by another wallet where one is given."""
        signed = (signer or self._wallet).sign_message(encode_defunct(text=message))
        body = accounts.SignInBody(message=message, signature=to_hex(bytes(signed.signature)))
        answer = await self._call("POST", "/v1/auth/sign-in", body)
        self._token = msgspec.json.decode(answer, type=accounts.SessionView).token

    async def new_key(self, name: str) -> str:
        body = accounts.NewKeyBody(name=name)
        return msgspec.json.decode(await self._call("POST", "/v1/keys", body), type=accounts.NewKeyView).api_key

    async def clearance(self, amount_wei: int) -> accounts.ClearanceView:
        body = accounts.ClearanceBody(amount_wei=str(amount_wei))
        answer = await self._call("POST", "/v1/account/clearance", body)
        return msgspec.json.decode(answer, type=accounts.ClearanceView)

    async def account(self) -> AccountView:
        return msgspec.json.decode(await self._call("GET", "/v1/account"), type=AccountView)

    async def _call(self, method: str, path: str, body: msgspec.Struct | None = None) -> bytes:
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self._token}"} if self._token else {}
        content = msgspec.json.encode(body) if body is not None else b""
        answer = await self._http.request(method, path, content=content, headers=headers)
        if answer.is_error:
            raise _error_of(answer)
        return answer.content


class _Error(msgspec.Struct, frozen=True, kw_only=True):
    error: str
    message: str


def _error_of(answer: httpx.Response) -> CallRefused:
    try:
        told = msgspec.json.decode(answer.content, type=_Error)
    except msgspec.DecodeError:
        return CallRefused(str(answer.status_code), answer.text[:200])
    return CallRefused(told.error, told.message)
