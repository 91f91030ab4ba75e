from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, TypedDict

import boa
import pytest
from anchor_scene import EMPTY, EMPTY_ROOT, anchor_next
from eth.exceptions import Revert
from harness import revert_reason
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from parallelix.protocol import merkle
from parallelix.protocol.errors import Malformed

VECTORS = vectors.load("merkle")
LEAVES = [bytes.fromhex(each[2:]) for each in VECTORS["record_hashes"]]
LAST_NUMBER = 2**64 - 1

OUTSIDE = "anchor: index outside the tree"
TOO_SHORT = "anchor: proof is too short"
TOO_LONG = "anchor: proof is too long"

REFUSED = {
    "index of a neighbour": False,
    "index outside the tree": OUTSIDE,
    "count too small": TOO_LONG,
    "count too large": TOO_SHORT,
    "a sibling missing": TOO_SHORT,
    "a sibling more": TOO_LONG,
    "siblings in another order": False,
    "another record": False,
    "a node shown as a leaf": False,
    # A word of the ABI has 32 bytes: what is shorter arrives with zeros behind it.
    "a sibling of 31 bytes": False,
    "no leaf at all": OUTSIDE,
}


class Claim(TypedDict):
    index: int
    count: int
    proof: list[bytes]


def outcome(
    anchor: Any, number: int, record_hash: bytes, *, index: int, count: int, proof: Sequence[bytes]
) -> bool | str:
    """What `verify` answers, or the reason it is refused for."""
    try:
        return anchor.verify(number, record_hash, index, count, list(proof))
    except boa.BoaError as error:
        return revert_reason(error)


def expected(record_hash: bytes, *, index: int, count: int, proof: Sequence[bytes], root: bytes) -> bool | str:
    """The same from the protocol's own proofs, whose refusals of well-sized words are those three."""
    try:
        return merkle.root_from_proof(record_hash, index=index, count=count, siblings=proof) == root
    except Malformed as error:
        return {"lies": OUTSIDE, "few": TOO_SHORT, "many": TOO_LONG}[
            next(word for word in ("lies", "few", "many") if word in str(error))
        ]


def hash_of(text: str) -> bytes:
    return bytes.fromhex(text[2:])


@pytest.mark.parametrize("tree", VECTORS["trees"], ids=lambda tree: str(tree["count"]))
def test_every_proof_of_every_vector_holds(anchor: Any, tree: dict[str, Any]) -> None:
    count, root = tree["count"], hash_of(tree["root"])
    number = anchor_next(anchor, merkle_root=root, count=count) if count else 0
    assert anchor.rootOf(number) == root

    for index, siblings in enumerate(tree["proofs"]):
        proof = [hash_of(each) for each in siblings]
        assert anchor.verify(number, LEAVES[index], index, count, proof)
        assert not anchor.verify(number, LEAVES[index - 1] if count > 1 else EMPTY, index, count, proof)


@pytest.mark.parametrize("name", vectors.named(VECTORS["refused"]))
def test_each_refused_vector_proves_nothing(anchor: Any, name: str) -> None:
    case = vectors.named(VECTORS["refused"])[name]
    number = anchor_next(anchor, merkle_root=hash_of(case["root"]), count=5)
    proof = [hash_of(each).ljust(32, b"\0") for each in case["siblings"]]

    seen = outcome(anchor, number, hash_of(case["record_hash"]), index=case["index"], count=case["count"], proof=proof)

    assert seen == REFUSED[name]


def test_every_refused_vector_is_known_here() -> None:
    assert set(vectors.named(VECTORS["refused"])) == set(REFUSED)


def test_the_contract_and_the_protocol_agree_on_any_tree_and_any_proof(anchor: Any) -> None:
    @vectors.examples(100)
    @given(st.integers(1, 300), st.data())
    def agree(count: int, data: st.DataObject) -> None:
        hashes = [hashlib.sha256(b"%d" % at).digest() for at in range(count)]
        tree, index = merkle.Tree(hashes), data.draw(st.integers(0, count - 1))
        proof = tree.proof(index)
        with boa.env.anchor():
            number = anchor_next(anchor, merkle_root=tree.root, count=count)
            assert outcome(anchor, number, hashes[index], index=index, count=count, proof=proof) is True
            for claim in tampered(data, index, count, proof):
                seen = outcome(anchor, number, hashes[index], **claim)
                assert seen == expected(hashes[index], **claim, root=tree.root)

    agree()


def tampered(data: st.DataObject, index: int, count: int, proof: list[bytes]) -> list[Claim]:
    """The claim with another index, another count, and siblings put in, left out and put elsewhere."""
    at, sibling = data.draw(st.integers(0, len(proof))), data.draw(st.binary(min_size=32, max_size=32))
    other_count = data.draw(st.integers(0, 2 * count) | st.just(LAST_NUMBER))
    others = (
        [*proof[:at], sibling, *proof[at:]],
        [*proof[:at], sibling, *proof[at + 1 :]],
        proof[:at] + proof[at + 1 :],
        proof[::-1],
    )
    return [
        Claim(index=data.draw(st.integers(0, count + 2)), count=count, proof=proof),
        Claim(index=index, count=other_count, proof=proof),
        *(Claim(index=index, count=count, proof=other) for other in others),
    ]


def test_a_node_shown_as_a_leaf_proves_nothing_at_any_height(anchor: Any) -> None:
    count = len(LEAVES)
    tree = merkle.Tree(LEAVES)
    number = anchor_next(anchor, merkle_root=tree.root, count=count)
    node, width, proof = merkle.leaf_hash(LEAVES[0]), count, tree.proof(0)

    for height, sibling in enumerate(proof):
        assert not anchor.verify(number, node, 0, width, proof[height:])
        node, width = merkle.node_hash(node, sibling), (width + 1) // 2
    assert node == tree.root
    assert not anchor.verify(number, node, 0, 1, [])


def test_the_largest_tree_has_proofs_of_64_hashes(anchor: Any) -> None:
    siblings = [hashlib.sha256(b"%d" % height).digest() for height in range(64)]
    root = merkle.root_from_proof(LEAVES[0], index=0, count=LAST_NUMBER, siblings=siblings)
    number = anchor_next(anchor, merkle_root=root)

    assert anchor.verify(number, LEAVES[0], 0, LAST_NUMBER, siblings)
    assert outcome(anchor, number, LEAVES[0], index=0, count=LAST_NUMBER, proof=siblings[1:]) == TOO_SHORT
    assert outcome(anchor, number, LEAVES[0], index=LAST_NUMBER, count=LAST_NUMBER, proof=siblings) == OUTSIDE
    assert outcome(anchor, number, LEAVES[0], index=0, count=2**63, proof=siblings) == TOO_LONG


def test_the_last_record_of_the_largest_tree_is_proven_too(anchor: Any) -> None:
    index = LAST_NUMBER - 1
    siblings = [hashlib.sha256(b"%d" % height).digest() for height in range(63)]
    root = merkle.root_from_proof(LEAVES[0], index=index, count=LAST_NUMBER, siblings=siblings)
    number = anchor_next(anchor, merkle_root=root)

    assert anchor.verify(number, LEAVES[0], index, LAST_NUMBER, siblings)


def test_a_proof_longer_than_any_tree_is_high_is_not_even_read(anchor: Any) -> None:
    word = (64).to_bytes(32, "big")
    data = anchor.verify.prepare_calldata(0, LEAVES[0], 0, 1, [EMPTY] * 64)
    assert data.count(word) == 1

    with pytest.raises(Revert) as refusal:
        boa.env.raw_call(anchor.address, data=data.replace(word, (65).to_bytes(32, "big")) + EMPTY)

    assert refusal.value.args == (b"",)


@pytest.mark.parametrize("number", [1, 2, LAST_NUMBER, 2**256 - 1])
def test_a_batch_that_was_not_anchored_proves_nothing(anchor: Any, number: int) -> None:
    assert outcome(anchor, number, LEAVES[0], index=0, count=1, proof=[]) == "anchor: no such batch"


def test_the_batch_of_no_records_holds_none(anchor: Any) -> None:
    assert anchor.rootOf(0) == EMPTY_ROOT
    assert outcome(anchor, 0, LEAVES[0], index=0, count=0, proof=[]) == OUTSIDE
    for record_hash in (EMPTY, EMPTY_ROOT, LEAVES[0]):
        assert outcome(anchor, 0, record_hash, index=0, count=1, proof=[]) is False


def test_a_record_of_one_batch_is_not_in_another(anchor: Any) -> None:
    one = anchor_next(anchor, merkle_root=merkle.root(LEAVES[:1]), count=1)
    other = anchor_next(anchor, merkle_root=merkle.root(LEAVES[1:2]), count=1)

    assert anchor.verify(one, LEAVES[0], 0, 1, [])
    assert not anchor.verify(other, LEAVES[0], 0, 1, [])


def test_a_batch_is_held_under_its_own_number_and_root_only(anchor: Any) -> None:
    one = anchor_next(anchor, merkle_root=LEAVES[0])
    other = anchor_next(anchor, merkle_root=LEAVES[1])

    assert anchor.holds(one, LEAVES[0])
    assert anchor.holds(other, LEAVES[1])
    assert anchor.holds(0, EMPTY_ROOT)
    assert not anchor.holds(one, LEAVES[1])
    assert not anchor.holds(one, EMPTY)
    assert not anchor.holds(other + 1, LEAVES[1])


@pytest.mark.parametrize("number", [1, 2, LAST_NUMBER, 2**256 - 1])
def test_what_was_never_anchored_is_not_held_not_even_with_an_empty_root(anchor: Any, number: int) -> None:
    assert not anchor.holds(number, EMPTY)
    assert not anchor.holds(number, EMPTY_ROOT)
