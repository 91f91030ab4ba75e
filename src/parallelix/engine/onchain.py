"""The network on a chain: what the contracts say becomes nodes, credits, confirmed batches and liveness.

A span of blocks is taken in by one step, whole or not at all, and the cursor moves with it. So its rows are one
transaction, and every fact counts exactly once, whatever dies when.
"""

from __future__ import annotations

from parallelix.engine import effects, events
from parallelix.engine.chain_facts import (
    BatchAnchored,
    ChainFact,
    Deposited,
    LimitSet,
    NodeStaked,
    NodeUnstaking,
    NodeWithdrawn,
    SpendingSettled,
    WithdrawalAsked,
    WithdrawalTakenBack,
    Withdrawn,
)
from parallelix.engine.effects import Answer, Refused
from parallelix.engine.ledger import VAULT, available, cleared, spent
from parallelix.engine.mirror import Clearance, Cursor, Part
from parallelix.engine.nodes import Nodes
from parallelix.engine.rows import RegistrationRow
from parallelix.protocol.registry import Registration

SECONDS_PER_DAY = 86_400


class OnChain(Nodes):
    # Blocks -----------------------------------------------------------------------------------------------------------

    def _chain_span(self, event: events.ChainSpan) -> Answer:
        cursor = self.mirror.cursor
        assert cursor is None or event.first_block == cursor.block + 1, (event.first_block, cursor)
        assert event.first_block <= event.last_block, event
        difference = self.mirror.difference(event.facts, self.registrations)
        if difference is not None:
            self._halt(difference.part, str(difference))
            self._span_halt = difference.part, str(difference)
            return effects.SpanRefused(part=difference.part, reason=str(difference))
        self._lift_span_halt()
        for fact in event.facts:
            self._take_fact(fact, day=event.last_time // SECONDS_PER_DAY)
            self.liveness.apply(fact)
        self.mirror.cursor = Cursor(block=event.last_block, hash=event.last_hash, time=event.last_time)
        self.liveness.advance(event.last_time)
        self._release_clearances(event.last_time)
        self._rows.append(self.mirror.cursor_row())
        return None

    def _take_fact(self, fact: ChainFact, *, day: int) -> None:
        """`day` is the UTC day of the span's last block; a fact of the span may be of an earlier one."""
        match fact:
            case NodeStaked() | NodeUnstaking() | NodeWithdrawn():
                self._node_changed(fact)
            case BatchAnchored():
                self._batch_anchored(fact)
            case Deposited():
                self.mirror.follow(fact, fact.account)
                self._post(f"deposit:{fact.event_id}", VAULT, available(fact.account), fact.amount_wei, "")
            case Withdrawn():
                self.mirror.follow(fact, fact.account)
                self._withdrawn(fact)
            case SpendingSettled():
                self.mirror.follow(fact, fact.account)
                self._settle(fact.account, fact.amount_wei, transfer_id=f"settle:{fact.event_id}", day=day)
            case WithdrawalAsked() | WithdrawalTakenBack() | LimitSet():
                self.mirror.follow(fact, fact.account)
            case _:
                pass

    def _chain_provisional(self, event: events.ChainProvisional) -> Answer:
        self.mirror.asked, self.mirror.head_block = event.asked, event.block
        # An endpoint that lost its peers shows the same block for ever, and none of the requests after it.
        self.mirror.heard_at = min(self._now, event.time * 1000)
        return None

    # Halts ------------------------------------------------------------------------------------------------------------

    def _chain_halted(self, event: events.ChainHalted) -> Answer:
        self._halt(event.part, event.reason)
        return None

    def _halt(self, part: Part, reason: str) -> None:
        """Halts a part, or lets it go on where `reason` is empty."""
        if reason == self.mirror.halts.get(part, ""):
            return
        if reason:
            self.mirror.halts[part] = reason
            self._log("chain.halted", part=part, reason=reason)
        else:
            del self.mirror.halts[part]
            self._log("chain.resumed", part=part)
        if part == "anchor" and self.mirror.cursor is not None:
            self._rows.append(self.mirror.cursor_row())

    def _lift_span_halt(self) -> None:
        """The blocks that did not fit do now: it was the endpoint, not the chain."""
        if self._span_halt is not None:
            part, reason = self._span_halt
            if self.mirror.halts.get(part) == reason:
                self._halt(part, "")
            self._span_halt = None

    # Nodes and batches ------------------------------------------------------------------------------------------------

    def _node_changed(self, fact: NodeStaked | NodeUnstaking | NodeWithdrawn) -> None:
        if isinstance(fact, NodeStaked):
            registration = Registration(
                node_id=str(fact.node_id),
                owner=fact.owner,
                stake_wei=str(fact.stake_wei),
                hardware_tier=fact.hardware_tier,
                node_key_hash=fact.node_key_hash,
                state="active",
            )
        else:
            known = self.registrations[fact.node_id]
            leaving = isinstance(fact, NodeUnstaking)
            registration = Registration(
                node_id=known.node_id,
                owner=known.owner,
                stake_wei=known.stake_wei,
                hardware_tier=known.hardware_tier,
                node_key_hash=known.node_key_hash,
                state="cooling" if leaving else "retired",
                cooldown_ends_at=fact.withdrawable_at if leaving else known.cooldown_ends_at,
            )
        self._rows.append(
            RegistrationRow(
                node_id=registration.node_id,
                owner=registration.owner,
                stake_wei=registration.stake_wei,
                hardware_tier=registration.hardware_tier,
                node_key_hash=registration.node_key_hash,
                state=registration.state,
                cooldown_ends_at=registration.cooldown_ends_at,
            )
        )
        self._registry_changed(events.RegistryChanged(registrations=(registration,)))

    def _batch_anchored(self, fact: BatchAnchored) -> None:
        """Only what the anchor has confirms a batch, and only where it is the very batch that is next here."""
        if fact.number < self.settings.first_batch:
            return
        unconfirmed = self.recorder.unconfirmed
        batch = unconfirmed.get(fact.number)
        if batch is None or fact.number != min(unconfirmed):
            following = min(unconfirmed, default=self.recorder.next_batch)
            self._halt("anchor", f"batch {fact.number} is anchored, but the next one here is {following}")
        elif batch.merkle_root != fact.merkle_root:
            self._halt(
                "anchor", f"batch {fact.number} is anchored with root {fact.merkle_root}, ours has {batch.merkle_root}"
            )
        else:
            self._batch_confirmed(events.BatchConfirmed(number=fact.number, reference=fact.reference))

    # Withdrawals ------------------------------------------------------------------------------------------------------

    def _withdrawn(self, fact: Withdrawn) -> None:
        account, left_wei = fact.account, fact.amount_wei
        transfer_id = f"withdraw:{fact.event_id}"
        clearance = self.mirror.clearances.get(account) if fact.cleared else None
        if clearance is not None:
            # Whatever was signed under its nonce, it can never be used again.
            from_cleared_wei = min(left_wei, clearance.amount_wei)
            self._post(transfer_id, cleared(account), VAULT, from_cleared_wei, "")
            self._end_clearance(clearance, unused_wei=clearance.amount_wei - from_cleared_wei, used=True)
            left_wei -= from_cleared_wei
            transfer_id += ":more"
        if left_wei:
            self._take_out(account, left_wei, to=VAULT, transfer_id=transfer_id)

    def _clearance_asked(self, event: events.ClearanceAsked) -> Answer:
        """Freezes the amount until its withdrawal is confirmed, or a confirmed block is too late for it."""
        assert event.amount_wei > 0, event
        account, now_seconds = event.account, self._now // 1000
        refused = self._vault_refusal()
        if refused is not None:
            return refused
        clearance = self.mirror.clearances.get(account)
        if clearance is not None:
            if clearance.amount_wei == event.amount_wei and now_seconds < clearance.expiry:
                return _granted(clearance)
            return Refused(
                code="clearance_open",
                message=f"account {account} has a clearance of {clearance.amount_wei} wei until {clearance.expiry}"
                " (Unix time); use it, or wait until the chain is past that time",
                retry_after_seconds=max(1.0, clearance.expiry - now_seconds),
            )
        clearable_wei = self.clearable_wei(account)
        if event.amount_wei > clearable_wei:
            return Refused(
                code="insufficient_credits",
                message=f"account {account} asked for {event.amount_wei} wei, but {clearable_wei} wei can be cleared;"
                " what open work may cost stays until it is over",
            )
        return self._grant_clearance(account, event.amount_wei)

    def _grant_clearance(self, account: str, amount_wei: int) -> Answer:
        books, cursor = self.mirror.accounts[account], self.mirror.cursor
        assert cursor is not None, "a deposit came in a block"
        clearance = Clearance(
            account=account,
            amount_wei=amount_wei,
            cumulative_wei=books.settled_wei + self.ledger.balance_wei(spent(account)),
            nonce=books.nonce,
            # Later than that of any clearance before it, which a confirmed block was too late for.
            expiry=(max(self._now // 1000, cursor.time)) + self.settings.clearance_ms // 1000,
            granted_at=self._now,
        )
        self._post(_clearance_id("clear", clearance), available(account), cleared(account), amount_wei, "")
        self.mirror.clearances[account] = clearance
        self._rows.append(clearance.row("open"))
        return _granted(clearance)

    def _release_clearances(self, chain_time: int) -> None:
        for clearance in [each for each in self.mirror.clearances.values() if each.expiry < chain_time]:
            self._end_clearance(clearance, unused_wei=clearance.amount_wei, used=False)

    def _end_clearance(self, clearance: Clearance, *, unused_wei: int, used: bool) -> None:
        account = clearance.account
        del self.mirror.clearances[account]
        self._rows.append(clearance.row("used" if used else "released", ended_at=self._now))
        if unused_wei:
            self._post(_clearance_id("unclear", clearance), cleared(account), available(account), unused_wei, "")
        self._write_off(account, because=_clearance_id("ended", clearance))


def _clearance_id(purpose: str, clearance: Clearance) -> str:
    return f"{purpose}:{clearance.account}:{clearance.nonce}:{clearance.expiry}"


def _granted(clearance: Clearance) -> effects.ClearanceGranted:
    return effects.ClearanceGranted(
        account=clearance.account,
        amount_wei=clearance.amount_wei,
        cumulative_wei=clearance.cumulative_wei,
        nonce=clearance.nonce,
        expiry=clearance.expiry,
    )
