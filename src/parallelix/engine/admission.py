"""At the door, before step 2: what a request would need and cost, and every reason to turn it away. Of one that is
refused here nothing is kept but the token that its key spent.
"""

from __future__ import annotations

import msgspec

from parallelix.engine import effects, events
from parallelix.engine.catalogue import PRIORITIES, TIERS, WORKLOAD_CLASSES, Price, price_of
from parallelix.engine.deposits import Deposits
from parallelix.engine.effects import Answer, Refused
from parallelix.engine.entities import ApiKey
from parallelix.engine.ledger import available
from parallelix.engine.pool import Need

BYTES_PER_TOKEN_GUESS = 4
"""For fitting a prompt into a context only; holds count every byte as a token."""


FREE = Price(prompt_wei=0, completion_wei=0)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a request needs of a node, what it is priced at, and the worst case that is held for it."""

    need: Need
    price: Price
    hold_wei: int
    prompt_tokens_max: int


class Admission(Deposits):
    def quote(self, event: events.Admit) -> Plan | Refused:
        """What `Admit` would ask for, cost and hold at most, without keeping anything."""
        return self._plan(event)

    def _repeat_of(self, event: events.Admit) -> Answer:
        if not event.idempotency_key:
            return None
        oldest = self._now - self.settings.idempotency_ms
        while self._idempotent and next(iter(self._idempotent.values()))[2] < oldest:
            self._idempotent.popitem(last=False)
        known = self._idempotent.get((event.account, event.idempotency_key))
        if known is None:
            if len(self._idempotent) >= self.settings.idempotency_keys_max:
                return overloaded("too many Idempotency-Keys are remembered; try again later or without one")
            return None
        fingerprint, request_id, _ = known
        if fingerprint != event.fingerprint:
            return Refused(
                code="idempotency_key_reused",
                message=f"Idempotency-Key {event.idempotency_key!r} came with another body before; use a new key",
            )
        request = self.requests.get(request_id)
        return effects.Admitted(request_id=request_id, hold_wei=request.hold_wei if request else 0, created=False)

    def _limit_refusal(self, event: events.Admit, key: ApiKey | None) -> Refused | None:
        if key is None or not key.usable(self._now):
            return Refused(code="invalid_api_key", message="the API key is unknown, expired or revoked; make a new one")
        wait_seconds = key.take_token(self._now)
        if wait_seconds:
            return Refused(
                code="rate_limited",
                message=f"key {key.key_id}: more than {key.requests_per_minute} requests a minute; slow down",
                retry_after_seconds=wait_seconds,
            )
        if key.concurrency and key.open_requests >= key.concurrency:
            return Refused(
                code="concurrency_exceeded",
                message=f"key {key.key_id}: {key.open_requests} requests are open, at most {key.concurrency}; wait",
                retry_after_seconds=1.0,
            )
        return self._room_refusal(event.account)

    def _room_refusal(self, account: str) -> Refused | None:
        settings = self.settings
        if self.requests_open >= settings.open_requests_max:
            return overloaded(f"{self.requests_open} requests are open, at most {settings.open_requests_max}")
        if len(self._unsettled) >= settings.unsettled_max:
            return overloaded(
                f"{len(self._unsettled)} records wait for their batch to be confirmed, at most {settings.unsettled_max}"
            )
        if self.open_of_account.get(account, 0) >= settings.open_requests_per_account_max:
            return overloaded(
                f"account {account} has {settings.open_requests_per_account_max} open requests, the most allowed"
            )
        return None

    def _plan(self, event: events.Admit) -> Plan | Refused:
        if event.workload_class not in WORKLOAD_CLASSES:
            return Refused(
                code="unknown_workload_class",
                message=f"workload_class {event.workload_class!r}: expected one of {', '.join(WORKLOAD_CLASSES)}",
            )
        model = self.catalogue.find(event.model)
        if model is None:
            return Refused(
                code="unknown_model", message=f"model {event.model!r} is not offered; see /v1/models for those that are"
            )
        assert event.hardware_tier in TIERS and event.priority in PRIORITIES, event
        completion_tokens = 0 if event.kind == "embedding" else event.max_tokens or model.max_tokens_default
        if completion_tokens > model.max_tokens_max:
            return Refused(
                code="max_tokens_too_large",
                message=f"max_tokens {completion_tokens}: model {model.name!r} gives at most {model.max_tokens_max}",
            )
        context = event.prompt_bytes // BYTES_PER_TOKEN_GUESS + completion_tokens
        if context > model.context_tokens:
            return Refused(
                code="context_exceeded",
                message=f"about {context} tokens in all; model {model.name!r} has room for {model.context_tokens}",
            )
        deadline_ms = event.deadline_ms or self.settings.deadline_ms_default
        prompt_tokens = event.prompt_bytes + model.template_tokens * event.message_count
        if event.only_node is None:
            price = price_of(self.catalogue, model, tier=event.hardware_tier, priority=event.priority)
        else:
            price = FREE
        hold_wei = price.cost_wei(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        need = Need(
            workload_class=event.workload_class,
            digests=model.digests,
            tier=event.hardware_tier,
            context_tokens=context,
            features=frozenset(event.features),
            tokens=completion_tokens,
            deadline_ms=min(deadline_ms, self.settings.deadline_ms_max),
        )
        lacking = self.pool.features_lacking(need)
        if lacking and event.only_node is None:
            return Refused(
                code="unsupported_parameter",
                message=f"model {model.name!r}: no node that has it now can do {', '.join(sorted(lacking))}; leave it "
                "out, or take another model",
            )
        return Plan(need=need, price=price, hold_wei=hold_wei, prompt_tokens_max=prompt_tokens)

    def _credit_refusal(self, key: ApiKey, hold_wei: int) -> Refused | None:
        if key.budget_wei and key.spent_wei + key.committed_wei + hold_wei > key.budget_wei:
            left = key.budget_wei - key.spent_wei - key.committed_wei
            return Refused(
                code="budget_exceeded",
                message=f"key {key.key_id}: the request may cost {hold_wei} wei, but {left} wei of its budget are left",
            )
        if self.lives_from_deposit(key.account):
            return self._deposit_refusal(key.account, hold_wei)
        credit = self.ledger.balance_wei(available(key.account))
        if credit < hold_wei:
            return Refused(
                code="insufficient_credits",
                message=f"the request may cost {hold_wei} wei, but account {key.account} has {credit} wei available; "
                "add credits, or ask for fewer max_tokens",
            )
        return None


def overloaded(why: str) -> Refused:
    return Refused(code="overloaded", message=why, retry_after_seconds=5.0)
