from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from parallelix.protocol import merkle
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.errors import Malformed

VECTORS = vectors.load("merkle")
LEAVES = [bytes.fromhex(each[2:]) for each in VECTORS["record_hashes"]]
KNOWN_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
KNOWN_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""The roots that Certificate Transparency's own tests expect over the first 1 to 8 of those leaves."""


def split_of(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def tree_hash(leaves: Sequence[bytes]) -> bytes:
    """RFC 6962, section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    k = split_of(len(leaves))
    return hashlib.sha256(b"\x01" + tree_hash(leaves[:k]) + tree_hash(leaves[k:])).digest()


def audit_path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    """RFC 6962, section 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = split_of(len(leaves))
    if m < k:
        return [*audit_path(m, leaves[:k]), tree_hash(leaves[k:])]
    return [*audit_path(m - k, leaves[k:]), tree_hash(leaves[:k])]


def sides(index: int, count: int) -> str:
    """On which side the siblings of a leaf stand, from the bottom."""
    if count == 1:
        return ""
    k = split_of(count)
    return sides(index, k) + "R" if index < k else sides(index - k, count - k) + "L"


def proven(leaf: bytes, index: int, count: int, siblings: Sequence[bytes]) -> bytes | None:
    try:
        return merkle.root_from_proof(leaf, index=index, count=count, siblings=siblings)
    except Malformed:
        return None


def some_leaves(count: int) -> list[bytes]:
    return [hashlib.sha256(b"%d" % at).digest() for at in range(count)]


@pytest.mark.parametrize("count", range(1, 9))
def test_roots_are_those_of_certificate_transparency(count: int) -> None:
    assert merkle.root([bytes.fromhex(leaf) for leaf in KNOWN_LEAVES[:count]]).hex() == KNOWN_ROOTS[count - 1]


@pytest.mark.parametrize("tree", VECTORS["trees"], ids=lambda tree: str(tree["count"]))
def test_each_vector_is_the_tree_of_the_rfc(tree: dict[str, object]) -> None:
    count = tree["count"]
    assert isinstance(count, int)
    leaves = LEAVES[:count]

    assert tree["root"] == to_hex(tree_hash(leaves)) == to_hex(merkle.root(leaves))
    assert tree["proofs"] == [[to_hex(each) for each in audit_path(m, leaves)] for m in range(count)]
    for m in range(count):
        assert proven(leaves[m], m, count, audit_path(m, leaves)) == tree_hash(leaves)


@pytest.mark.parametrize("name", vectors.named(VECTORS["refused"]))
def test_each_refused_vector_proves_nothing(name: str) -> None:
    case = vectors.named(VECTORS["refused"])[name]
    siblings = [bytes.fromhex(each[2:]) for each in case["siblings"]]

    root = proven(bytes.fromhex(case["record_hash"][2:]), case["index"], case["count"], siblings)

    assert root is None or to_hex(root) != case["root"]


@vectors.examples(60)
@given(st.integers(1, 70), st.data())
def test_our_tree_is_the_rfc_s_tree(count: int, data: st.DataObject) -> None:
    leaves, index = some_leaves(count), data.draw(st.integers(0, count - 1))
    tree = merkle.Tree(leaves)

    assert merkle.root(leaves) == tree.root == tree_hash(leaves)
    assert merkle.proof(leaves, index) == tree.proof(index) == audit_path(index, leaves)
    assert proven(leaves[index], index, count, tree.proof(index)) == tree.root


@vectors.examples(40)
@given(st.integers(1, 40), st.data())
def test_no_other_index_leaf_or_siblings_prove_the_root(count: int, data: st.DataObject) -> None:
    leaves, index = some_leaves(count), data.draw(st.integers(0, count - 1))
    tree = merkle.Tree(leaves)
    proof = tree.proof(index)

    for other in range(-2, count + 2):
        if other != index:
            assert proven(leaves[index], other, count, proof) != tree.root, other
            if 0 <= other < count:
                assert proven(leaves[other], index, count, proof) != tree.root, other
    for at, sibling in enumerate(proof):
        for wrong in (hashlib.sha256(sibling).digest(), leaves[index], sibling[:31], sibling + b"\0", b""):
            assert proven(leaves[index], index, count, [*proof[:at], wrong, *proof[at + 1 :]]) != tree.root
        assert proven(leaves[index], index, count, [*proof[:at], *proof[at + 1 :]]) is None
        assert proven(leaves[index], index, count, [*proof[:at], sibling, *proof[at:]]) is None
    assert proven(leaves[index], index, count, [*proof, bytes(32)]) is None


@vectors.examples(60)
@given(st.integers(1, 40), st.integers(1, 80), st.data())
def test_a_wrong_count_proves_the_root_only_where_the_path_is_the_same(
    count: int, claimed: int, data: st.DataObject
) -> None:
    """A root does not commit to its count, in RFC 6962 either: the batch names it, and the receipt compares."""
    leaves, index = some_leaves(count), data.draw(st.integers(0, count - 1))
    tree = merkle.Tree(leaves)

    holds = proven(leaves[index], index, claimed, tree.proof(index)) == tree.root

    assert holds == (index < claimed and sides(index, claimed) == sides(index, count))


@vectors.examples(60)
@given(st.integers(2, 40), st.data())
def test_a_node_of_the_tree_is_no_leaf_of_a_smaller_one(count: int, data: st.DataObject) -> None:
    """The second-preimage attack on trees that hash leaves and nodes alike."""
    leaves = some_leaves(count)
    level = [merkle.leaf_hash(each) for each in leaves]
    above = [merkle.node_hash(level[at], level[at + 1]) for at in range(0, count - 1, 2)]
    above += level[-1:] if count % 2 else []
    at = data.draw(st.integers(0, len(above) - 1))
    proof_above = merkle.proof(leaves, min(2 * at, count - 1))[0 if 2 * at == count - 1 else 1 :]

    assert merkle.root(above) != merkle.root(leaves)
    assert proven(above[at], at, len(above), proof_above) != merkle.root(leaves)


@pytest.mark.parametrize("count", [1, 3, 5, 7, 9, 33])
def test_the_last_leaf_of_an_odd_tree_is_not_doubled(count: int) -> None:
    leaves = some_leaves(count)

    assert merkle.root(leaves) != merkle.root([*leaves, leaves[-1]])


@vectors.examples(100)
@given(st.lists(st.integers(0, 3), max_size=9), st.lists(st.integers(0, 3), max_size=9))
def test_no_two_lists_have_one_root(one: list[int], other: list[int]) -> None:
    leaves = some_leaves(4)

    assert (merkle.root([leaves[at] for at in one]) == merkle.root([leaves[at] for at in other])) == (one == other)


@pytest.mark.parametrize(
    ("index", "count", "siblings"),
    [
        (0, 0, []),
        (-1, 1, []),
        (0, -1, []),
        (1, 1, []),
        (2**64 - 2, 2**64 - 1, [bytes(32)] * 62),
        (0, 2**64 - 1, [bytes(32)] * 65),
        (0, 2**64, [bytes(32)] * 64),
        (0, 2**200_000, [bytes(32)] * 64),
        (2**200_000, 2**200_000 + 1, []),
        (2**200_000, 5, []),
        (-(2**200_000), 5, []),
        (5, -(2**200_000), []),
        (0, 1, [bytes(32)] * 1_000_000),
    ],
    ids=lambda value: hex(value)[:12] if isinstance(value, int) else str(len(value)),
)
def test_a_proof_that_no_tree_has_is_malformed_at_once(index: int, count: int, siblings: list[bytes]) -> None:
    with pytest.raises(Malformed):
        merkle.root_from_proof(LEAVES[0], index=index, count=count, siblings=siblings)


def test_a_proof_may_be_as_long_as_the_largest_tree_is_high() -> None:
    siblings = [bytes([at]) * 32 for at in range(64)]
    node = hashlib.sha256(b"\0" + LEAVES[0]).digest()
    for sibling in siblings:
        node = hashlib.sha256(b"\1" + node + sibling).digest()

    assert merkle.root_from_proof(LEAVES[0], index=0, count=2**64 - 1, siblings=siblings) == node


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_record_hash_of_another_length_is_malformed(length: int) -> None:
    with pytest.raises(Malformed, match="32 bytes"):
        merkle.root_from_proof(bytes(length), index=0, count=1, siblings=[])
