"""Signing in, API keys, and clearances: the calls by which a wallet's owner looks after an account."""

from __future__ import annotations

import re

import msgspec

from parallelix.coordinator.accounts import Accounts
from parallelix.coordinator.errors import NotFound
from parallelix.coordinator.http import limits
from parallelix.coordinator.http.call import Call
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.sign_in import Place, place_of
from parallelix.protocol import accounts

NO_STORE = (b"cache-control", b"no-store")
"""For answers that hold a secret."""

_KEY_ID = re.compile(r"(key_[0-9a-f]{16}|ses_[0-9a-f]{32})")
_SIGN_IN = msgspec.json.Decoder(accounts.SignInBody)
_CLEARANCE = msgspec.json.Decoder(accounts.ClearanceBody)
_NEW_KEY = msgspec.json.Decoder(accounts.NewKeyBody)


class AccountCalls:
    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._accounts = Accounts(coordinator)

    async def nonce(self, call: Call) -> None:
        await call.answer_struct(200, self._accounts.nonce(self._place(call)), headers=[NO_STORE])

    async def sign_in(self, call: Call) -> None:
        _, body = await call.read(lambda raw: limits.decode(raw, _SIGN_IN))
        session = await self._accounts.sign_in(body, self._place(call))
        await call.answer_struct(201, session, headers=[NO_STORE])

    async def keys(self, call: Call) -> None:
        key = self._coordinator.authenticate(call.bearer(), "read")
        await call.answer_struct(200, self._accounts.keys(key))

    async def make_key(self, call: Call) -> None:
        key = self._coordinator.authenticate(call.bearer(), "keys")
        _, body = await call.read(lambda raw: limits.decode(raw, _NEW_KEY))
        made = await self._accounts.make_key(key, body)
        await call.answer_struct(201, made, headers=[NO_STORE, (b"location", f"/v1/keys/{made.id}".encode())])

    async def revoke_key(self, call: Call) -> None:
        key = self._coordinator.authenticate(call.bearer(), "keys")
        key_id = call.parameters["id"]
        if not _KEY_ID.fullmatch(key_id):
            raise NotFound(f"key {key_id[:80]!r}: is not an id of a key (key_ and 16 hex digits)", code="unknown_key")
        await call.answer_struct(200, await self._accounts.revoke_key(key, key_id))

    async def clearance(self, call: Call) -> None:
        key = self._coordinator.authenticate(call.bearer(), "withdraw")
        _, body = await call.read(lambda raw: limits.decode(raw, _CLEARANCE))
        await call.answer_struct(200, await self._accounts.clearance(key, int(body.amount_wei)), headers=[NO_STORE])

    def _place(self, call: Call) -> Place:
        host = call.headers.get(b"host", b"").decode("latin-1")
        return place_of(self._coordinator.settings.public_url, call.scope["server"], host)
