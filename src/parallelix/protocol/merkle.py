"""Merkle trees in the shape of RFC 6962, over SHA-256: leaf = H(0x00 ‖ record hash), node = H(0x01 ‖ left ‖ right).

The two prefixes keep a node from being shown as a leaf, and a lone last leaf is carried up, not doubled, so no two
different lists have one root.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from parallelix.protocol.errors import Malformed

EMPTY_ROOT = hashlib.sha256(b"").digest()
HASH_BYTES = 32
PROOF_HASHES_MAX = 64
"""Those of a tree of 2^64 - 1 leaves; nobody has more."""


def leaf_hash(record_hash: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + record_hash).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(record_hashes: Sequence[bytes]) -> bytes:
    """The root over record hashes in chain order; of nothing, SHA-256 of nothing."""
    return Tree(record_hashes).root


def proof(record_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """The siblings from the leaf to the root, lowest first."""
    return Tree(record_hashes).proof(index)


class Tree:
    """All levels of one tree, for whoever gives out many proofs: building is linear, each proof logarithmic."""

    def __init__(self, record_hashes: Sequence[bytes]) -> None:
        self._levels = _level_up([leaf_hash(each) for each in record_hashes])

    @property
    def root(self) -> bytes:
        return self._levels[-1][0] if self._levels[0] else EMPTY_ROOT

    def proof(self, index: int) -> list[bytes]:
        """The siblings from leaf `index` to the root, lowest first."""
        assert 0 <= index < len(self._levels[0]), (index, len(self._levels[0]))
        siblings: list[bytes] = []
        for level in self._levels[:-1]:
            sibling = index ^ 1
            if sibling < len(level):
                siblings.append(level[sibling])
            index //= 2
        return siblings


def root_from_proof(record_hash: bytes, *, index: int, count: int, siblings: Sequence[bytes]) -> bytes:
    """The root that follows if `record_hash` is leaf `index` of `count`. Raises `Malformed` for a proof that no such
    tree has."""
    bits = max(index.bit_length(), count.bit_length())
    if bits > PROOF_HASHES_MAX or len(siblings) > PROOF_HASHES_MAX:
        raise Malformed(f"proof: {len(siblings)} hashes, numbers of {bits} bits; at most {PROOF_HASHES_MAX} of either")
    if not 0 <= index < count:
        raise Malformed(f"proof: index {index} lies outside a tree of {count} leaves")
    if len(record_hash) != HASH_BYTES or any(len(each) != HASH_BYTES for each in siblings):
        raise Malformed(f"proof: a hash that is not {HASH_BYTES} bytes long")
    current, width = leaf_hash(record_hash), count
    remaining = iter(siblings)
    try:
        while width > 1:
            if index % 2:
                current = node_hash(next(remaining), current)
            elif index + 1 < width:
                current = node_hash(current, next(remaining))
            index, width = index // 2, (width + 1) // 2
    except StopIteration as error:
        raise Malformed(f"proof: {len(siblings)} hashes are too few for a tree of {count} leaves") from error
    if next(remaining, None) is not None:
        raise Malformed(f"proof: {len(siblings)} hashes are too many for a tree of {count} leaves")
    return current


def _level_up(leaves: list[bytes]) -> list[list[bytes]]:
    """Every level from the leaves to the root; pairing neighbours and carrying a lone last one up gives RFC 6962's
    tree, which splits at the largest power of two."""
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        above = [node_hash(below[at], below[at + 1]) for at in range(0, len(below) - 1, 2)]
        if len(below) % 2:
            above.append(below[-1])
        levels.append(above)
    return levels
