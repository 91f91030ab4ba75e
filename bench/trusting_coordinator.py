"""`python -m bench.trusting_coordinator FOLDER`: the coordinator with one fault, made to be caught.

It believes a block as soon as it is there, and never looks whether what it has read still stands.
"""

from __future__ import annotations

import sys
from typing import Any

from parallelix.chain.books import Expected
from parallelix.chain.watcher import Watcher
from parallelix.coordinator import __main__

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


def main(arguments: list[str]) -> int:
    Watcher.__init__ = init
    Watcher._cursor_stands = believe  # pyright: ignore[reportPrivateUsage]
    Watcher.compare = compare_nothing
    return __main__.main(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
