"""When an epoch of sampling begins, and when its secret is shown.

    begun       the secret's hash is public: on a chain in a block that counts, else in `GET /v1/epochs`
    over        a later one has begun, and no attempt that was dispatched in it is open
    revealed    the secret itself is public, so anybody can recompute which executions were drawn

Every secret comes of the one in `sampling.key`, so none of them need be stored. No more than two epochs are unrevealed
at a time: the anchor takes no batch of a later one.
"""

from __future__ import annotations

import asyncio

from parallelix.coordinator.secrets import SecretRefused
from parallelix.coordinator.service import Coordinator
from parallelix.engine import events
from parallelix.points import reached
from parallelix.protocol import sampling
from parallelix.protocol.encoding import to_hex

LOOK_SECONDS_MAX = 1.0
LOOKS_PER_EPOCH = 10


class Epochs:
    """What both kinds of network do alike. Makes the steps; the caller sees to it that they are true."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._engine = coordinator.engine
        self._master = coordinator.secrets.sampling_key
        self._epoch_ms = round(coordinator.settings.epoch_seconds * 1000)

    def secret(self, epoch: int) -> bytes:
        return sampling.epoch_secret(self._master, epoch)

    def commitment(self, epoch: int) -> bytes:
        return sampling.commitment(self.secret(epoch))

    def require_own(self) -> None:
        """Raises `SecretRefused` where an epoch that is not revealed was committed to with another `sampling.key`."""
        for epoch, row in self._engine.epochs.items():
            if row.commitment != to_hex(self.commitment(epoch)):
                raise SecretRefused(
                    f"sampling.key: is not the one whose secret epoch {epoch} was committed to, so what is drawn could"
                    " never be verified; restore the file from a backup, or set audits = false"
                )

    @property
    def present(self) -> int | None:
        """None before the first."""
        return self._engine.epoch if self._engine.epochs else None

    @property
    def is_due(self) -> bool:
        """Whether the present epoch has lasted long enough, or there is none."""
        if self.present is None:
            return True
        return self._coordinator.clock() >= self._engine.epochs[self.present].began_at + self._epoch_ms

    @property
    def unrevealed(self) -> list[int]:
        """Those before the present one, in order."""
        return sorted(epoch for epoch in self._engine.epochs if epoch != self.present)

    def is_over(self, epoch: int) -> bool:
        return epoch in self._engine.epochs_revealable()

    async def begin(self, epoch: int) -> None:
        await self._coordinator.settle(events.EpochBegan(epoch=epoch, commitment=to_hex(self.commitment(epoch))))
        reached("epoch.began")

    async def reveal(self, epoch: int) -> None:
        await self._coordinator.settle(events.EpochRevealed(epoch=epoch, secret=to_hex(self.secret(epoch))))
        reached("epoch.revealed")

    @property
    def look_seconds(self) -> float:
        return min(LOOK_SECONDS_MAX, self._epoch_ms / 1000 / LOOKS_PER_EPOCH)


class LocalEpochs:
    """Off a chain: the commitment is public with the step that begins the epoch, since offers wait for its commit."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._epochs = Epochs(coordinator)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._epochs.look_seconds)
            await self.turn()

    async def turn(self) -> None:
        """The first one to be awaited before anything is served."""
        epochs = self._epochs
        for epoch in epochs.unrevealed:
            if not epochs.is_over(epoch):
                break
            await epochs.reveal(epoch)
        if epochs.is_due and not epochs.unrevealed:
            await epochs.begin(0 if epochs.present is None else epochs.present + 1)
