"""The rewards contract of a whole network, and what its tests do with it: stake, report, fund, look at everything."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator
from typing import Any

import boa
import pytest
from harness import revert_reason
from logs import fields_of
from network import BOOTSTRAP_SECONDS, BOOTSTRAP_WEI, EMPTY_ROOT, MULTIPLIERS_TENTHS, STALE_SECONDS, Network

PRLX = 10**18
DAY_SECONDS = 86_400
SLOT_SECONDS = 10
STAKE_WEI = 50_000 * PRLX
WEIGHT = STAKE_WEI * MULTIPLIERS_TENTHS[0]
"""Of a node of tier 1 with the least stake. 10^36 is a multiple of it, so the index of such nodes rounds nothing."""
BOOTSTRAP_SOURCE, INCOME_SOURCE = 1, 2
NOBODY = "0x" + "00" * 20
BATCH_0 = (0, EMPTY_ROOT)

Change = tuple[int, bool, int]
"""Node id, whether it is online, and how many of its slots are voided."""


def bootstrap_wei(seconds: int) -> int:
    """What the bootstrap pays in so many active seconds, rounded down."""
    return BOOTSTRAP_WEI * seconds // BOOTSTRAP_SECONDS


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    network: Network
    owners: list[str]

    @property
    def rewards(self) -> Any:
        return self.network.rewards

    @property
    def token(self) -> Any:
        return self.network.token

    @property
    def owner(self) -> str:
        return self.network.roles.owner

    @property
    def liveness(self) -> str:
        return self.network.roles.liveness

    @property
    def guardian(self) -> str:
        return self.network.roles.guardian

    # --- doing ---

    def stake(self, name: str = "operator", *, stake_wei: int = STAKE_WEI, tier: int = 1) -> int:
        """Registers a node of a new account, and returns its id."""
        owner, locker = boa.env.generate_address(name), self.network.locker
        self.owners.append(owner)
        self.token.transfer(owner, stake_wei, sender=self.network.roles.deployer)
        self.token.approve(locker.address, stake_wei, sender=owner)
        return int(locker.registerNode(stake_wei, tier, (locker.nodeCount() + 1).to_bytes(32, "big"), sender=owner))

    def owner_of(self, node_id: int) -> str:
        return str(self.network.locker.ownerOf(node_id))

    def retire(self, node_id: int) -> None:
        self.network.locker.requestUnstake(node_id, sender=self.owner_of(node_id))

    def report(self, *changes: Change, batch: tuple[int, bytes] = BATCH_0) -> None:
        self.rewards.reportLiveness(*batch, list(changes), sender=self.liveness)

    def online(self, *node_ids: int) -> None:
        self.report(*((node_id, True, 0) for node_id in node_ids))

    def offline(self, *node_ids: int) -> None:
        self.report(*((node_id, False, 0) for node_id in node_ids))

    def active(self, seconds: int) -> None:
        """Passes so many seconds in which reports keep coming, the last of them at their end."""
        for _ in range(seconds // STALE_SECONDS):
            pass_time(STALE_SECONDS)
            self.report()
        pass_time(seconds % STALE_SECONDS)
        self.report()

    def fund(self, amount_wei: int) -> None:
        """A plain transfer of tokens to the rewards contract, untaxed."""
        self.token.transfer(self.rewards.address, amount_wei, sender=self.network.roles.deployer)

    def claim(self, node_id: int) -> int:
        return int(self.rewards.claim(node_id, sender=stranger()))

    def pull(self) -> None:
        self.rewards.pull(sender=stranger())

    # --- looking ---

    def earned(self, *node_ids: int) -> int:
        """What these nodes have earned together."""
        return sum(int(self.rewards.earned(node_id)) for node_id in node_ids)

    def funded(self) -> dict[int, int]:
        """What the latest call booked, by source."""
        return {event["source"]: event["amount"] for event in self.logged("RewardsFunded")}

    def logged(self, name: str) -> list[dict[str, Any]]:
        """The fields of each event of this name that the latest call of the rewards contract logged."""
        return [fields for event, fields in self.events() if event == name]

    def events(self) -> list[tuple[str, dict[str, Any]]]:
        """What the rewards contract itself logged in its latest call, in order."""
        logs = [log for log in self.rewards.get_logs() if log.address == self.rewards.address]
        return [(type(log).__name__, fields_of(log)) for log in logs]

    def everything(self) -> dict[str, Any]:
        """All that a call to the rewards contract could have changed."""
        rewards, ids = self.rewards, range(self.network.locker.nodeCount() + 2)
        totals = ("index", "totalWeight", "held", "bootstrapHeld", "undistributed", "lastUpdateAt", "lastReportAt")
        settings = (
            "lastReportedBatch",
            "paused",
            "liveness",
            "guardian",
            "owner",
            "pending_owner",
            "lockup",
            "streamId",
        )
        holders = {rewards.address, rewards.lockup(), self.network.roles.deployer, *self.owners}
        return {
            "values": {name: getattr(rewards, name)() for name in (*totals, *settings)},
            "nodes": {node_id: (rewards.node(node_id), rewards.earned(node_id)) for node_id in ids},
            "balances": {holder: self.token.balanceOf(holder) for holder in sorted(map(str, holders))},
            "ether": boa.env.get_balance(rewards.address),
        }

    @contextlib.contextmanager
    def refused(self, reason: str) -> Generator[None]:
        """The call inside must revert with exactly this reason and change nothing."""
        before = self.everything()
        with pytest.raises(boa.BoaError) as caught:
            yield
        assert revert_reason(caught.value) == reason
        assert self.everything() == before


def stranger() -> str:
    """An account that has no part in anything, the same each time."""
    return "0x" + "57" * 20


def pass_time(seconds: int) -> None:
    boa.env.time_travel(seconds=seconds)


def now() -> int:
    return int(boa.env.timestamp)


def go_to_midnight(*, seconds_before: int = 0) -> None:
    """Travels to the next UTC midnight, or to so many seconds before the next one that is ahead."""
    midnight = (now() + seconds_before) // DAY_SECONDS * DAY_SECONDS + DAY_SECONDS
    pass_time(midnight - seconds_before - now())
