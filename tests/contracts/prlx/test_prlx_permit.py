from __future__ import annotations

import dataclasses
from typing import Any

import boa
import pytest
from eth_abi.abi import encode
from eth_utils.crypto import keccak
from logs import events_of
from permits import Permit, Signature
from prlx_scene import ALICE, ALICE_SIGNS, BOB, BOB_SIGNS, CAROL, ZERO_ADDRESS, allowed

DOMAIN_TYPE = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")


def permit_of(token: Any, *, deadline_in_seconds: int = 3_600) -> Permit:
    return Permit(
        token=token.address,
        chain_id=boa.env.evm.patch.chain_id,
        owner=ALICE,
        spender=BOB,
        amount=70_000,
        nonce=token.nonces(ALICE),
        deadline=boa.env.timestamp + deadline_in_seconds,
    )


def send(token: Any, permit: Permit, signature: Signature) -> None:
    token.permit(permit.owner, permit.spender, permit.amount, permit.deadline, *signature, sender=CAROL)


def separator(token: Any, chain_id: int) -> bytes:
    """EIP-712's hash of the domain, word for word."""
    values = (DOMAIN_TYPE, keccak(text="ParalleliX"), keccak(text="1"), chain_id, token.address)
    return keccak(encode(["bytes32", "bytes32", "bytes32", "uint256", "address"], values))


def test_anybody_may_bring_a_permit_and_it_sets_the_owner_s_allowance(token: Any) -> None:
    permit = permit_of(token)

    send(token, permit, permit.signed_by(ALICE_SIGNS))

    assert events_of(token) == [allowed(ALICE, BOB, 70_000)]
    assert (token.allowance(ALICE, BOB), token.nonces(ALICE)) == (70_000, 1)


def test_a_permit_is_good_until_the_second_of_its_deadline(token: Any) -> None:
    permit = permit_of(token, deadline_in_seconds=0)

    send(token, permit, permit.signed_by(ALICE_SIGNS))

    assert token.allowance(ALICE, BOB) == 70_000


def test_an_expired_permit_is_refused(token: Any) -> None:
    permit = permit_of(token, deadline_in_seconds=-1)

    with boa.reverts(vm_error="erc20: expired deadline"):
        send(token, permit, permit.signed_by(ALICE_SIGNS))


def test_a_permit_signed_by_another_is_refused(token: Any) -> None:
    permit = permit_of(token)

    with boa.reverts(vm_error="erc20: invalid signature"):
        send(token, permit, permit.signed_by(BOB_SIGNS))
    assert (token.allowance(ALICE, BOB), token.nonces(ALICE)) == (0, 0)


@pytest.mark.parametrize(
    "change",
    [{"owner": BOB}, {"spender": CAROL}, {"amount": 70_001}, {"deadline": 2**255}],
    ids=lambda change: next(iter(change)),
)
def test_a_permit_for_anything_else_than_was_signed_is_refused(token: Any, change: dict[str, Any]) -> None:
    permit = permit_of(token)
    signature = permit.signed_by(ALICE_SIGNS)

    with boa.reverts(vm_error="erc20: invalid signature"):
        send(token, dataclasses.replace(permit, **change), signature)


def test_a_replayed_permit_is_refused(token: Any) -> None:
    permit = permit_of(token)
    signature = permit.signed_by(ALICE_SIGNS)
    send(token, permit, signature)

    with boa.reverts(vm_error="erc20: invalid signature"):
        send(token, permit, signature)
    assert token.nonces(ALICE) == 1


def test_a_permit_ahead_of_its_turn_is_refused(token: Any) -> None:
    permit = dataclasses.replace(permit_of(token), nonce=1)

    with boa.reverts(vm_error="erc20: invalid signature"):
        send(token, permit, permit.signed_by(ALICE_SIGNS))


def test_the_twin_of_a_signature_with_a_high_s_is_refused(token: Any) -> None:
    permit = permit_of(token)
    signature = permit.signed_by(ALICE_SIGNS)

    with boa.reverts(vm_error="ecdsa: invalid signature `s` value"):
        send(token, permit, signature.malleated())
    send(token, permit, signature)


@pytest.mark.parametrize("v", [0, 1, 26, 29, 255])
def test_a_signature_that_recovers_nobody_is_refused_for_everybody(token: Any, v: int) -> None:
    permit = permit_of(token)
    signature = permit.signed_by(ALICE_SIGNS)._replace(v=v)

    for owner in (ALICE, ZERO_ADDRESS):
        with boa.reverts(vm_error="ecdsa: invalid signature"):
            send(token, dataclasses.replace(permit, owner=owner), signature)


def test_a_permit_for_the_zero_address_is_refused(token: Any) -> None:
    permit = dataclasses.replace(permit_of(token), spender=ZERO_ADDRESS)

    with boa.reverts(vm_error="erc20: approve to the zero address"):
        send(token, permit, permit.signed_by(ALICE_SIGNS))
    assert token.nonces(ALICE) == 0


def test_a_permit_for_another_token_is_refused(token: Any) -> None:
    permit = dataclasses.replace(permit_of(token), token=CAROL)

    with boa.reverts(vm_error="erc20: invalid signature"):
        send(token, permit, permit.signed_by(ALICE_SIGNS))


def test_the_domain_is_computed_again_on_another_chain(token: Any) -> None:
    home = boa.env.evm.patch.chain_id
    assert token.DOMAIN_SEPARATOR() == separator(token, home)

    boa.env.evm.patch.chain_id = home + 1

    assert token.DOMAIN_SEPARATOR() == separator(token, home + 1) != separator(token, home)
    fields, name, version, chain_id, contract, salt, extensions = token.eip712Domain()
    assert (fields, name, version, chain_id) == (b"\x0f", "ParalleliX", "1", home + 1)
    assert (contract, salt, extensions) == (token.address, bytes(32), [])


def test_a_permit_of_one_chain_is_refused_on_its_fork(token: Any) -> None:
    permit = permit_of(token)
    signature = permit.signed_by(ALICE_SIGNS)
    boa.env.evm.patch.chain_id += 1

    with boa.reverts(vm_error="erc20: invalid signature"):
        send(token, permit, signature)
    there = permit_of(token)
    send(token, there, there.signed_by(ALICE_SIGNS))
    assert token.allowance(ALICE, BOB) == 70_000
