"""OperatorStakeRewardsV2 beside its model, among the real token, locker, anchor and Sablier.

Each step lets some time pass and then makes one call, mostly as somebody who may, sometimes as somebody who may not.
"""

from __future__ import annotations

import functools
from typing import Any, Protocol, TypeVar

import boa
from harness import ContractMachine, Mutant, run_machine
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from rewards_differential import FIRST_SECOND, gain_by_splitting, run_schedules
from rewards_model import DAY_SECONDS, Change, RewardTerms
from rewards_scene import COOLDOWN_SECONDS, MINIMUM_STAKE_WEI, RewardsScene, neighbours

T = TypeVar("T")

CONTRACT = "OperatorStakeRewardsV2"
NODES_MAX = 7
"""All of them are looked at again and again: more would make the run slow, and few say as much."""
CALLS_FOR_A_MUTANT = 1_500
SCHEDULES_FOR_A_MUTANT = 6
STEPS_BETWEEN_FULL_CHECKS = 12
STEPS_BETWEEN_NODES = 2
STEPS_BETWEEN_WEIGHTS = 3
SLOTS_MAX = 8_640
UNKNOWN_NODE = 999
FOREIGN_ROOT = b"\x07" * 32

SECONDS = st.one_of(
    st.sampled_from([0, 1, 12, 600, 3_599, 3_600, 3_601, 21_600, DAY_SECONDS]),
    st.integers(1, 7_200),
    st.integers(1, 2 * DAY_SECONDS),
)
PICK = st.integers(0, 1_000)
STAKES = st.one_of(st.just(MINIMUM_STAKE_WEI), st.integers(MINIMUM_STAKE_WEI, 3_000_000 * 10**18))
AMOUNTS = st.one_of(st.sampled_from([1, 86_399, 10**18]), st.integers(1, 1_000_000 * 10**18))
TIERS = st.integers(1, 4)
MOSTLY = st.sampled_from([True, True, True, False])
SELDOM = st.sampled_from([False, False, False, True])
CHANGES = st.lists(
    st.tuples(PICK, st.sampled_from([True, True, False]), st.sampled_from([0] * 6 + [1, 300])), max_size=4
)
TERMS = st.builds(
    RewardTerms,
    bootstrap_wei=st.one_of(st.sampled_from([1, 999, 25_000_000 * 10**18]), st.integers(1, 20_000_000 * 10**18)),
    bootstrap_seconds=st.sampled_from([1, 3_600, DAY_SECONDS, 7 * DAY_SECONDS + 1, 731 * DAY_SECONDS]),
    multipliers_tenths=st.sampled_from([(10, 20, 25, 30), (1, 100, 7, 33)]),
    stale_seconds=st.sampled_from([3_600, 21_600, DAY_SECONDS]),
)

REASONS = (
    "rewards: already paused",
    "rewards: batch is not anchored",
    "rewards: batch is older than the last one reported",
    "rewards: caller is not the guardian",
    "rewards: caller is not the liveness reporter",
    "rewards: caller is not the locker",
    "rewards: liveness is paused",
    "rewards: no such node",
    "rewards: not paused",
    "rewards: nothing earned",
    "rewards: stream already bound",
    "rewards: too many voided slots",
)
"""What the machine sees raised; the rest are refusals of the constructor, of strange streams, and of role changes."""


ACTIONS = {
    "report": 7,
    "report_everybody_online": 4,
    "income": 4,
    "withdraw_from_stream": 2,
    "claim": 6,
    "sync": 4,
    "pull": 1,
    "retire": 3,
    "withdraw_stake": 2,
    "register": 3,
    "pause_or_unpause": 3,
    "bind_stream": 1,
}
"""How often each is drawn, to one another."""
WEIGHTED_ACTIONS = st.sampled_from([name for name, weight in ACTIONS.items() for _ in range(weight)])


class Draw(Protocol):
    """Hypothesis's way to draw a value inside of a rule."""

    def __call__(self, strategy: st.SearchStrategy[T], /) -> T: ...


@functools.cache
def mostly_none(*mistakes: str) -> st.SearchStrategy[str | None]:
    """Somebody who does nothing wrong, but one time in seven."""
    return st.sampled_from([None] * (6 * len(mistakes)) + list(mistakes))


class RewardsMachine(ContractMachine):
    """After each call the contract's totals and one node are compared with the model, after every tenth all nodes."""

    scene: RewardsScene

    def __init__(self) -> None:
        neighbours()  # before the example begins, so that its end does not roll them back
        super().__init__()

    @initialize(terms=TERMS, stream_seconds=st.sampled_from([60, 3_600, 30 * DAY_SECONDS]), binds=MOSTLY)
    def begin(self, terms: RewardTerms, stream_seconds: int, binds: bool) -> None:
        boa.env.evm.patch.timestamp = FIRST_SECOND
        self.scene = RewardsScene(terms)
        self.steps = 0
        self.is_paused = False
        self.withdrawable_at: dict[int, int] = {}
        self.withdrawn: set[int] = set()
        self.lifetimes_wei: dict[int, int] = {}
        self.idle_wei: dict[int, int] = {}
        self.index = 0
        self.old_batch = self.scene.batch
        self.scene.start_stream(stream_seconds)
        if binds:
            self.scene.bind_stream()
        for number in range(3):
            self.scene.register(self.scene.around.operators[number], MINIMUM_STAKE_WEI + number, 1 + number)
        self.scene.report([Change(node_id=1, online=True), Change(node_id=2, online=True)])

    # --- who and which ---

    def node(self, pick: int) -> int:
        return 1 + pick % len(self.scene.model.nodes)

    def attempt_checkpoint(self, rule_name: str, call: Any, *, refusal: str | None) -> None:
        self.attempt(rule_name, call, refusal=refusal)
        if refusal is None:
            self.check_checkpoint()
        self.steps += 1
        self.check_nodes()

    # --- actions ---

    @rule(seconds=SECONDS, action=WEIGHTED_ACTIONS, data=st.data())
    def act(self, seconds: int, action: str, data: st.DataObject) -> None:
        """One rule for all, because Hypothesis would leave some rules out of an example, and bore others to death."""
        self.scene.pass_time(seconds)
        getattr(self, action)(data.draw)

    def register(self, draw: Draw) -> None:
        scene, mistake = self.scene, draw(mostly_none("small", "tier"))
        if len(scene.model.nodes) >= NODES_MAX and mistake is None:
            mistake = "small"
        refusal = {"small": "locker: below minimum stake", "tier": "locker: tier is not 1 to 4", None: None}[mistake]
        stake_wei = MINIMUM_STAKE_WEI - 1 if mistake == "small" else draw(STAKES)
        tier = 5 if mistake == "tier" else draw(TIERS)
        owner = scene.around.operators[draw(PICK) % len(scene.around.operators)]
        self.attempt("register", lambda: scene.register(owner, stake_wei, tier), refusal=refusal)

    def report(self, draw: Draw) -> None:
        scene, sender, refusal = self.scene, None, None
        batch = self.anchor_batch() if draw(SELDOM) else scene.batch
        changes = [Change(node_id=self.node(pick), online=on, voided_slots=slots) for pick, on, slots in draw(CHANGES)]
        mistake = draw(mostly_none("stranger", "not anchored", "older", "unknown", "slots"))
        if mistake == "stranger":
            sender, refusal = scene.around.stranger, "rewards: caller is not the liveness reporter"
        elif self.is_paused:
            refusal = "rewards: liveness is paused"
        elif mistake == "not anchored":
            batch, refusal = (batch[0], FOREIGN_ROOT), "rewards: batch is not anchored"
        elif mistake == "older" and scene.batch != self.old_batch:
            batch, refusal = self.old_batch, "rewards: batch is older than the last one reported"
        elif mistake == "unknown":
            changes, refusal = [*changes, Change(node_id=UNKNOWN_NODE, online=True)], "rewards: no such node"
        elif mistake == "slots":
            excess = Change(node_id=1, online=True, voided_slots=SLOTS_MAX + 1)
            changes, refusal = [*changes, excess], "rewards: too many voided slots"
        self.attempt_checkpoint("report", lambda: scene.report(changes, sender=sender, batch=batch), refusal=refusal)

    def report_everybody_online(self, draw: Draw) -> None:
        if self.is_paused and draw(MOSTLY):
            self.pause_or_unpause(draw)
        refusal = "rewards: liveness is paused" if self.is_paused else None
        changes = [Change(node_id=node_id, online=True) for node_id in self.scene.model.nodes]
        self.attempt_checkpoint("report", lambda: self.scene.report(changes), refusal=refusal)

    def anchor_batch(self) -> tuple[int, bytes]:
        anchor = self.scene.around.anchor
        number, first = int(anchor.batchCount()), int(anchor.nextSequence())
        root = number.to_bytes(32, "big")
        anchor.anchorBatch(anchor.head(), root, first, first, root, 1, 0, sender=self.scene.around.roles.validator)
        return number, root

    def income(self, draw: Draw) -> None:
        scene, mistake, amount_wei = self.scene, draw(mostly_none("broke")), draw(AMOUNTS)
        sender = scene.around.stranger if mistake else None
        refusal = "erc20: transfer amount exceeds balance" if mistake else None
        self.attempt("income", lambda: scene.income(amount_wei, sender=sender), refusal=refusal)
        self.check_nodes()

    def withdraw_from_stream(self, draw: Draw) -> None:
        """A stranger has Sablier pay the rewards contract: no call of ours, so it does not count."""
        if part_wei := self.scene.withdrawable_wei() // draw(TIERS):
            self.scene.withdraw_from_stream(part_wei)
        self.check_nodes()

    def bind_stream(self, draw: Draw) -> None:
        scene, mistake = self.scene, draw(mostly_none("stranger"))
        refusal = "rewards: stream already bound" if scene.is_bound else None
        refusal = "ownable: caller is not the owner" if mistake else refusal
        sender = scene.around.stranger if mistake else None
        self.attempt_checkpoint("bind_stream", lambda: scene.bind_stream(sender=sender), refusal=refusal)

    def pull(self, draw: Draw) -> None:
        del draw
        self.attempt_checkpoint("checkpoint", self.scene.pull, refusal=None)

    def sync(self, draw: Draw) -> None:
        scene, node_id = self.scene, self.node(draw(PICK))
        if draw(mostly_none("unknown")):
            call = functools.partial(scene.rewards.sync, UNKNOWN_NODE, sender=scene.around.stranger)
            self.attempt_checkpoint("checkpoint", call, refusal="rewards: no such node")
        else:
            self.attempt_checkpoint("checkpoint", lambda: scene.sync(node_id), refusal=None)

    def claim(self, draw: Draw) -> None:
        scene, node_id = self.scene, self.node(draw(PICK))
        if draw(mostly_none("unknown")):
            call = functools.partial(scene.rewards.claim, UNKNOWN_NODE, sender=scene.around.stranger)
            self.attempt_checkpoint("claim", call, refusal="rewards: no such node")
        else:
            said_wei = int(scene.rewards.earned(node_id))
            refusal = None if said_wei else "rewards: nothing earned"
            self.attempt_checkpoint("claim", lambda: scene.claim(node_id, said_wei=said_wei), refusal=refusal)

    def retire(self, draw: Draw) -> None:
        scene, node_id, mistake = self.scene, self.node(draw(PICK)), draw(mostly_none("stranger", "not the locker"))
        if mistake == "not the locker":
            call = functools.partial(scene.rewards.nodeRetired, node_id, sender=scene.around.operators[0])
            self.attempt_checkpoint("retire", call, refusal="rewards: caller is not the locker")
            return
        sender = scene.around.stranger if mistake else None
        refusal = "locker: node is already retired" if scene.model.nodes[node_id].retired else None
        refusal = "locker: caller is not the owner of the node" if mistake else refusal
        self.attempt_checkpoint("retire", lambda: scene.retire(node_id, sender=sender), refusal=refusal)
        if refusal is None:
            self.withdrawable_at[node_id] = scene.now + COOLDOWN_SECONDS

    def withdraw_stake(self, draw: Draw) -> None:
        scene = self.scene
        cooling = [node_id for node_id in self.withdrawable_at if node_id not in self.withdrawn]
        node_id = cooling[0] if cooling and draw(MOSTLY) else self.node(draw(PICK))
        if draw(MOSTLY) and cooling:
            scene.pass_time(COOLDOWN_SECONDS)
        refusal = None
        if node_id not in self.withdrawable_at:
            refusal = "locker: node is not cooling down"
        elif node_id in self.withdrawn:
            refusal = "locker: stake was withdrawn"
        elif scene.now < self.withdrawable_at[node_id]:
            refusal = "locker: cooldown is not over"
        self.attempt("withdraw_stake", lambda: scene.withdraw_stake(node_id), refusal=refusal)
        if refusal is None:
            self.withdrawn.add(node_id)

    def pause_or_unpause(self, draw: Draw) -> None:
        """The other of the two, or seldom what is already so."""
        scene, mistake = self.scene, draw(mostly_none("stranger"))
        sender = scene.around.stranger if mistake else None
        pauses = self.is_paused == draw(SELDOM)
        if pauses:
            refusal = "rewards: already paused" if self.is_paused else None
            refusal = "rewards: caller is not the guardian" if mistake else refusal
            self.attempt_checkpoint("pause", lambda: scene.pause(sender=sender), refusal=refusal)
        else:
            refusal = None if self.is_paused else "rewards: not paused"
            refusal = "ownable: caller is not the owner" if mistake else refusal
            self.attempt_checkpoint("unpause", lambda: scene.unpause(sender=sender), refusal=refusal)
        if refusal is None:
            self.is_paused = pauses

    # --- invariants ---

    def check_checkpoint(self) -> None:
        self.scene.check_totals()
        self.invariant_i5_the_index_never_falls()
        if self.steps % STEPS_BETWEEN_WEIGHTS == 0:
            self.invariant_i6_the_total_weight_is_the_sum_of_the_weights()
        for node_id, node in self.scene.model.nodes.items():
            if node.weight:
                self.idle_wei.pop(node_id, None)

    def check_nodes(self) -> None:
        """One node after every second call, in turn, because looking costs as much as a call does."""
        if self.steps % STEPS_BETWEEN_FULL_CHECKS == 0:
            self.check_all()
        elif self.steps % STEPS_BETWEEN_NODES == 0:
            self.check_node(self.node(self.steps // STEPS_BETWEEN_NODES))

    def check_node(self, node_id: int) -> int:
        lifetime_wei = self.scene.lifetime_wei(node_id)
        self.invariant_i5_what_a_node_earned_never_falls(node_id, lifetime_wei)
        self.invariant_i7_who_does_not_count_earns_nothing(node_id, lifetime_wei)
        error_wei = self.scene.exact_wei(node_id) - lifetime_wei
        assert abs(error_wei) <= self.scene.checkpoints + 1, f"node {node_id} is {float(error_wei)} wei off"
        return lifetime_wei

    def check_all(self) -> None:
        self.scene.pull()
        self.check_checkpoint()
        lifetimes_wei = sum(self.check_node(node_id) for node_id in self.scene.model.nodes)
        self.invariant_i4_nothing_is_paid_that_did_not_come_and_nothing_is_lost(lifetimes_wei)
        self.invariant_i8_more_calls_earn_nothing_more(lifetimes_wei)

    def invariant_i4_nothing_is_paid_that_did_not_come_and_nothing_is_lost(self, lifetimes_wei: int) -> None:
        """`lifetimes_wei` is what was paid and is earned. Each node keeps its part of a wei."""
        model = self.scene.model
        assert lifetimes_wei <= model.funded_wei, f"I4: {lifetimes_wei} wei of {model.funded_wei} are paid or earned"
        dust_wei = self.scene.dust_wei(lifetimes_wei)
        assert 0 <= dust_wei <= len(model.nodes), f"I4: {dust_wei} wei are neither earned nor to come"

    def invariant_i5_the_index_never_falls(self) -> None:
        index = int(self.scene.rewards.index())
        assert index >= self.index, f"I5: the index fell from {self.index} to {index}"
        self.index = index

    def invariant_i5_what_a_node_earned_never_falls(self, node_id: int, lifetime_wei: int) -> None:
        before_wei = self.lifetimes_wei.get(node_id, 0)
        assert lifetime_wei >= before_wei, f"I5: node {node_id} had earned {before_wei}, and now {lifetime_wei} wei"
        self.lifetimes_wei[node_id] = lifetime_wei

    def invariant_i6_the_total_weight_is_the_sum_of_the_weights(self) -> None:
        rewards = self.scene.rewards
        weights = {node_id: rewards.weightOf(node_id) for node_id in self.scene.model.nodes}
        expected = {node_id: node.weight for node_id, node in self.scene.model.nodes.items()}
        assert weights == expected, f"I6: weights {weights} instead of {expected}"
        assert rewards.totalWeight() == sum(weights.values()), (
            f"I6: {rewards.totalWeight()} is not the sum of {weights}"
        )

    def invariant_i7_who_does_not_count_earns_nothing(self, node_id: int, lifetime_wei: int) -> None:
        if not self.scene.model.nodes[node_id].weight:
            idle_wei = self.idle_wei.setdefault(node_id, lifetime_wei)
            assert idle_wei == lifetime_wei, f"I7: idle node {node_id} went from {idle_wei} to {lifetime_wei} wei"

    def invariant_i8_more_calls_earn_nothing_more(self, lifetimes_wei: int) -> None:
        scene = self.scene
        fewer_calls_wei = sum(
            scene.lazy.lifetime_wei(node_id, scene.now, scene.bootstrap_wei()) for node_id in scene.lazy.nodes
        )
        gain_wei = lifetimes_wei - fewer_calls_wei
        assert gain_wei <= scene.checkpoints, f"I8: {float(gain_wei)} wei more than with fewer calls"


def run_a_little() -> None:
    run_machine(RewardsMachine, calls=CALLS_FOR_A_MUTANT, seed=1, shrink=False)


def run_a_few_schedules() -> None:
    run_schedules(SCHEDULES_FOR_A_MUTANT, seed=2)


def split_stakes() -> None:
    gain_wei, more_calls = gain_by_splitting(1, parts=2)
    assert gain_wei <= more_calls, f"I8: {gain_wei} wei gained by {more_calls} calls"


COLLECTS = """\
        self._withdraw_from(stream)
        withdrawn_wei = self._withdrawn_wei(stream, pool)
"""
COLLECTS_ITS_OWN = """\
        before_wei: uint256 = staticcall IERC20(token).balanceOf(self)
        self._withdraw_from(stream)
        withdrawn_wei += staticcall IERC20(token).balanceOf(self) - before_wei
"""

MUTANTS = (
    Mutant(
        invariant="I4",
        name="bootstrap-is-paid-and-still-held",
        contract=CONTRACT,
        before="    paid.bootstrap_held -= bootstrap_wei\n",
        after="",
        check=run_a_few_schedules,
    ),
    Mutant(
        invariant="I4",
        name="a-claim-is-forgotten-in-part",
        contract=CONTRACT,
        before="self._debts[node_id] += convert(amount_wei * INDEX_SCALE, int256)",
        after="self._debts[node_id] += convert((amount_wei - 1) * INDEX_SCALE, int256)",
        check=run_a_little,
    ),
    Mutant(
        invariant="I4",
        name="income-is-rounded-to-the-second-and-the-rest-is-lost",
        contract=CONTRACT,
        before="return bucket.amount * elapsed // DAY_SECONDS",
        after="return bucket.amount // DAY_SECONDS * elapsed",
        check=run_a_few_schedules,
    ),
    Mutant(
        invariant="I4",
        name="idle-time-is-lost-to-income",
        contract=CONTRACT,
        before="        if time >= until:\n            break\n",
        after="        if time >= until:\n            head += 1\n            break\n",
        check=run_a_few_schedules,
    ),
    Mutant(
        invariant="I4",
        name="what-a-stranger-pulled-is-a-days-income",
        contract=CONTRACT,
        before=COLLECTS,
        after=COLLECTS_ITS_OWN,
        check=run_a_few_schedules,
    ),
    Mutant(
        invariant="I5",
        name="the-index-starts-over",
        contract=CONTRACT,
        before="paid.index += (bootstrap_wei + income_wei)",
        after="paid.index = (bootstrap_wei + income_wei)",
        check=run_a_little,
    ),
    Mutant(
        invariant="I5",
        name="going-offline-forfeits-what-was-earned",
        contract=CONTRACT,
        before="self._debts[node_id] -= settled_scaled",
        after="self._debts[node_id] = 0",
        check=run_a_little,
    ),
    Mutant(
        invariant="I6",
        name="who-leaves-still-weighs",
        contract=CONTRACT,
        before="        moved.total_weight -= node.weight\n",
        after="",
        check=run_a_little,
    ),
    Mutant(
        invariant="I6",
        name="who-is-reported-twice-weighs-twice",
        contract=CONTRACT,
        before="if applied.earning == node.earning:",
        after="if not applied.earning and not node.earning:",
        check=run_a_little,
    ),
    Mutant(
        invariant="I7",
        name="an-unstaked-node-goes-on",
        contract=CONTRACT,
        before="    node.retired = True\n",
        after="",
        check=run_a_little,
    ),
    Mutant(
        invariant="I7",
        name="voided-slots-count",
        contract=CONTRACT,
        before="applied.earning = applied.online and block.timestamp >= node.voidUntil",
        after="applied.earning = applied.online",
        check=run_a_little,
    ),
    Mutant(
        invariant="I7",
        name="a-stale-report-keeps-nodes-earning",
        contract=CONTRACT,
        before="until: uint256 = min(block.timestamp, pool.reported_at + staleSeconds)",
        after="until: uint256 = block.timestamp",
        check=run_a_little,
    ),
    Mutant(
        invariant="I7",
        name="a-pause-does-not-stop-the-clock",
        contract=CONTRACT,
        before="    pool.reported_at = 0\n",
        after="",
        check=run_a_little,
    ),
    Mutant(
        invariant="I8",
        name="each-call-pays-its-last-second-again",
        contract=CONTRACT,
        before="    paid.updated_at = block.timestamp\n",
        after="    paid.updated_at = max(pool.updated_at, block.timestamp - 1)\n",
        check=split_stakes,
    ),
    Mutant(
        invariant="I8",
        name="each-node-gets-a-bonus",
        contract=CONTRACT,
        before="registered.weight = stake_wei * MULTIPLIERS_TENTHS[hardware_tier - 1]",
        after="registered.weight = stake_wei * MULTIPLIERS_TENTHS[hardware_tier - 1] + 10 ** 22",
        check=split_stakes,
    ),
    Mutant(
        invariant="I8",
        name="each-call-rounds-up-by-ten-wei",
        contract=CONTRACT,
        before="    return due_wei, due_scaled % bootstrapSeconds\n",
        after="    return min(due_wei + 10, pool.bootstrap_held), due_scaled % bootstrapSeconds\n",
        check=split_stakes,
    ),
)
