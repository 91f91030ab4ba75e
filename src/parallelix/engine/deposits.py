"""Accounts that live from deposits in the vault: what they may spend, and who bears what a deposit does not cover.

A withdrawal that needs nobody's consent may take what work in progress counts on. The gap is then a debt,
`source:uncovered:<account>`, never more than what that work and a clearance still hold. As they end it is written off,
against what the account has by then, else against what the operators are owed: that is never more than the vault holds.
"""

from __future__ import annotations

import heapq

from parallelix.engine.effects import Refused
from parallelix.engine.ledger import SETTLED, available, cleared, held, spent, uncovered
from parallelix.engine.mirror import MS_PER_DAY, is_address
from parallelix.engine.state import State

CHAIN_RETRY_SECONDS = 30.0


class Deposits(State):
    def lives_from_deposit(self, account: str) -> bool:
        """Whether the account's credits are its deposit in the vault; others live from grants."""
        return self.settings.on_chain and is_address(account)

    def spendable_wei(self, account: str) -> int:
        """What new requests of the account may hold: its own, less what it may withdraw without a word."""
        if not self.lives_from_deposit(account):
            return self.ledger.balance_wei(available(account))
        return max(0, self._own_wei(account) - self.mirror.frozen_wei(account))

    def limit_room_wei(self, account: str) -> int | None:
        """How much of its daily limit the account has left for new requests; None where no limit applies.

        What is held and spent must fit into what is left of one day, so that it can be settled before a withdrawal is
        due: what the vault settles today, be it for yesterday's work, it does not settle today once more.
        """
        if not self.lives_from_deposit(account):
            return None
        books = self.mirror.accounts.get(account)
        charged_wei = books.charged_today_wei(self._now) if books is not None else 0
        held_wei, spent_wei = self.ledger.balance_wei(held(account)), self.ledger.balance_wei(spent(account))
        return max(0, self.daily_limit_wei(account) - held_wei - max(spent_wei, charged_wei))

    def daily_limit_wei(self, account: str) -> int:
        books = self.mirror.accounts.get(account)
        if books is None or books.limit_wei is None:
            return self.settings.default_daily_limit_wei
        return books.limit_wei

    def settlement_entries(self, limit: int, *, least_wei: int = 1) -> tuple[tuple[str, int], ...]:
        """(account, wei spent since its first deposit) of at most `limit` accounts that owe `least_wei` and more: those
        first whose withdrawals would take most of what they owe, then those that owe most."""
        owing = {account: self.ledger.balance_wei(spent(account)) for account in self._owing}
        self._owing = {account for account, owed_wei in owing.items() if owed_wei}

        def urgency(account: str) -> tuple[int, int, str]:
            return min(owing[account], self.mirror.frozen_wei(account)), owing[account], account

        chosen = heapq.nlargest(limit, (each for each in self._owing if owing[each] >= least_wei), key=urgency)
        return tuple((account, self.mirror.accounts[account].settled_wei + owing[account]) for account in chosen)

    def clearable_wei(self, account: str) -> int:
        """What may leave the account's deposit at once."""
        if not self.lives_from_deposit(account) or account in self.mirror.clearances:
            return 0
        if self.ledger.balance_wei(held(account)):
            return self.spendable_wei(account)
        # Nothing counts on the rest, so an open request of its own stands in the way of nobody.
        return max(0, self._own_wei(account))

    # For the layers above ---------------------------------------------------------------------------------------------

    def _vault_refusal(self) -> Refused | None:
        """Why nothing that rests on deposits can begin now."""
        reason = self.mirror.halted("vault")
        if reason:
            return Refused(
                code="vault_halted",
                message=f"the vault and our books differ ({reason}); new work on deposits begins again once they agree",
                retry_after_seconds=CHAIN_RETRY_SECONDS,
            )
        heard_at, stale_ms = self.mirror.heard_at, self.settings.chain_stale_ms
        if not heard_at or self._now - heard_at > stale_ms:
            since = (
                f"of the last {(self._now - heard_at) // 1000} s, at most {stale_ms // 1000} s" if heard_at else "yet"
            )
            return Refused(
                code="chain_unreachable",
                message=f"nothing was heard of the chain {since}, so a withdrawal could go unseen; try again later",
                retry_after_seconds=CHAIN_RETRY_SECONDS,
            )
        return None

    def _deposit_refusal(self, account: str, hold_wei: int) -> Refused | None:
        refused = self._vault_refusal()
        if refused is not None:
            return refused
        books = self.mirror.accounts.get(account)
        if books is None or not books.deposit_wei:
            return Refused(
                code="no_deposit",
                message=f"account {account} has no confirmed deposit in the vault; deposit PRLX there first",
            )
        spendable_wei = self.spendable_wei(account)
        if spendable_wei < hold_wei:
            return Refused(
                code="insufficient_credits",
                message=f"the request may cost {hold_wei} wei, but account {account} can spend {spendable_wei} wei"
                f" ({self.mirror.frozen_wei(account)} wei are asked back); deposit more, take a withdrawal back, or ask"
                " for fewer max_tokens",
            )
        room_wei = self.limit_room_wei(account)
        if room_wei is not None and room_wei < hold_wei:
            return Refused(
                code="daily_limit_reached",
                message=f"the request may cost {hold_wei} wei, but of account {account}'s daily limit of"
                f" {self.daily_limit_wei(account)} wei {room_wei} wei are left; raise it in the vault (setDailyLimit),"
                " or wait until open work ends, what was spent is settled, or a new UTC day begins",
            )
        return None

    def _own_wei(self, account: str) -> int:
        """What is available and not needed for a debt."""
        return self.ledger.balance_wei(available(account)) + self.ledger.balance_wei(uncovered(account))

    def _charge_deposit(self, account: str, charge_wei: int, request_id: str) -> None:
        """The charge is owed to the operators now, and taken when it is settled."""
        transfer_id = f"charge:{request_id}"
        books = self.mirror.account(account)
        books.begin_day(self._now // MS_PER_DAY, owed_wei=self.ledger.balance_wei(spent(account)))
        books.charged_wei += charge_wei
        self._post(transfer_id, held(account), spent(account), charge_wei, request_id)
        self._owing.add(account)
        self._write_off(account, because=transfer_id)

    def _write_off(self, account: str, *, because: str) -> None:
        """Keeps the account's debt, if it has one, to what its open work and its clearance may still bring. The rest is
        paid out of what it has available, by later deposits perhaps, and else by the operators."""
        balance_wei = self.ledger.balance_wei
        debt_wei = -balance_wei(uncovered(account))
        if not debt_wei:
            return
        excess_wei = debt_wei - balance_wei(held(account)) - balance_wei(cleared(account))
        for payer in (available(account), spent(account)):
            amount_wei = min(excess_wei, balance_wei(payer))
            if amount_wei > 0:
                self._post(f"write_off:{because}:{payer}", payer, uncovered(account), amount_wei, "")
                self._log("vault.written_off", payer=payer, amount_wei=str(amount_wei), because=because)
                excess_wei -= amount_wei

    def _take_out(self, account: str, amount_wei: int, *, to: str, transfer_id: str) -> None:
        """Moves what has left the deposit, whether or not it was free to go."""
        gap_wei = amount_wei - self.ledger.balance_wei(available(account))
        if gap_wei > 0:
            self._post(f"{transfer_id}:uncovered", uncovered(account), available(account), gap_wei, "")
            self._log("vault.uncovered", account=account, amount_wei=str(gap_wei), because=transfer_id)
        self._post(transfer_id, available(account), to, amount_wei, "")
        self._write_off(account, because=transfer_id)

    def _settle(self, account: str, amount_wei: int, *, transfer_id: str, day: int) -> None:
        """What the vault has paid out for work, in that UTC day or before it. More than is owed here comes out of the
        account's own."""
        spent_wei = self.ledger.balance_wei(spent(account))
        owed_wei = min(amount_wei, spent_wei)
        books = self.mirror.account(account)
        books.begin_day(day, owed_wei=spent_wei)
        books.charged_wei += amount_wei - owed_wei
        if owed_wei:
            self._post(transfer_id, spent(account), SETTLED, owed_wei, "")
        if amount_wei > owed_wei:
            self._log("vault.settled_too_much", account=account, amount_wei=str(amount_wei - owed_wei))
            self._take_out(account, amount_wei - owed_wei, to=SETTLED, transfer_id=f"{transfer_id}:more")
