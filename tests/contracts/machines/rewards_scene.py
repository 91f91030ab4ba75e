"""The rewards contract among its real neighbours (token, locker, anchor, Sablier), and its model beside it.

Each action makes one call and, when that succeeded, tells the model: so contract and model always stand side by side.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import boa
from network import EMPTY_ROOT, Roles, make_roles
from rewards_model import Change, RewardsModel, RewardTerms
from sablier import deploy_sablier, open_stream
from sources import deployer_of

COOLDOWN_SECONDS = 604_800
MINIMUM_STAKE_WEI = 50_000 * 10**18
SUPPLY_WEI = 100_000_000 * 10**18
OPERATORS = 3
SOURCES = 2
"""Bootstrap and income: each may be late by a part of a wei."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Neighbours:
    """What every rewards contract can share: deployed once a process, because that takes longer than a schedule."""

    roles: Roles
    operators: tuple[str, ...]
    stranger: str
    token: Any
    anchor: Any
    lockup: Any


_neighbours: list[Neighbours] = []


def neighbours() -> Neighbours:
    """The shared contracts; deployed again where the state that held them was rolled back."""
    if not _neighbours or not boa.env.get_code(_neighbours[0].token.address):
        _neighbours[:] = [_deploy_neighbours()]
    return _neighbours[0]


def _deploy_neighbours() -> Neighbours:
    boa.env.enable_fast_mode()
    roles = make_roles()
    operators = tuple(boa.env.generate_address(f"operator {number}") for number in range(OPERATORS))
    with boa.env.prank(roles.deployer):
        token = deployer_of("PRLX")(roles.treasury)
        anchor = deployer_of("ExecutionAnchor")(roles.validator)
        lockup = deploy_sablier()
        token.addExemption(lockup.address)
    anchor.commitSampling(0, hashlib.sha256(b"secret").digest(), sender=roles.validator)
    return Neighbours(
        roles=roles,
        operators=operators,
        stranger=boa.env.generate_address("stranger"),
        token=token,
        anchor=anchor,
        lockup=lockup,
    )


@dataclasses.dataclass(kw_only=True, slots=True)
class Stream:
    """The linear stream as Sablier says it pays: its own arithmetic, from its documentation."""

    stream_id: int
    amount_wei: int
    started_at: int
    duration_seconds: int
    withdrawn_wei: int = 0

    def streamed_wei(self, now: int) -> int:
        return self.amount_wei * min(now - self.started_at, self.duration_seconds) // self.duration_seconds


class RewardsScene:
    """One rewards contract with a locker of its own. `model` is settled whenever the contract should be.

    `lazy` is the same model, settled only where weights or the freshness of reports change: as with fewer calls.
    """

    def __init__(self, terms: RewardTerms) -> None:
        self.around = neighbours()
        self.terms = terms
        self.model = RewardsModel(terms)
        self.lazy = RewardsModel(terms)
        self.stream: Stream | None = None
        self.never_bootstrap_wei: int | None = None
        self.unbooked_wei = 0
        self.drawn_wei = 0
        self.batch = (0, EMPTY_ROOT)
        self.checkpoints = 0
        roles, token = self.around.roles, self.around.token
        with boa.env.prank(roles.deployer):
            self.locker = deployer_of("NodeRegistryLocker")(token.address, roles.treasury)
            self.rewards = deployer_of("OperatorStakeRewardsV2")(
                token.address,
                self.locker.address,
                self.around.anchor.address,
                roles.liveness,
                roles.guardian,
                terms.bootstrap_wei,
                terms.bootstrap_seconds,
                list(terms.multipliers_tenths),
                terms.stale_seconds,
            )
            self.locker.bindRewards(self.rewards.address)
            token.addExemption(self.locker.address)
            token.addExemption(self.rewards.address)
        for operator in self.around.operators:
            token.approve(self.locker.address, 2**256 - 1, sender=operator)

    # --- time, and what came in ---

    @property
    def now(self) -> int:
        return boa.env.evm.patch.timestamp

    def pass_time(self, seconds: int) -> None:
        boa.env.evm.patch.timestamp += seconds
        boa.env.evm.patch.block_number += 1

    @property
    def is_bound(self) -> bool:
        return self.never_bootstrap_wei is not None

    def bootstrap_wei(self) -> int:
        """What the contract has got as bootstrap, or would have if it pulled now."""
        if self.stream is None or self.never_bootstrap_wei is None:
            return 0
        return self.stream.streamed_wei(self.now) - self.never_bootstrap_wei

    def income(self, amount_wei: int, *, sender: str | None = None) -> None:
        """A plain transfer to the rewards contract, by somebody whose transfers are not taxed unless told otherwise."""
        self.around.token.transfer(self.rewards.address, amount_wei, sender=sender or self.around.roles.deployer)
        self.unbooked_wei += amount_wei

    def start_stream(self, duration_seconds: int) -> None:
        amount_wei = self.terms.bootstrap_wei
        stream_id = open_stream(
            self.around.lockup,
            self.around.token,
            funder=self.around.roles.deployer,
            recipient=self.rewards.address,
            amount_wei=amount_wei,
            start=self.now,
            duration_seconds=duration_seconds,
        )
        self.stream = Stream(
            stream_id=stream_id, amount_wei=amount_wei, started_at=self.now, duration_seconds=duration_seconds
        )

    def withdraw_from_stream(self, amount_wei: int) -> None:
        """What anybody may do: have Sablier pay the rewards contract directly."""
        stream = self._stream()
        lockup = self.around.lockup
        lockup.withdraw(stream.stream_id, self.rewards.address, amount_wei, sender=self.around.stranger)
        if not self.is_bound:
            stream.withdrawn_wei += amount_wei
            self.unbooked_wei += amount_wei

    def withdrawable_wei(self) -> int:
        """What a stranger could have the stream pay now, by Sablier's own count."""
        return int(self.around.lockup.withdrawableAmountOf(self._stream().stream_id))

    def bind_stream(self, *, sender: str | None = None) -> None:
        """What of the stream had come before, and was booked as income then, stays income."""
        stream = self._stream()
        self.rewards.bindStream(
            self.around.lockup.address, stream.stream_id, sender=sender or self.around.roles.deployer
        )
        streamed_wei = stream.streamed_wei(self.now)
        arrived_wei = self.unbooked_wei + streamed_wei - stream.withdrawn_wei
        bootstrap_wei = min(arrived_wei, streamed_wei)
        self.never_bootstrap_wei = streamed_wei - bootstrap_wei
        self.unbooked_wei = arrived_wei - bootstrap_wei
        self._settled()

    def _stream(self) -> Stream:
        assert self.stream is not None, "no stream was started"
        return self.stream

    def _settled(self, *, changes: bool = False) -> None:
        self.checkpoints += 1
        self.model.settle(self.now, self.bootstrap_wei(), self.unbooked_wei)
        self.lazy.book(self.now, self.bootstrap_wei(), self.unbooked_wei)
        self.unbooked_wei = 0
        if self.is_bound:
            self.drawn_wei = self._stream().streamed_wei(self.now)
        if changes:
            self.lazy.share_out(self.now)

    def _settled_by_claim(self) -> None:
        """A claim draws on the stream only when the bootstrap that is held does not cover what is due."""
        if self.is_bound and self.drawn_wei < self.terms.bootstrap_wei and self.model.is_short(self.now):
            self._settled()
        else:
            self.checkpoints += 1
            self.model.share_out(self.now)

    # --- what people do ---

    def register(self, owner: str, stake_wei: int, tier: int) -> int:
        with boa.env.prank(self.around.roles.deployer):
            self.around.token.transfer(owner, stake_wei)
        node_id = int(self.locker.nodeCount()) + 1
        self.locker.registerNode(stake_wei, tier, node_id.to_bytes(32, "big"), sender=owner)
        self.model.register(node_id, stake_wei, tier)
        self.lazy.register(node_id, stake_wei, tier)
        return node_id

    def owner_of(self, node_id: int) -> str:
        return str(self.locker.ownerOf(node_id))

    def report(
        self, changes: Sequence[Change], *, sender: str | None = None, batch: tuple[int, bytes] | None = None
    ) -> None:
        number, root = batch or self.batch
        lines = [(change.node_id, change.online, change.voided_slots) for change in changes]
        self.rewards.reportLiveness(number, root, lines, sender=sender or self.around.roles.liveness)
        self._settled(changes=True)
        self.model.report(self.now, changes)
        self.lazy.report(self.now, changes)
        self.batch = (number, root)

    def pull(self) -> None:
        self.rewards.pull(sender=self.around.stranger)
        self._settled()

    def sync(self, node_id: int) -> None:
        self.rewards.sync(node_id, sender=self.around.stranger)
        self._settled(changes=self.model.nodes[node_id].weight != self._weight_after_sync(node_id))
        self.model.sync(self.now, node_id)
        self.lazy.sync(self.now, node_id)

    def _weight_after_sync(self, node_id: int) -> int:
        node = dataclasses.replace(self.model.nodes[node_id])
        node.weigh(self.now)
        return node.weight

    def claim(self, node_id: int, *, said_wei: int | None = None) -> int:
        """Anybody may; the owner gets it, to the wei of what `earned` said (asked for, unless it is given)."""
        owner = self.owner_of(node_id)
        said_wei = self.rewards.earned(node_id) if said_wei is None else said_wei
        before_wei = self.around.token.balanceOf(owner)
        paid_wei = int(self.rewards.claim(node_id, sender=self.around.stranger))
        assert self.around.token.balanceOf(owner) - before_wei == paid_wei == said_wei, (node_id, paid_wei, said_wei)
        self._settled_by_claim()
        self.model.paid(node_id, paid_wei)
        return paid_wei

    def retire(self, node_id: int, *, sender: str | None = None) -> None:
        self.locker.requestUnstake(node_id, sender=sender or self.owner_of(node_id))
        self._settled(changes=True)
        self.model.retire(self.now, node_id)
        self.lazy.retire(self.now, node_id)

    def withdraw_stake(self, node_id: int, *, sender: str | None = None) -> None:
        self.locker.withdrawStake(node_id, sender=sender or self.owner_of(node_id))

    def pause(self, *, sender: str | None = None) -> None:
        self.rewards.pause(sender=sender or self.around.roles.guardian)
        self._settled(changes=True)
        self.model.pause(self.now)
        self.lazy.pause(self.now)

    def unpause(self, *, sender: str | None = None) -> None:
        self.rewards.unpause(sender=sender or self.around.roles.deployer)
        self._settled()

    # --- contract beside model ---

    def lifetime_wei(self, node_id: int) -> int:
        """All that the contract says the node has earned so far, claimed or not."""
        return self.model.nodes[node_id].paid_wei + int(self.rewards.earned(node_id))

    def exact_wei(self, node_id: int) -> Fraction:
        """The same of the model."""
        return self.model.lifetime_wei(node_id, self.now, self.bootstrap_wei())

    def check_totals(self) -> None:
        """Right after a checkpoint: what the contract holds, may still distribute, and weighs."""
        model = self.model
        held_wei = self.rewards.held()
        assert held_wei == model.funded_wei - model.paid_wei, (held_wei, model.funded_wei, model.paid_wei)
        assert self.around.token.balanceOf(self.rewards.address) >= held_wei, "more is booked than is there"
        late_wei = self.rewards.undistributed() - model.undistributed_wei
        assert 0 <= late_wei < SOURCES, f"{float(late_wei)} wei are late"
        total_weight = self.rewards.totalWeight()
        assert total_weight == model.total_weight, f"total weight {total_weight} instead of {model.total_weight}"

    def dust_wei(self, lifetimes_wei: int) -> int:
        """What came, and no node has earned so far, and is not still to be distributed: each node's part of a wei."""
        return self.model.funded_wei - lifetimes_wei - int(self.rewards.undistributed())
