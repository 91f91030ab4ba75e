"""`python -m bench.trusting_coordinator FOLDER`: the coordinator with one fault, made to be caught.

It believes a block as soon as it is there, never looks whether what it has read still stands, and whether what it hears
follows from what it knows.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from parallelix.chain.books import Expected
from parallelix.chain.watcher import Watcher
from parallelix.coordinator import __main__
from parallelix.coordinator.onchain import expecting
from parallelix.engine.chain_facts import ChainFact
from parallelix.engine.core import Engine
from parallelix.engine.mirror import Mirror, VaultAccount
from parallelix.protocol.registry import Registration

_init = Watcher.__init__


def init(self: Watcher, *arguments: Any, confirmations: int, **named: Any) -> None:
    _init(self, *arguments, confirmations=0, **named)


async def believe(self: Watcher) -> bool:
    if self.cursor is not None:
        block = await self._reader.rpc.block(self.cursor.block)  # pyright: ignore[reportPrivateUsage]
        if block is not None:
            self.cursor = type(self.cursor)(block=block.number, hash=block.hash)
    return True


async def compare_nothing(self: Watcher, expected: Expected, *, block: int) -> None:
    return None


def expect_nothing(engine: Engine, facts: Sequence[ChainFact]) -> Expected:
    return Expected(total_deposits_wei=0, total_principal_wei=0, node_count=0)


def find_no_difference(self: Mirror, facts: Iterable[ChainFact], nodes: Mapping[int, Registration]) -> None:
    return None


def require_nothing(self: VaultAccount, what: str, ours: int, theirs: int) -> None:
    return None


def main(arguments: list[str]) -> int:
    Watcher.__init__ = init
    Watcher._cursor_stands = believe  # pyright: ignore[reportPrivateUsage]
    Watcher.compare = compare_nothing
    expecting.after = expect_nothing
    Mirror.difference = find_no_difference
    VaultAccount._require = require_nothing  # pyright: ignore[reportPrivateUsage]
    return __main__.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
