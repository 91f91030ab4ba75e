"""The double-entry ledger: who holds which credits, in wei.

Every movement is one transfer from a debit to a credit account, so all balances always sum to zero. A transfer's id
says what it is for (`hold:req_…`); posting the same id twice moves the money once. Only `source:` accounts may go
below zero: they stand for what came in from outside.

    source:grants            credits given by whoever runs the network
    available:<account>      what a requester can spend
    held:<account>           the worst case of what is open
    usage                    charged, not yet split
    operators, treasury, infrastructure      85 / 10 / 5 of usage

An account that is an address of the chain lives from its deposit in the vault, which splits what it pays by itself:

    source:vault             what came in as deposits, less what was withdrawn
    spent:<account>          charged, to be settled: the operators' payable, which the vault holds
    settled                  what the vault has paid out for work
    cleared:<account>        frozen until a clearance is used, or can be used no more
    source:uncovered:<account>      what left the deposit although work or a clearance counted on it, until they end

The first three lines of an account, what is cleared and what is uncovered sum to its deposit, to the wei.
"""

from __future__ import annotations

from parallelix.engine.rows import BalanceRow, TransferRow

GRANTS = "source:grants"
VAULT = "source:vault"
SETTLED = "settled"
USAGE = "usage"
SPLIT = (("operators", 85), ("treasury", 10), ("infrastructure", 5))
"""Percent of usage. What does not divide goes to the operators."""

AMOUNT_WEI_MAX = 10**30
"""Ten thousand times the whole supply of 100,000,000 PRLX; more is a mistake in a unit."""


class InsufficientCredits(Exception):
    """`account` cannot pay `needed_wei` out of `available_wei`."""

    def __init__(self, account: str, needed_wei: int, available_wei: int) -> None:
        super().__init__(f"{account} holds {available_wei} wei, but {needed_wei} wei are needed")
        self.account, self.needed_wei, self.available_wei = account, needed_wei, available_wei


def available(account: str) -> str:
    return f"available:{account}"


def held(account: str) -> str:
    return f"held:{account}"


def spent(account: str) -> str:
    return f"spent:{account}"


def cleared(account: str) -> str:
    return f"cleared:{account}"


def uncovered(account: str) -> str:
    return f"source:uncovered:{account}"


class Ledger:
    """Balances in memory; the rows of what changed are handed out once, by `take_rows`."""

    def __init__(self, balances: dict[str, int] | None = None) -> None:
        self._balances: dict[str, int] = dict(balances or {})
        self._transfers: list[TransferRow] = []
        self._changed: set[str] = set()
        assert sum(self._balances.values()) == 0, "the stored balances do not sum to zero"

    def balance_wei(self, account: str) -> int:
        return self._balances.get(account, 0)

    def accounts(self) -> dict[str, int]:
        return dict(self._balances)

    def post(self, transfer_id: str, *, debit: str, credit: str, amount_wei: int, request_id: str, at: int) -> None:
        """Moves `amount_wei`. Raises `InsufficientCredits` and changes nothing when `debit` would fall below zero.

        The caller's state machine makes each id at most once; the store's unique key holds it against our bugs.
        """
        assert 0 < amount_wei <= AMOUNT_WEI_MAX, amount_wei
        assert debit != credit, debit
        before = self._balances.get(debit, 0)
        if before < amount_wei and not debit.startswith("source:"):
            raise InsufficientCredits(debit, amount_wei, before)
        self._balances[debit] = before - amount_wei
        self._balances[credit] = self._balances.get(credit, 0) + amount_wei
        self._changed.update((debit, credit))
        self._transfers.append(
            TransferRow(
                transfer_id=transfer_id,
                debit_account=debit,
                credit_account=credit,
                amount_wei=str(amount_wei),
                request_id=request_id,
                at=at,
            )
        )

    def take_rows(self) -> list[TransferRow | BalanceRow]:
        """The transfers since the last call and the balances they left; empty when nothing moved."""
        if not self._transfers:
            return []
        rows: list[TransferRow | BalanceRow] = list(self._transfers)
        rows.extend(
            BalanceRow(account=account, balance_wei=str(self._balances[account])) for account in sorted(self._changed)
        )
        self._transfers.clear()
        self._changed.clear()
        return rows


def split_usage(amount_wei: int) -> list[tuple[str, int]]:
    """Who gets what of `amount_wei`; the parts sum to it exactly."""
    parts = [(account, amount_wei * percent // 100) for account, percent in SPLIT]
    rest = amount_wei - sum(part for _, part in parts)
    first, share = parts[0]
    return [(first, share + rest), *parts[1:]]
