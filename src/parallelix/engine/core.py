"""The engine: `step(event, now, random_bytes)` changes the state and says what to write, to do and to answer.

The fourteen steps of a request are in `steps.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from parallelix.engine import events
from parallelix.engine.catalogue import Catalogue
from parallelix.engine.challenges import ACCOUNT
from parallelix.engine.effects import Answer, Refused
from parallelix.engine.entities import ApiKey
from parallelix.engine.ledger import GRANTS, available
from parallelix.engine.restoring import Restoring
from parallelix.engine.settings import EngineSettings
from parallelix.engine.state import RandomBytes, Step

__all__ = ["Engine", "Step"]


class Engine(Restoring):
    """The whole of it, and what answers to each event."""

    def __init__(self, settings: EngineSettings, catalogue: Catalogue) -> None:
        super().__init__(settings, catalogue)
        self._handlers: dict[type[Any], Callable[[Any], Answer]] = {
            events.Admit: self._admit,
            events.Cancel: self._cancel,
            events.ClientReturned: self._client_returned,
            events.RegistryChanged: self._registry_changed,
            events.Attached: self._attached,
            events.Heartbeat: self._heartbeat,
            events.UptimeRestored: self._uptime_restored,
            events.Acknowledged: self._acknowledged,
            events.ResultReturned: self._result_returned,
            events.AuditAnswered: self._audit_answered,
            events.EpochBegan: self._epoch_began,
            events.EpochRevealed: self._epoch_revealed,
            events.ClearanceAsked: self._clearance_asked,
            events.Grant: self._grant,
            events.KeyIssued: self._key_issued,
            events.KeyRevoked: self._key_revoked,
            events.KeysForgotten: self._keys_forgotten,
            events.Tick: self._tick,
        }
        if settings.on_chain:
            self._handlers |= {
                events.ChainSpan: self._chain_span,
                events.ChainProvisional: self._chain_provisional,
                events.ChainHalted: self._chain_halted,
            }
        else:
            # On a chain nothing but its own word confirms a batch.
            self._handlers[events.BatchConfirmed] = self._batch_confirmed

    def step(self, event: events.Event, now: int, random_bytes: RandomBytes) -> Step:
        """Decides one event at Unix millisecond `now`. Same state, event, time and randomness: same step."""
        # A clock that is set back must not undo a deadline that has passed.
        self._now = max(now, self._now)
        self._random = random_bytes
        answer = self._handlers[type(event)](event)
        return self._take_step(answer)

    # Money and keys ---------------------------------------------------------------------------------------------------

    def _grant(self, event: events.Grant) -> Answer:
        if event.account == ACCOUNT:
            return Refused(
                code="invalid_request",
                message=f"account {ACCOUNT} is the coordinator's own, which pays for nothing; grant to another",
            )
        if self.lives_from_deposit(event.account):
            return Refused(
                code="invalid_request",
                message=f"account {event.account} lives from its deposit in the vault; deposit there, or grant to a"
                " name that is no address",
            )
        self._post(event.transfer_id, GRANTS, available(event.account), event.amount_wei, "")
        return None

    def _key_issued(self, event: events.KeyIssued) -> Answer:
        assert event.account != ACCOUNT, f"a key for {ACCOUNT}, whose requests nobody sends"
        key = ApiKey(
            key_id=event.key_id,
            key_hash=event.key_hash,
            account=event.account,
            name=event.name,
            requests_per_minute=event.requests_per_minute,
            concurrency=event.concurrency,
            budget_wei=event.budget_wei,
            spent_wei=0,
            created_at=self._now,
            expires_at=event.expires_at,
            revoked_at=0,
            scopes=event.scopes,
            kind=event.kind,
        )
        if event.key_id not in self.keys:
            self.keys[event.key_id] = key
            self._rows.append(key.row())
        return None

    def _key_revoked(self, event: events.KeyRevoked) -> Answer:
        key = self.keys.get(event.key_id)
        if key is not None and not key.revoked_at:
            key.revoked_at = self._now
            self._rows.append(key.row())
        return None

    def _keys_forgotten(self, event: events.KeysForgotten) -> Answer:
        for key_id in event.key_ids:
            key = self.keys.pop(key_id)
            assert not key.open_requests, f"{key_id} was forgotten while its requests are open"
            assert not key.usable(self._now), f"{key_id} was forgotten while it can be used"
        return None
