"""The comparison of `make chain-faults` agrees with what is right, and notices each thing that is not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import msgspec
import pytest

from bench.chain_books import Agreement, ChainSide, LedgerSide, RoleTransaction, VaultAccount, compare
from parallelix.coordinator.store.rows import IntentRow
from parallelix.engine.rows import BatchRow, ChainCursorRow, RegistrationRow, TransferRow, VaultAccountRow

ANN = "0x" + "aA" * 20
DEPOSIT, SETTLEMENT, WITHDRAWAL = ("0x" + digit * 64 + ":3" for digit in "123")
ROOT, OTHER_ROOT = "0x" + "55" * 32, "0x" + "66" * 32
BLOCK, BLOCK_HASH = 40, "0x" + "77" * 32


def transfer(transfer_id: str, debit: str, credit: str, amount: int) -> TransferRow:
    return TransferRow(
        transfer_id=transfer_id,
        debit_account=debit,
        credit_account=credit,
        amount_wei=str(amount),
        request_id="",
        at=1,
    )


def intent(intent_id: str, role: str, nonce: int, *hashes: str) -> IntentRow:
    return IntentRow(
        intent_id=intent_id,
        role=role,
        nonce=nonce,
        to_address=ANN,
        data=b"",
        attempts=json.dumps([{"transaction_hash": each} for each in hashes]),
        state="final",
        mined_block=7,
        created_at=1,
        reference=hashes[-1],
    )


def sent(hash_: str, role: str, nonce: int, data: str, *, succeeded: bool = True) -> RoleTransaction:
    return RoleTransaction(hash=hash_, role=role, nonce=nonce, data=data, succeeded=succeeded)


def ledger() -> LedgerSide:
    """A deposit of 100, of which 10 were held, 7 charged, 5 of these settled, 3 released, and 20 withdrawn."""
    transfers = [
        transfer(f"deposit:{DEPOSIT}", "source:vault", f"available:{ANN}", 100),
        transfer("hold:req_1", f"available:{ANN}", f"held:{ANN}", 10),
        transfer("charge:req_1", f"held:{ANN}", f"spent:{ANN}", 7),
        transfer("release:req_1", f"held:{ANN}", f"available:{ANN}", 3),
        transfer(f"settle:{SETTLEMENT}", f"spent:{ANN}", "settled", 5),
        transfer(f"withdraw:{WITHDRAWAL}", f"available:{ANN}", "source:vault", 20),
    ]
    batch = BatchRow(
        number=1,
        previous_hash=ROOT,
        head_hash=ROOT,
        first=0,
        last=0,
        count=1,
        merkle_root=ROOT,
        closed_at=1,
        confirmed_at=2,
        reference="0xa1",
    )
    account = VaultAccountRow(
        account=ANN,
        deposit_wei="75",
        settled_wei="5",
        requested_wei="0",
        nonce=1,
        limit_wei="",
        limit_from=0,
        charged_day=0,
        charged_wei="0",
    )
    registration = RegistrationRow(
        node_id="1",
        owner=ANN,
        stake_wei="50",
        hardware_tier=1,
        node_key_hash=ROOT,
        state="active",
        cooldown_ends_at=0,
    )
    return LedgerSide(
        cursor=ChainCursorRow(id=1, block=BLOCK, block_hash=BLOCK_HASH, block_time=1, anchor_halt=""),
        balances={
            "source:vault": -80,
            f"available:{ANN}": 73,
            f"held:{ANN}": 0,
            f"spent:{ANN}": 2,
            "settled": 5,
        },
        transfers=transfers,
        accounts={ANN: account},
        registrations={1: registration},
        intents=[
            intent("sampling:0", "validator", 0, "0xa0"),
            intent("anchor:1", "validator", 1, "0xa1", "0xa2"),
            intent("settle:1", "settler", 0, "0xb0"),
        ],
        batches=[batch],
    )


def chain() -> ChainSide:
    return ChainSide(
        block=BLOCK,
        block_hash=BLOCK_HASH,
        total_deposits_wei=75,
        accounts={ANN: VaultAccount(deposit_wei=75, settled_wei=5, nonce=1)},
        moved={("in", DEPOSIT): 100, ("settled", SETTLEMENT): 5, ("out", WITHDRAWAL): 20},
        nodes={1: (ANN, 50, 1, "active")},
        anchored={0: OTHER_ROOT, 1: ROOT},
        role_transactions=[
            sent("0xa0", "validator", 0, "0x01"),
            sent("0xa2", "validator", 1, "0x02"),
            sent("0xb0", "settler", 0, "0x03"),
        ],
    )


def test_what_is_right_agrees() -> None:
    assert compare(ledger(), chain()) == Agreement()
    assert compare(ledger(), chain())


def test_what_went_out_uncovered_is_no_difference_as_long_as_it_is_owned_up_to() -> None:
    ours, theirs = ledger(), chain()
    ours.transfers += [
        transfer("uncovered:x", f"source:uncovered:{ANN}", f"available:{ANN}", 5),
        transfer(f"withdraw:{'0x' + '4' * 64}:1", f"available:{ANN}", "source:vault", 75),
    ]
    ours.balances |= {"source:vault": -5, f"available:{ANN}": 3, f"source:uncovered:{ANN}": -5}
    ours.accounts[ANN] = msgspec.structs.replace(ours.accounts[ANN], deposit_wei="0")
    theirs.accounts[ANN] = VaultAccount(deposit_wei=0, settled_wei=5, nonce=1)
    theirs.moved["out", f"{'0x' + '4' * 64}:1"] = 75
    theirs.total_deposits_wei = 0

    assert compare(ours, theirs).money == ["2 wei are payable, but the vault holds 0"]


def credited_twice(ours: LedgerSide, _: ChainSide) -> None:
    ours.transfers.append(transfer(f"deposit:{DEPOSIT}:again", "source:vault", f"available:{ANN}", 100))
    ours.balances |= {"source:vault": -180, f"available:{ANN}": 173}


def credited_twice_and_the_mirror_too(ours: LedgerSide, theirs: ChainSide) -> None:
    credited_twice(ours, theirs)
    ours.accounts[ANN] = msgspec.structs.replace(ours.accounts[ANN], deposit_wei="175")


def credit_lost(ours: LedgerSide, _: ChainSide) -> None:
    ours.transfers = [each for each in ours.transfers if not each.transfer_id.startswith("deposit:")]
    ours.balances |= {"source:vault": 20, f"available:{ANN}": -27}


def credited_to_another(ours: LedgerSide, _: ChainSide) -> None:
    other = "0x" + "bB" * 20
    ours.transfers[0] = transfer(f"deposit:{DEPOSIT}", "source:vault", f"available:{other}", 100)
    ours.balances |= {f"available:{ANN}": -27, f"available:{other}": 100}


def one_event_for_another(ours: LedgerSide, _: ChainSide) -> None:
    ours.transfers[0] = transfer(f"deposit:0x{'9' * 64}:1", "source:vault", f"available:{ANN}", 100)


def a_wei_off(ours: LedgerSide, _: ChainSide) -> None:
    ours.balances[f"available:{ANN}"] += 1


def confirmed_before_it_was_anchored(_: LedgerSide, theirs: ChainSide) -> None:
    del theirs.anchored[1]


def another_root_was_anchored(_: LedgerSide, theirs: ChainSide) -> None:
    theirs.anchored[1] = OTHER_ROOT


def somebody_else_anchored_too(_: LedgerSide, theirs: ChainSide) -> None:
    theirs.anchored[2] = OTHER_ROOT


def a_stake_is_not_known(ours: LedgerSide, _: ChainSide) -> None:
    ours.registrations.clear()


def a_stake_is_made_up(_: LedgerSide, theirs: ChainSide) -> None:
    theirs.nodes.clear()


def retired_but_not_here(_: LedgerSide, theirs: ChainSide) -> None:
    theirs.nodes[1] = (ANN, 50, 1, "cooling")


def the_clearance_was_not_seen(_: LedgerSide, theirs: ChainSide) -> None:
    theirs.accounts[ANN] = dataclasses.replace(theirs.accounts[ANN], nonce=2)


def read_on_another_branch(_: LedgerSide, theirs: ChainSide) -> None:
    theirs.block_hash = OTHER_ROOT


@pytest.mark.parametrize(
    "fault",
    [
        credited_twice,
        credited_twice_and_the_mirror_too,
        credit_lost,
        credited_to_another,
        one_event_for_another,
        a_wei_off,
    ],
)
def test_money_on_one_side_only_is_noticed(fault: Callable[[LedgerSide, ChainSide], None]) -> None:
    ours, theirs = ledger(), chain()
    fault(ours, theirs)

    found = compare(ours, theirs)
    assert found.money and not found
    assert found.difference_wei > 0


@pytest.mark.parametrize(
    "fault",
    [
        confirmed_before_it_was_anchored,
        another_root_was_anchored,
        somebody_else_anchored_too,
        a_stake_is_not_known,
        a_stake_is_made_up,
        retired_but_not_here,
        the_clearance_was_not_seen,
        read_on_another_branch,
    ],
)
def test_anything_else_that_differs_is_noticed(fault: Callable[[LedgerSide, ChainSide], None]) -> None:
    ours, theirs = ledger(), chain()
    fault(ours, theirs)

    assert compare(ours, theirs).other


def a_second_effect(ours: LedgerSide, theirs: ChainSide) -> None:
    ours.intents[2] = intent("settle:1", "settler", 0, "0xb0", "0xb1")
    theirs.role_transactions.append(sent("0xb1", "settler", 1, "0x04"))


def the_same_batch_again(ours: LedgerSide, theirs: ChainSide) -> None:
    ours.intents.append(intent("anchor:2", "validator", 2, "0xa3"))
    theirs.role_transactions.append(sent("0xa3", "validator", 2, "0x02"))


def forgotten_and_signed_anew(ours: LedgerSide, theirs: ChainSide) -> None:
    ours.intents[2] = intent("settle:1", "settler", 1, "0xb1")
    theirs.role_transactions.append(sent("0xb1", "settler", 1, "0x03", succeeded=False))


@pytest.mark.parametrize("fault", [a_second_effect, the_same_batch_again, forgotten_and_signed_anew])
def test_a_second_transaction_for_one_intent_is_noticed(fault: Callable[[LedgerSide, ChainSide], None]) -> None:
    ours, theirs = ledger(), chain()
    fault(ours, theirs)

    found = compare(ours, theirs)
    assert found.twice and found.duplicate_effects == 1


def test_nodes_may_be_as_they_were_and_a_short_settlement_is_tried_again() -> None:
    ours, theirs = ledger(), chain()
    ours.intents += [intent("liveness:1", "liveness", 0, "0xc0"), intent("liveness:2", "liveness", 1, "0xc1")]
    ours.intents.append(intent("settle:2", "settler", 1, "0xb1"))
    theirs.role_transactions.append(sent("0xb1", "settler", 1, "0x03"))
    theirs.role_transactions += [sent("0xc0", "liveness", 0, "0x05"), sent("0xc1", "liveness", 1, "0x05")]

    assert compare(ours, theirs)


def test_a_nonce_that_nobody_sees_used_is_a_gap() -> None:
    ours, theirs = ledger(), chain()
    theirs.role_transactions[2] = sent("0xb0", "settler", 1, "0x03")

    assert compare(ours, theirs).other == ["settler: nonces [1] have a gap"]
