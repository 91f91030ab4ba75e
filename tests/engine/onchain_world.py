"""The engine's world on a chain: what happens there reaches the engine block by block, as a follower would tell it.

After every step the books are compared with the vault's at the block that the engine has come to.
"""

from __future__ import annotations

from typing import Any

from vault_chain import Call, Chain, Contracts, Reverted, anchor, deposit, settle, stake, withdraw_cleared
from world import START_MS, World

from parallelix.engine import effects, events
from parallelix.engine.chain_facts import ChainFact, WithdrawalAsked
from parallelix.engine.effects import ClearanceGranted
from parallelix.engine.ledger import SETTLED, VAULT, available, cleared, held, spent, uncovered
from parallelix.engine.rows import TransferRow
from parallelix.protocol.registry import Registration

ALICE = "0x" + "A1" * 20
BOB = "0x" + "B0" * 20
CONFIRMATIONS = 3
DEFAULT_LIMIT = 1_500_000


class ChainWorld(World):
    """`signed` has every clearance that the engine ever granted: whoever holds one may use it as long as the vault
    takes it."""

    def __init__(self, **changes: Any) -> None:
        self.chain = Chain(time=START_MS // 1000, confirmations=CONFIRMATIONS, default_limit=DEFAULT_LIMIT)
        self.signed: list[ClearanceGranted] = []
        self.honest = True
        chosen: dict[str, Any] = {"on_chain": True, "first_batch": 1, "default_daily_limit_wei": DEFAULT_LIMIT}
        super().__init__(**(chosen | changes))

    # Driving it --------

    @property
    def seconds(self) -> int:
        return self.now // 1000

    def send(self, call: Call) -> tuple[ChainFact, ...] | None:
        """Has the call mined; None where the contracts refuse it."""
        try:
            return self.chain.send(call, time=self.seconds)
        except Reverted:
            return None

    def follow(self, *, blocks_max: int = 1_000) -> effects.Answer:
        """Tells the engine all that is confirmed, in spans of at most so many blocks, then what is not."""
        while (first := self.cursor + 1) <= self.chain.confirmed:
            answer = self.step(self.span(first, min(self.chain.confirmed, first + blocks_max - 1)))
            if answer is not None:
                return answer
        self.step(events.ChainProvisional(block=self.chain.head.number, time=self.seconds, asked=self.asked()))
        return None

    def span(self, first: int, last: int) -> events.ChainSpan:
        blocks = self.chain.blocks[first : last + 1]
        return events.ChainSpan(
            first_block=first,
            last_block=last,
            last_hash=blocks[-1].hash,
            last_time=blocks[-1].time,
            facts=tuple(fact for block in blocks for fact in block.facts),
        )

    def asked(self) -> dict[str, int]:
        asked: dict[str, int] = {}
        for block in self.chain.blocks[self.cursor + 1 :]:
            for fact in block.facts:
                if isinstance(fact, WithdrawalAsked):
                    asked[fact.account] = max(asked.get(fact.account, 0), fact.amount_wei)
        return asked

    def confirm(self, *calls: Call) -> None:
        """Has each call mined, waits until all are confirmed, and tells the engine."""
        for call in calls:
            assert self.send(call) is not None, "reverted"
        self.settle_down()

    def settle_down(self) -> None:
        self.chain.mine(CONFIRMATIONS, time=self.seconds)
        self.follow()

    def fund(self, amount_wei: int = 10**9, account: str = ALICE) -> None:
        self.confirm(deposit(account, amount_wei))

    def staffed(self, *, nodes: int = 1, slots: int = 4) -> None:
        for node_id in range(1, nodes + 1):
            self.confirm(stake(node_id))
            self.attach(node_id, slots=slots)

    def clear(self, account: str, amount_wei: int) -> effects.Answer:
        answer = self.step(events.ClearanceAsked(account=account, amount_wei=amount_wei))
        if isinstance(answer, ClearanceGranted) and answer not in self.signed:
            self.signed.append(answer)
        return answer

    def use(self, clearance: ClearanceGranted) -> tuple[ChainFact, ...] | None:
        return self.send(
            withdraw_cleared(
                clearance.account, clearance.amount_wei, clearance.cumulative_wei, clearance.nonce, clearance.expiry
            )
        )

    def settle(self) -> tuple[ChainFact, ...] | None:
        return self.send(settle(self.engine.settlement_entries(500)))

    def anchor(self) -> bool:
        """Has the next batch of ours anchored, where there is one."""
        number = len(self.chain.head.state.roots)
        batch = self.engine.recorder.unconfirmed.get(number)
        return batch is not None and self.send(anchor(number, batch.merkle_root)) is not None

    def work(self, account: str = ALICE, *, tokens: int = 100, **fields: Any) -> str:
        """A request of the account that completes; it has a record then, in no batch yet."""
        request_id = self.ask(account=account, key_id=f"key_{account}", **fields)
        attempt_id = self.attempt_of(request_id)
        self.acknowledge(attempt_id)
        self.complete(attempt_id, completion_tokens=tokens)
        return request_id

    def charge(self, account: str = ALICE, **fields: Any) -> int:
        """Work that is recorded, anchored and charged; gives what it cost in wei."""
        request_id = self.work(account, **fields)
        self.confirm_batches()
        return int(self.row(request_id).charge_wei)

    def confirm_batches(self) -> None:
        self.advance(self.settings.batch_ms)
        while self.anchor():
            pass
        self.settle_down()

    def _registrations(self) -> tuple[Registration, ...]:
        return ()

    # Looking at it --------

    @property
    def cursor(self) -> int:
        cursor = self.engine.mirror.cursor
        return cursor.block if cursor is not None else 0

    @property
    def contracts(self) -> Contracts:
        """As of the block that the engine has come to."""
        return self.chain.blocks[self.cursor].state

    def charged(self, account: str) -> int:
        return sum(
            int(row.amount_wei)
            for row in self.rows(TransferRow)
            if row.transfer_id.startswith("charge:") and row.credit_account == spent(account)
        )

    def lost(self, account: str) -> int:
        """What the operators go short of."""
        return sum(
            int(row.amount_wei)
            for row in self.rows(TransferRow)
            if row.transfer_id.startswith("write_off:") and row.debit_account == spent(account)
        )

    # What always holds --------

    def check(self) -> None:
        super().check()
        self.check_the_books_are_the_vaults()
        self.check_every_deposit_is_accounted_for()
        self.check_nothing_is_paid_twice()
        self.check_at_most_one_clearance_can_be_used()

    def check_the_books_are_the_vaults(self) -> None:
        contracts, mirror = self.contracts, self.engine.mirror
        assert mirror.total_deposits_wei == contracts.total_deposits
        for account, books in contracts.accounts.items():
            ours = mirror.accounts.get(account)
            if ours is None:
                assert books.deposit == books.settled == books.nonce == 0
                continue
            assert (ours.deposit_wei, ours.settled_wei) == (books.deposit, books.settled)
            assert (ours.requested_wei, ours.nonce) == (books.requested, books.nonce)
            assert ours.limit_wei == books.last_limit_set

    def check_every_deposit_is_accounted_for(self) -> None:
        contracts = self.contracts
        payable = 0
        for account, books in contracts.accounts.items():
            held_wei, spent_wei, cleared_wei = (
                self.balance(name) for name in (held(account), spent(account), cleared(account))
            )
            debt = -self.balance(uncovered(account))
            assert debt >= 0
            assert self.balance(available(account)) + held_wei + spent_wei + cleared_wei - debt == books.deposit
            assert spent_wei <= books.deposit, "the operators are owed what the vault does not hold"
            assert debt <= held_wei + cleared_wei, "a debt that nothing will cover"
            payable += spent_wei
        assert payable <= contracts.total_deposits

    def check_nothing_is_paid_twice(self) -> None:
        contracts = self.contracts
        assert self.balance(VAULT) == contracts.ever_withdrawn - contracts.ever_deposited
        assert self.balance(SETTLED) == sum(books.settled for books in contracts.accounts.values())
        if not self.honest:
            return
        for account in contracts.accounts:
            charged = self.charged(account)
            assert self.chain.head.state.of(account).settled <= charged, "more settled than was ever charged"
            left = charged - self.contracts.of(account).settled - self.lost(account)
            assert self.balance(spent(account)) == left

    def check_at_most_one_clearance_can_be_used(self) -> None:
        """Whatever of the blocks after the cursor stays: of the clearances of one account and nonce, only one at a time
        has not run out."""
        for block in self.chain.blocks[self.cursor :]:
            usable = [
                each.account
                for each in self.signed
                if each.nonce == block.state.of(each.account).nonce and block.time <= each.expiry
            ]
            assert len(usable) == len(set(usable)), f"two clearances at block {block.number}: {usable}"
