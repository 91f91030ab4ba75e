"""Reports to the rewards contract which nodes are online, and keeps those earning that are.

A report is made from what the engine has read of the chain, and the next one only when the engine has read the block of
the last: so slots are voided once, whatever dies in between.

The contract pays from one report to the next. Were they foreseeable, a node could be there for each and gone between
them; at moments that nothing foretells, what a node earns is in proportion to the time that it is there.
"""

from __future__ import annotations

import asyncio
import math
import secrets

from parallelix.chain.bindings.operator_stake_rewards import LivenessChange, OperatorStakeRewardsV2Calls
from parallelix.coordinator.onchain.outbox import IntentRefused, Outbox
from parallelix.coordinator.service import Coordinator
from parallelix.engine import events
from parallelix.engine.liveness import LivenessReport
from parallelix.points import reached
from parallelix.protocol.encoding import from_hex

CHANGES_MAX = 300
"""The contract takes more; this keeps the dearest report far below a transaction's gas."""
REPORTS_PER_STALE_WINDOW = 3
"""A report may be lost or late twice before nodes stop earning."""
LONGEST_PAUSES = 2.0
"""No pause is longer than so many usual ones; one in seven is cut off there."""
DRAWN_FROM = 2**53
HASH_BYTES = 32


def pause_seconds(usual_seconds: float, drawn: float) -> float:
    """How long until the next look, by a number drawn evenly from 0 to 1, without 1. It is as likely to end in any
    second as in the one before, whatever has passed of it."""
    return min(-math.log(1 - drawn), LONGEST_PAUSES) * usual_seconds


class Reporting:
    """`stale_seconds` is how long the contract lets nodes earn after a report."""

    def __init__(self, coordinator: Coordinator, outbox: Outbox, *, address: str, stale_seconds: int) -> None:
        self._coordinator = coordinator
        self._outbox = outbox
        self._calls = OperatorStakeRewardsV2Calls(address)
        self._fresh_seconds = stale_seconds / REPORTS_PER_STALE_WINDOW
        self._usual_seconds = min(coordinator.settings.liveness_seconds, self._fresh_seconds / LONGEST_PAUSES)

    async def run(self) -> None:
        await self._outbox.finish_left("liveness")
        while True:
            report = self._report()
            if report is not None:
                await self._send(report)
            await asyncio.sleep(pause_seconds(self._usual_seconds, secrets.randbelow(DRAWN_FROM) / DRAWN_FROM))

    def _report(self) -> LivenessReport | None:
        """What to say now, if anything: changes, or that all is as it was."""
        if self._coordinator.engine.mirror.halted("registry"):
            return None
        # Slots run on where nothing happens.
        self._coordinator.step(events.Tick())
        report = self._coordinator.engine.liveness_report(CHANGES_MAX)
        if report is None or report.changes or self._is_growing_stale():
            return report
        return None

    def _is_growing_stale(self) -> bool:
        """Whether at the next look it would be too long since the last report."""
        liveness = self._coordinator.engine.liveness
        now_seconds = max(self._coordinator.clock() / 1000, liveness.chain_time)
        return now_seconds - liveness.reported_at + LONGEST_PAUSES * self._usual_seconds >= self._fresh_seconds

    async def _send(self, report: LivenessReport) -> None:
        reached("liveness.begun")
        call = self._calls.report_liveness(
            report.batch,
            from_hex(report.merkle_root, name="merkle_root", length_bytes=HASH_BYTES),
            [
                LivenessChange(node_id=each.node_id, online=each.online, voided_slots=each.voided_slots)
                for each in report.changes
            ],
        )
        try:
            await self._outbox.submit(f"liveness:{self._coordinator.clock()}", "liveness", call)
        except IntentRefused as error:
            self._coordinator.log("liveness.refused", {"error": error.message, "changes": len(report.changes)})
            return
        reached("liveness.final")
