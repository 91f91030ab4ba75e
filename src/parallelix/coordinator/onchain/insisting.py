"""What the tasks that tell contracts something have alike: they go on until it is done, and complain once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from parallelix.chain.errors import ChainError
from parallelix.coordinator.service import Coordinator

RETRY_SECONDS = 10.0
"""After an endpoint or a contract said no: a block of Ethereum, nearly."""


class Insisting:
    """`failing` is the log event for an endpoint that fails."""

    def __init__(self, coordinator: Coordinator, *, failing: str) -> None:
        self._log = coordinator.log
        self._failing = failing
        self._told = ""
        self.pause_seconds = min(RETRY_SECONDS, coordinator.settings.chain_poll_seconds)

    async def until(self, step: Callable[[], Awaitable[bool]]) -> None:
        """Repeats a step until it is done. Whatever stands against it is said once."""
        while True:
            if await self.once(step):
                self._told = ""
                return
            await asyncio.sleep(self.pause_seconds)

    async def once(self, step: Callable[[], Awaitable[bool]]) -> bool:
        try:
            return await step()
        except ChainError as error:
            self.tell(self._failing, error=error.message)
            return False

    def tell(self, name: str, *, error: str) -> None:
        if self._told != error:
            self._told = error
            self._log(name, {"error": error})
