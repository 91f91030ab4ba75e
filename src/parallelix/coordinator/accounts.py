"""Accounts that belong to wallets: sessions by sign-in, the API keys that they make, and clearances to withdraw.

A session is an API key of another kind: it lives an hour, cannot ask for inference, and is made by a wallet's signature
alone. All else is made with it.

Addresses are free, so what strangers can leave here is bounded apart from what accounts with credits can: whoever has
credits can always sign in, however many have none.
"""

from __future__ import annotations

from collections import deque

from parallelix.coordinator import errors, sign_in
from parallelix.coordinator.commands import new_key
from parallelix.coordinator.reading import key_view
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.sign_in import NONCE_SECONDS, Nonces, Place
from parallelix.engine import events
from parallelix.engine.entities import ApiKey
from parallelix.engine.ledger import AMOUNT_WEI_MAX, available, held
from parallelix.protocol import accounts, requests
from parallelix.protocol.accounts import SCOPES, SESSION_SCOPES
from parallelix.protocol.sign_in import VERSION, SignIn, time_text
from parallelix.protocol.signing import personal_hash

SESSION_SECONDS = 3600
"""Enough to set an account up. It is longer than a nonce holds, which replays rest on (`sign_in.py`)."""
SESSIONS_OPEN_MAX = 8
"""Of one account: a few browsers and terminals. One more ends the oldest."""
SESSIONS_OF_ACCOUNT_MAX = 128
"""Opened in the last hour, whether still open or not: more is a program that should make itself a key."""
SESSIONS_MAX = 50_000
"""Of accounts with credits. A thousand bytes each."""
STRANGERS_MAX = 5_000
"""Sessions of accounts without credits, which anybody can have any number of."""
KEYS_MAX = 64
"""Usable ones of one account, and as many that are over and still listed."""
CONTRACTS_ASKED_MAX = 4
"""Questions to the chain at once on behalf of whoever names an address; the endpoint is there for more than that."""
CONTRACTS_ASKED_A_MINUTE = 30
"""On behalf of accounts with credits, and as often for all others. A wrong signature, which costs nothing, has the
chain asked; an endpoint that counts questions must have some left for the blocks, or no deposit can be spent."""
FORGET_SLICE = 500
"""Ended sessions that one call clears away."""

assert SESSION_SECONDS > NONCE_SECONDS


class _Allowance:
    """A minute's worth of questions, which comes back as time passes."""

    def __init__(self) -> None:
        self._left = float(CONTRACTS_ASKED_A_MINUTE)
        self._at = 0

    def take(self, now: int) -> float:
        """Takes one at Unix millisecond `now`, which never goes back; gives 0, or the seconds to wait."""
        most = float(CONTRACTS_ASKED_A_MINUTE)
        self._left = min(most, self._left + (now - self._at) * most / 60_000)
        self._at = now
        if self._left < 1:
            return (1 - self._left) * 60 / most
        self._left -= 1
        return 0.0


class Accounts:
    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._nonces = Nonces(coordinator.secrets.nonce_key)
        self._asking = 0
        self._allowances = {True: _Allowance(), False: _Allowance()}
        """By whether the account has credits."""
        self._latest = 0
        self._sessions: dict[bool, deque[ApiKey]] = {True: deque(), False: deque()}
        """By whether the account had credits when it signed in, in the order in which they end."""
        known = [key for key in coordinator.engine.keys.values() if key.kind == "session"]
        for session in sorted(known, key=lambda key: key.expires_at):
            self._sessions[self._has_credits(session.account)].append(session)

    def nonce(self, place: Place) -> accounts.NonceView:
        now = self._time()
        return accounts.NonceView(
            nonce=self._nonces.make(now),
            domain=place.domain,
            uri=place.uri,
            version=VERSION,
            chain_id=self._coordinator.settings.chain_id,
            issued_at=time_text(now),
            expiration_time=time_text(now + NONCE_SECONDS * 1000),
        )

    async def sign_in(self, body: accounts.SignInBody, place: Place) -> accounts.SessionView:
        """Opens a session. Raises `MalformedSignIn`, `SignInRefused`, `TooMany` or `Unavailable`."""
        coordinator, now = self._coordinator, self._time()
        checked = sign_in.check(
            body.message,
            place=place,
            chain_id=coordinator.settings.chain_id,
            nonces=self._nonces,
            now=now,
        )
        self._require_unused(checked)
        await self._require_signer(checked.message, bytes.fromhex(body.signature[2:]))
        return await self._open_session(checked, now)

    async def _require_signer(self, message: SignIn, signature: bytes) -> None:
        """A key's signature needs no chain. Only if it is not one, the address may be a contract's (EIP-1271)."""
        try:
            sign_in.require_signer(message, signature)
        except errors.SignInRefused:
            if not await self._signed_by_contract(message, signature):
                raise

    async def _signed_by_contract(self, message: SignIn, signature: bytes) -> bool:
        rpc = self._coordinator.rpc
        if rpc is None:
            return False
        if self._asking >= CONTRACTS_ASKED_MAX:
            raise errors.Unavailable(
                f"{self._asking} wallets that are contracts are being asked, at most {CONTRACTS_ASKED_MAX}; try again",
                code="overloaded",
                retry_after_seconds=1.0,
            )
        wait_seconds = self._allowances[self._has_credits(message.address)].take(self._time())
        if wait_seconds:
            raise errors.Unavailable(
                f"wallets that are contracts were asked {CONTRACTS_ASKED_A_MINUTE} times in a minute, the most; wait, "
                "or sign in with a key",
                code="overloaded",
                retry_after_seconds=wait_seconds,
            )
        # Needs the chain's libraries, which a coordinator on no chain may lack.
        from parallelix.chain import contract_wallets
        from parallelix.chain.errors import ChainUnreachable

        self._asking += 1
        try:
            digest = personal_hash(message.text)
            for each in (rpc, self._coordinator.check_rpc):
                if each is not None and not await contract_wallets.has_signed(each, message.address, digest, signature):
                    return False
            return True
        except ChainUnreachable as error:
            raise errors.Unavailable(
                "the chain cannot be asked for a wallet that is a contract now; try again, or sign in with a key",
                code="chain_unreachable",
                retry_after_seconds=5.0,
            ) from error
        finally:
            self._asking -= 1

    async def _open_session(self, checked: sign_in.Checked, now: int) -> accounts.SessionView:
        """Nothing waits between the look at the nonce and the step that uses it up."""
        account, secret = checked.message.address, new_key()
        self._require_unused(checked)
        self._coordinator.journal.require_room()
        self._forget_ended(now)
        sessions = self._require_room(account, now)
        session, ticket = self._coordinator.add_key(
            events.KeyIssued(
                key_id=checked.session_id,
                key_hash=secret.key_hash,
                account=account,
                name="sign-in",
                expires_at=now + SESSION_SECONDS * 1000,
                scopes=",".join(SESSION_SCOPES),
                kind="session",
            )
        )
        sessions.append(session)
        self._end_oldest(account, now)
        await self._coordinator.journal.wait(ticket)
        self._coordinator.log("account.signed_in", {"account": account, "session": session.key_id})
        return accounts.SessionView(
            token=secret.secret,
            id=session.key_id,
            account=account,
            scopes=SESSION_SCOPES,
            expires_at=session.expires_at,
        )

    def _require_unused(self, checked: sign_in.Checked) -> None:
        if checked.session_id in self._coordinator.engine.keys:
            raise errors.SignInRefused(
                "nonce: somebody signed in with it before; ask for another at /v1/auth/nonce, and sign in with that",
                code="used_nonce",
            )

    def _require_room(self, account: str, now: int) -> deque[ApiKey]:
        """Where a session of the account is kept."""
        own = [key for key in self._coordinator.keyring.of(account) if key.kind == "session"]
        if len(own) >= SESSIONS_OF_ACCOUNT_MAX:
            raise errors.TooMany(
                f"account {account}: signed in {len(own)} times in the last hour, at most {SESSIONS_OF_ACCOUNT_MAX}; "
                "wait, or make an API key",
                code="rate_limited",
                retry_after_seconds=max(1.0, (own[0].expires_at - now) / 1000),
            )
        has_credits = self._has_credits(account)
        sessions, most = self._sessions[has_credits], SESSIONS_MAX if has_credits else STRANGERS_MAX
        if len(sessions) >= most:
            who = "accounts" if has_credits else "accounts without credits"
            raise errors.Unavailable(
                f"{len(sessions)} sign-ins of {who} are remembered, at most {most}; try again later",
                code="overloaded",
                retry_after_seconds=max(1.0, (sessions[0].expires_at - now) / 1000),
            )
        return sessions

    def _end_oldest(self, account: str, now: int) -> None:
        own = self._coordinator.keyring.of(account)
        open_ones = [key for key in own if key.kind == "session" and key.usable(now)]
        for session in open_ones[:-SESSIONS_OPEN_MAX]:
            self._coordinator.step(events.KeyRevoked(key_id=session.key_id))

    def _forget_ended(self, now: int) -> None:
        """An ended session also stands for its nonce, which is not taken any more by then."""
        ended: list[ApiKey] = []
        for sessions in self._sessions.values():
            while sessions and sessions[0].expires_at <= now and len(ended) < FORGET_SLICE:
                ended.append(sessions.popleft())
        if ended:
            self._coordinator.forget_keys(ended)

    def _time(self) -> int:
        """Unix milliseconds. A clock that is set back must not make a nonce good again whose session is forgotten."""
        self._latest = max(self._latest, self._coordinator.clock())
        return self._latest

    # API keys -------------------------------------------------------------------------------------------------------

    def keys(self, key: ApiKey) -> requests.KeyList:
        """The account's own keys and the sessions that are open, oldest first, without their secrets."""
        now = self._time()
        own = self._coordinator.keyring.of(key.account)
        return requests.KeyList(data=tuple(key_view(each) for each in own if each.kind == "key" or each.usable(now)))

    async def make_key(self, maker: ApiKey, body: accounts.NewKeyBody) -> accounts.NewKeyView:
        """Raises `BadRequest`, `PaymentRequired`, `Forbidden`, `TooManyKeys` or `Unavailable`."""
        coordinator, now = self._coordinator, self._time()
        _require_sensible(body, now)
        _require_within(body, maker)
        if not self._has_credits(maker.account):
            raise errors.PaymentRequired(
                f"account {maker.account} has no credits, and keys are made by accounts that have some; deposit to "
                "the vault and wait for its confirmation, or have credits granted",
                code="no_deposit",
            )
        coordinator.journal.require_room()
        self._make_room(maker.account, now)
        secret = new_key()
        key, ticket = coordinator.add_key(
            events.KeyIssued(
                key_id=secret.key_id,
                key_hash=secret.key_hash,
                account=maker.account,
                name=body.name,
                requests_per_minute=body.requests_per_minute,
                concurrency=body.concurrency,
                budget_wei=int(body.budget_wei),
                expires_at=body.expires_at or 0,
                scopes=",".join(scope for scope in SCOPES if scope in body.scopes),
            )
        )
        await coordinator.journal.wait(ticket)
        coordinator.log("key.made", {"account": key.account, "key": key.key_id, "scopes": key.scopes})
        return accounts.NewKeyView(api_key=secret.secret, id=key.key_id, account=key.account, key=key_view(key))

    def _make_room(self, account: str, now: int) -> None:
        own = [key for key in self._coordinator.keyring.of(account) if key.kind == "key"]
        usable = [key for key in own if key.usable(now)]
        if len(usable) >= KEYS_MAX:
            raise errors.TooManyKeys(
                f"account {account} has {len(usable)} usable keys, at most {KEYS_MAX}; revoke one with DELETE "
                "/v1/keys/<id>"
            )
        over = [key for key in own if not key.usable(now) and not key.open_requests]
        if len(over) > KEYS_MAX:
            self._coordinator.forget_keys(over[:-KEYS_MAX])

    async def revoke_key(self, key: ApiKey, key_id: str) -> requests.KeyView:
        """Revokes a key or a session of the same account, at once and for good. Raises `NotFound`."""
        coordinator = self._coordinator
        found = coordinator.keyring.get(key.account, key_id)
        if found is None:
            raise errors.NotFound(f"key {key_id[:80]!r}: this account has none of that id", code="unknown_key")
        await coordinator.revoke_key(key_id)
        coordinator.log("key.revoked", {"account": key.account, "key": key_id})
        return key_view(found)

    # Withdrawals ----------------------------------------------------------------------------------------------------

    async def clearance(self, key: ApiKey, amount_wei: int) -> accounts.ClearanceView:
        """Raises `BadRequest`, `NoVault`, `PaymentRequired`, `ClearanceOpen` or `Unavailable`."""
        coordinator = self._coordinator
        if amount_wei > AMOUNT_WEI_MAX:
            raise errors.BadRequest(
                f"amount_wei: {amount_wei} is more than {AMOUNT_WEI_MAX}, the most of any amount",
                code="invalid_request",
                param="amount_wei",
            )
        if not coordinator.engine.lives_from_deposit(key.account):
            raise errors.NoVault(
                f"account {key.account}: its credits are no deposit on a chain, so there is nothing to withdraw"
            )
        granted = await coordinator.grant_clearance(key.account, amount_wei)
        coordinator.log("clearance.granted", {"account": key.account, "amount_wei": granted.amount_wei})
        return granted

    def _has_credits(self, account: str) -> bool:
        ledger = self._coordinator.engine.ledger
        return ledger.balance_wei(available(account)) + ledger.balance_wei(held(account)) > 0


def _require_sensible(body: accounts.NewKeyBody, now: int) -> None:
    if not body.name.isprintable():
        raise errors.BadRequest(
            "name: holds characters that cannot be printed; leave them out", code="invalid_request", param="name"
        )
    if body.expires_at is not None and body.expires_at <= now:
        raise errors.BadRequest(
            f"expires_at: {body.expires_at} is past, it is {now}; give a later Unix millisecond, or null",
            code="invalid_request",
            param="expires_at",
        )
    if int(body.budget_wei) > AMOUNT_WEI_MAX:
        raise errors.BadRequest(
            f"budget_wei: {body.budget_wei} is more than {AMOUNT_WEI_MAX}, the most of any amount",
            code="invalid_request",
            param="budget_wei",
        )


def _require_within(body: accounts.NewKeyBody, maker: ApiKey) -> None:
    """A wallet's session makes any key. A key makes none that may do more, or for longer, than itself."""
    if maker.kind == "session":
        return
    extra = [scope for scope in body.scopes if not maker.may(scope)]
    limited = maker.requests_per_minute or maker.concurrency or maker.budget_wei
    outlives = maker.expires_at and not 0 < (body.expires_at or 0) <= maker.expires_at
    if extra or limited or outlives:
        reason = (
            f"lacks the scope {extra[0]}"
            if extra
            else "has limits, which several keys together would exceed"
            if limited
            else f"ends at {maker.expires_at}, before the new one"
        )
        raise errors.Forbidden(
            f"key {maker.key_id} {reason}; sign in with the wallet to make this key", code="exceeds_key"
        )
