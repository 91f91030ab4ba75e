"""A daemon under test, and what it told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

from scripted_coordinator import CHAIN_ID, ScriptedCoordinator

from parallelix.node.daemon import DaemonEvent, DaemonExit, DaemonSettings
from parallelix.node.home import Home
from parallelix.protocol import messages

NODE_ID = 4217


def settings_for(coordinator: ScriptedCoordinator, home: Path, **changes: object) -> DaemonSettings:
    fields: dict[str, object] = {
        "node_id": NODE_ID,
        "chain_id": CHAIN_ID,
        "coordinator_url": coordinator.url,
        "mode": "cpu",
        "hardware": messages.Hardware(cpu_cores=2),
        "hardware_tier": 1,
        "region": "",
        "slots": 2,
        "models": (),
        "home": home,
    }
    return DaemonSettings(**(fields | changes))  # pyright: ignore[reportArgumentType]


@dataclass(kw_only=True)
class RunningDaemon:
    home: Path
    events: list[DaemonEvent] = field(default_factory=list[DaemonEvent])
    listener_error: Exception | None = None
    """What telling of an event raises from now on."""

    task: asyncio.Task[DaemonExit] = field(init=False)

    def hear(self, event: DaemonEvent) -> None:
        if self.listener_error is not None:
            raise self.listener_error
        self.events.append(event)

    def named(self, name: str) -> list[DaemonEvent]:
        return [event for event in self.events if event.name == name]

    async def exit(self) -> DaemonExit:
        async with asyncio.timeout(30):
            return await self.task

    async def until_told(self, name: str) -> DaemonEvent:
        async with asyncio.timeout(30):
            while not self.named(name):
                await asyncio.sleep(0.01)
        return self.named(name)[0]

    def log(self) -> str:
        return Home(self.home).log.read_text()


StartDaemon = Callable[..., AbstractAsyncContextManager[RunningDaemon]]
