"""Rewards of the contract against exact fractions, over random schedules of events.

A schedule is named by its seed, which decides its terms, its nodes, and what happens when. At its end everybody who can
is kept online until all is paid out, where that takes few enough reports, and what is left over then is dust.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from fractions import Fraction

import boa
from harness import revert_reason
from rewards_model import DAY_SECONDS, Change, RewardTerms
from rewards_scene import COOLDOWN_SECONDS, MINIMUM_STAKE_WEI, SUPPLY_WEI, RewardsScene, neighbours

EVENTS_PER_SCHEDULE = 40
NODES_MAX = 50
FIRST_SECOND = 1_800_000_000
"""Schedules begin within a day of this, whatever the machine's clock says, so that a seed says everything."""
TAIL_REPORTS_MAX = 60
"""A tail that takes more reports than this is not waited for."""
RESERVE_WEI = MINIMUM_STAKE_WEI
"""Kept for one last node, for the tail of a schedule in which everybody has left."""
NODES_OF_THE_SUPPLY = 2_000
SEED_OF_THE_WHOLE_SUPPLY = 1
CHANGES_MAX = 500
STORY_EVENTS = 16


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DifferentialResult:
    """`max_error_wei`: how far what any node earned was from the exact fraction. `stranded_wei`: the most that any
    schedule left unpaid when its tail was over, parts of a wei of its nodes included."""

    schedules: int
    events: int
    checkpoints: int
    tails: int
    max_error_wei: Fraction
    stranded_wei: int
    max_stranded_per_node_wei: Fraction


class ScheduleFailed(AssertionError):
    """Contract and fractions disagreed; the message says which schedule to run again."""


def run_schedules(count: int, *, seed: int, progress: Callable[[int], None] | None = None) -> DifferentialResult:
    """Runs `count` schedules; the same seed and number make the same schedule. Raises `ScheduleFailed`.

    With the seed 1, which a long run begins with, the whole supply is also staked in 2,000 nodes, once."""
    supply_error_wei = run_the_whole_supply() if seed == SEED_OF_THE_WHOLE_SUPPLY else Fraction(0)
    finished: list[Schedule] = []
    for number in range(count):
        schedule = run_schedule(seed * 1_000_003 + number)
        finished.append(schedule)
        if progress is not None:
            progress(number + 1)
    return DifferentialResult(
        schedules=count,
        events=sum(len(each.log) for each in finished),
        checkpoints=sum(each.scene.checkpoints for each in finished),
        tails=sum(each.stranded_wei is not None for each in finished),
        max_error_wei=max([supply_error_wei, *(each.max_error_wei for each in finished)]),
        stranded_wei=max((each.stranded_wei or 0 for each in finished), default=0),
        max_stranded_per_node_wei=max(
            (Fraction(each.stranded_wei or 0, len(each.scene.model.nodes)) for each in finished), default=Fraction(0)
        ),
    )


def run_schedule(seed: int) -> Schedule:
    neighbours()  # deployed before what is rolled back, for the next schedule too
    with boa.env.anchor():
        schedule = Schedule(seed)
        try:
            schedule.run()
        except (AssertionError, boa.BoaError) as error:
            said = revert_reason(error) if isinstance(error, boa.BoaError) else str(error)
            latest = "\n".join(schedule.log[-8:])
            raise ScheduleFailed(f"schedule {seed}, event {len(schedule.log)}: {said}\n{latest}") from error
    return schedule


class Schedule:
    """One random life of a rewards contract beside its model."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log: list[str] = []
        self.max_error_wei = Fraction(0)
        self.stranded_wei: int | None = None
        boa.env.evm.patch.timestamp = FIRST_SECOND + self.random.randrange(DAY_SECONDS)
        self.terms = self._draw_terms()
        self.scene = RewardsScene(self.terms)
        self.lifetimes_wei: dict[int, int] = {}
        self.index = 0
        self.withdrawn: set[int] = set()
        self.is_paused = False
        self.handlers: dict[Callable[[], str], int] = {
            self.flip: 14,
            self.report_several: 8,
            self.refresh: 8,
            self.void: 5,
            self.everybody: 6,
            self.income: 14,
            self.withdraw_from_stream: 7,
            self.pull: 6,
            self.sync: 9,
            self.claim: 12,
            self.retire: 4,
            self.withdraw_stake: 2,
            self.register: 4,
            self.pause_or_unpause: 2,
            self.bind: 3,
        }

    # --- how it begins ---

    def _draw_terms(self) -> RewardTerms:
        draw = self.random
        stale_seconds = draw.choice([1, 12, 3_600, 21_600, 21_600, 86_400, 86_400])
        amounts_wei = [1, 999, *(self._amount(60_000_000 * 10**18) for _ in range(3)), 25_000_000 * 10**18]
        return RewardTerms(
            bootstrap_wei=draw.choice(amounts_wei),
            bootstrap_seconds=self._duration_seconds(),
            multipliers_tenths=draw.choice([(10, 20, 25, 30), (1, 1, 1, 1), (100, 7, 100, 33)]),
            stale_seconds=stale_seconds,
        )

    def _duration_seconds(self) -> int:
        draw = self.random
        return draw.choice([1, 3_600, DAY_SECONDS, 3 * DAY_SECONDS + 1, draw.randint(1, 10**6), 731 * DAY_SECONDS])

    def _amount(self, most_wei: int) -> int:
        """Any size is as likely as any other: as many draws below 1,000 wei as above 100,000 tokens."""
        return min(most_wei, int(10 ** self.random.uniform(0, len(str(most_wei)))))

    def _spare_wei(self) -> int:
        return int(self.scene.around.token.balanceOf(self.scene.around.roles.deployer)) - RESERVE_WEI

    def run(self) -> None:
        self._open()
        for _ in range(EVENTS_PER_SCHEDULE):
            self._step()
        self._check_everything()
        self._pay_out_the_tail()

    def _open(self) -> None:
        draw, scene = self.random, self.scene
        long_seconds = draw.randint(DAY_SECONDS, 90 * DAY_SECONDS)
        scene.start_stream(draw.choice([self.terms.bootstrap_seconds, self._duration_seconds(), long_seconds]))
        if draw.random() < 0.85:
            scene.bind_stream()
        for _ in range(draw.choice([1, 2, 3, 5, 8, 13, 21, NODES_MAX])):
            self.register()
        scene.report([Change(node_id=node_id, online=draw.random() < 0.8) for node_id in scene.model.nodes])

    # --- one event ---

    def _step(self) -> None:
        self._pass_time()
        nodes = list(self.scene.model.nodes)
        if self.random.random() < 0.25:
            self._check_node(self.random.choice(nodes))
        handler = self.random.choices(list(self.handlers), list(self.handlers.values()))[0]
        self.log.append(f"{self.scene.now} {handler.__name__}")
        before = self.scene.checkpoints
        self.log[-1] += f" {handler()}"
        if self.scene.checkpoints > before:
            self._check_checkpoint()
        if self.random.random() < 0.5:
            self._check_node(self.random.choice(nodes))

    def _pass_time(self) -> None:
        draw, stale_seconds = self.random, self.terms.stale_seconds
        until_midnight = DAY_SECONDS - self.scene.now % DAY_SECONDS
        steps = {
            0: 15,
            1: 15,
            12: 15,
            draw.randint(1, 600): 15,
            draw.randint(1, stale_seconds): 25,
            stale_seconds + draw.choice([-1, 0, 1]): 8,
            draw.randint(3_600, DAY_SECONDS): 10,
            until_midnight + draw.choice([-1, 0, 1]): 6,
            draw.randint(DAY_SECONDS, 3 * DAY_SECONDS): 8,
            draw.randint(3 * DAY_SECONDS, 40 * DAY_SECONDS): 3,
        }
        self.scene.pass_time(draw.choices(list(steps), list(steps.values()))[0])

    def _some_node(self) -> int:
        return self.random.choice(list(self.scene.model.nodes))

    def flip(self) -> str:
        node_id = self._some_node()
        return self._report([Change(node_id=node_id, online=not self.scene.model.nodes[node_id].online)])

    def report_several(self) -> str:
        count = self.random.randint(2, 12)
        return self._report(
            [Change(node_id=self._some_node(), online=self.random.random() < 0.7) for _ in range(count)]
        )

    def refresh(self) -> str:
        return self._report([])

    def void(self) -> str:
        slots = self.random.choice([1, 2, 60, 8_640])
        return self._report([Change(node_id=self._some_node(), online=True, voided_slots=slots)])

    def everybody(self) -> str:
        online = self.random.random() < 0.7
        return self._report([Change(node_id=node_id, online=online) for node_id in self.scene.model.nodes])

    def _report(self, changes: list[Change]) -> str:
        if self.is_paused:
            self.pause_or_unpause()
        self.scene.report(changes)
        return ", ".join(
            f"{each.node_id}:{'on' if each.online else 'off'}:{each.voided_slots}" for each in changes[:12]
        )

    def income(self) -> str:
        if (spare_wei := self._spare_wei()) <= 0:
            return "nothing to give"
        amount_wei = self._amount(spare_wei)
        self.scene.income(amount_wei)
        return str(amount_wei)

    def withdraw_from_stream(self) -> str:
        withdrawable_wei = self.scene.withdrawable_wei()
        if withdrawable_wei == 0:
            return "nothing there"
        amount_wei = self.random.choice([1, withdrawable_wei, self.random.randint(1, withdrawable_wei)])
        self.scene.withdraw_from_stream(amount_wei)
        return str(amount_wei)

    def bind(self) -> str:
        if self.scene.is_bound:
            return "is bound"
        self.scene.bind_stream()
        return "bound"

    def pull(self) -> str:
        self.scene.pull()
        return ""

    def sync(self) -> str:
        node_id = self._some_node()
        self.scene.sync(node_id)
        return str(node_id)

    def claim(self) -> str:
        node_id = self._some_node()
        said_wei = int(self.scene.rewards.earned(node_id))
        return f"{node_id}: {self.scene.claim(node_id, said_wei=said_wei)}" if said_wei else "nothing earned"

    def retire(self) -> str:
        node_id = self._some_node()
        if self.scene.model.nodes[node_id].retired:
            return "is retired"
        self.scene.retire(node_id)
        return str(node_id)

    def withdraw_stake(self) -> str:
        for node_id, node in self.scene.model.nodes.items():
            if node.retired and node_id not in self.withdrawn:
                self.scene.pass_time(COOLDOWN_SECONDS)
                self.scene.withdraw_stake(node_id)
                self.withdrawn.add(node_id)
                return str(node_id)
        return "nobody cools down"

    def register(self) -> str:
        spare_wei = self._spare_wei()
        if spare_wei < MINIMUM_STAKE_WEI or len(self.scene.model.nodes) >= NODES_MAX:
            return "no room"
        biggest_wei = self.random.choice([MINIMUM_STAKE_WEI, 60_000 * 10**18, spare_wei // 3, spare_wei])
        stake_wei = self.random.randint(MINIMUM_STAKE_WEI, max(MINIMUM_STAKE_WEI, min(biggest_wei, spare_wei)))
        owner = self.random.choice(self.scene.around.operators)
        return str(self.scene.register(owner, stake_wei, self.random.randint(1, 4)))

    def pause_or_unpause(self) -> str:
        self.is_paused = not self.is_paused
        if self.is_paused:
            self.scene.pause()
        else:
            self.scene.unpause()
        return "paused" if self.is_paused else "unpaused"

    # --- what must hold ---

    def _check_checkpoint(self) -> None:
        self.scene.check_totals()
        index = int(self.scene.rewards.index())
        assert index >= self.index, f"I5: the index fell from {self.index} to {index}"
        self.index = index

    def _check_node(self, node_id: int) -> None:
        """At most a wei off for each checkpoint, never less than before."""
        lifetime_wei = self.scene.lifetime_wei(node_id)
        error_wei = abs(self.scene.exact_wei(node_id) - lifetime_wei)
        assert error_wei <= self.scene.checkpoints + 1, f"node {node_id} is {float(error_wei)} wei off"
        assert lifetime_wei >= self.lifetimes_wei.get(node_id, 0), f"I5: what node {node_id} earned fell"
        self.lifetimes_wei[node_id] = lifetime_wei
        self.max_error_wei = max(self.max_error_wei, error_wei)

    def _check_everything(self) -> int:
        """I4: what was funded is paid, earned, or still to be distributed, less than a wei a node apart."""
        self.scene.pull()
        self.scene.check_totals()
        for node_id in self.scene.model.nodes:
            self._check_node(node_id)
        dust_wei = self.scene.dust_wei(sum(self.lifetimes_wei.values()))
        assert 0 <= dust_wei <= len(self.scene.model.nodes), f"I4: {dust_wei} wei are nobody's"
        return dust_wei

    # --- how it ends ---

    def _pay_out_the_tail(self) -> None:
        self._let_the_stream_end()
        self._bring_everybody_online()
        model, stale_seconds = self.scene.model, self.terms.stale_seconds
        seconds = DAY_SECONDS * (len(model.days) + 1)
        if model.bootstrap_received_wei > model.bootstrap_paid_wei:
            seconds = max(seconds, self.terms.bootstrap_seconds)
        if seconds > TAIL_REPORTS_MAX * stale_seconds:
            return
        for _ in range(-(-seconds // stale_seconds)):
            self.scene.pass_time(stale_seconds)
            self.scene.report([])
        assert model.undistributed_wei == 0, f"{float(model.undistributed_wei)} wei should have been paid out"
        assert self.scene.rewards.undistributed() == 0, f"{self.scene.rewards.undistributed()} wei are stranded"
        self.stranded_wei = self._check_everything()

    def _let_the_stream_end(self) -> None:
        scene = self.scene
        assert scene.stream is not None
        scene.pass_time(max(0, scene.stream.started_at + scene.stream.duration_seconds - scene.now))
        self.bind()
        if self.is_paused:
            self.pause_or_unpause()
        scene.pull()
        assert scene.withdrawable_wei() == 0
        assert scene.model.funded_wei >= self.terms.bootstrap_wei

    def _bring_everybody_online(self) -> None:
        scene = self.scene
        if all(node.retired for node in scene.model.nodes.values()):
            scene.register(scene.around.operators[0], RESERVE_WEI, 1)
        last_void = max(node.void_until for node in scene.model.nodes.values())
        scene.pass_time(max(0, last_void - scene.now))
        scene.report([Change(node_id=node_id, online=True) for node_id in scene.model.nodes])


def gain_by_splitting(seed: int, *, parts: int) -> tuple[int, int]:
    """I8: one story twice, the second time with stakes split into `parts` nodes, and with calls in between that change
    nothing. Returns the most wei that an operator's stake gained by it, and how many calls there were more."""
    plain_wei, plain_calls = _story(seed, parts=1, idle_calls=0)
    split_wei, split_calls = _story(seed, parts=parts, idle_calls=2)
    gains_wei = [split - plain for plain, split in zip(plain_wei, split_wei, strict=True)]
    return max(*gains_wei, sum(gains_wei)), split_calls - plain_calls


def _story(seed: int, *, parts: int, idle_calls: int) -> tuple[list[int], int]:
    """What each of a few stakes earned, whose nodes are reported alike."""
    draw = random.Random(seed)
    with boa.env.anchor():
        boa.env.evm.patch.timestamp = FIRST_SECOND
        scene = RewardsScene(RewardTerms(bootstrap_wei=draw.randint(1, 10**24), bootstrap_seconds=5 * DAY_SECONDS + 1))
        scene.start_stream(4 * DAY_SECONDS)
        scene.bind_stream()
        stakes = [_register_parts(scene, draw.randint(200_000, 900_000) * 10**18 // 60 * 60, parts) for _ in range(3)]
        for _ in range(STORY_EVENTS):
            stake, online = draw.choice(stakes), draw.random() < 0.7
            scene.report([Change(node_id=node_id, online=online) for node_id in stake])
            if draw.random() < 0.3:
                scene.income(draw.randint(1, 10**22))
                scene.pull()
            _pass_time_with_idle_calls(scene, draw.randint(3, 30_000), idle_calls)
        scene.pull()
        return [sum(map(scene.lifetime_wei, stake)) for stake in stakes], scene.checkpoints


def _register_parts(scene: RewardsScene, stake_wei: int, parts: int) -> list[int]:
    return [scene.register(scene.around.operators[0], stake_wei // parts, 2) for _ in range(parts)]


def _pass_time_with_idle_calls(scene: RewardsScene, seconds: int, idle_calls: int) -> None:
    for number in range(idle_calls):
        scene.pass_time(seconds // (idle_calls + 1))
        if number % 2:
            scene.pull()
        else:
            scene.sync(1)
    scene.pass_time(seconds - seconds // (idle_calls + 1) * idle_calls)


def run_the_whole_supply(*, nodes: int = NODES_OF_THE_SUPPLY) -> Fraction:
    """The whole supply staked in as many nodes as it admits, one of which leaves and gives its stake away as rewards.
    Returns the most any node was off, in wei; takes about a minute."""
    with boa.env.anchor():
        boa.env.evm.patch.timestamp = FIRST_SECOND
        scene = RewardsScene(RewardTerms(bootstrap_wei=20_000 * 10**18, bootstrap_seconds=DAY_SECONDS))
        roles, token, owner = scene.around.roles, scene.around.token, scene.around.operators[0]
        for number in range(nodes):
            scene.register(owner, SUPPLY_WEI // nodes, 1 + number % 4)
        assert scene.locker.totalPrincipal() == SUPPLY_WEI
        _report_all(scene, online=True)
        scene.retire(nodes)
        scene.pass_time(COOLDOWN_SECONDS)
        scene.withdraw_stake(nodes)
        token.transfer(roles.deployer, token.balanceOf(owner), sender=owner)
        scene.start_stream(3_600)
        scene.bind_stream()
        _report_all(scene, online=True)
        for seconds in (12, 3_600, 7_200, 1):
            scene.pass_time(seconds)
            scene.income(1_000 * 10**18 + seconds)
            scene.report([Change(node_id=1 + seconds % nodes, online=False)])
        scene.pass_time(21_600)
        scene.claim(1)
        scene.check_totals()
        lifetimes_wei = {node_id: scene.lifetime_wei(node_id) for node_id in scene.model.nodes}
        assert 0 <= scene.dust_wei(sum(lifetimes_wei.values())) <= nodes
        return max(abs(scene.exact_wei(node_id) - earned_wei) for node_id, earned_wei in lifetimes_wei.items())


def _report_all(scene: RewardsScene, *, online: bool) -> None:
    node_ids = [node_id for node_id, node in scene.model.nodes.items() if not node.retired]
    for begin in range(0, len(node_ids), CHANGES_MAX):
        scene.report([Change(node_id=node_id, online=online) for node_id in node_ids[begin : begin + CHANGES_MAX]])
