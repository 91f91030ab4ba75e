"""`python -m bench.forgetful_coordinator FOLDER`: the coordinator with one fault, made to be caught.

After a crash it does not remember what it was about to send, takes the next free number, and sends it once more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from parallelix.chain.abi import Address
from parallelix.chain.rpc import Rpc
from parallelix.coordinator import __main__
from parallelix.coordinator.onchain.running import JournalledIntents
from parallelix.coordinator.store.rows import IntentRow

_nonce = Rpc.nonce


async def forget(self: JournalledIntents, intent_id: str) -> IntentRow | None:
    return None


async def forget_all(self: JournalledIntents) -> Sequence[IntentRow]:
    return ()


async def next_free(self: Rpc, address: Address, *, pending: bool = False, block: int | None = None) -> int:
    return await _nonce(self, address, pending=block is None, block=block)


def main(arguments: list[str]) -> int:
    JournalledIntents.find, JournalledIntents.left_open = forget, forget_all
    Rpc.nonce = next_free
    return __main__.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
