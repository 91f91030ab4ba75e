"""Wallets that are contracts (EIP-1271): whether one holds a signature for its own, by its own word."""

from __future__ import annotations

from parallelix.chain.abi import Address
from parallelix.chain.errors import Reverted, RpcRefused
from parallelix.chain.rpc import Rpc

IS_VALID_SIGNATURE = bytes.fromhex("1626ba7e")
"""The selector of `isValidSignature(bytes32,bytes)`, and what it answers for yes."""
_WORD = 32


async def has_signed(rpc: Rpc, address: Address, digest: bytes, signature: bytes) -> bool:
    """False also where there is no contract, or one that knows no signatures. Raises `ChainUnreachable`."""
    try:
        answer = await rpc.call(address, _call(digest, signature))
    except (Reverted, RpcRefused):
        return False
    return len(answer) == _WORD and answer == IS_VALID_SIGNATURE.ljust(_WORD, b"\0")


def _call(digest: bytes, signature: bytes) -> bytes:
    """Head: the digest and where the bytes begin. Tail: their length, then they, filled up to whole words."""
    padding = bytes(-len(signature) % _WORD)
    head = digest + (2 * _WORD).to_bytes(_WORD, "big")
    return IS_VALID_SIGNATURE + head + len(signature).to_bytes(_WORD, "big") + signature + padding
