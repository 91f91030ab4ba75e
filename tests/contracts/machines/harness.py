"""What the state machines of all contracts share: they run the contract and its model side by side, count how often
each rule succeeded and was refused, and can be pointed at a contract with a planted bug.

A run is named by its seed and its number of state-changing calls, so that a failure can be run again.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Generator, Sequence
from typing import Any, ClassVar, Protocol, TypeVar

import boa
import hypothesis
from hypothesis.stateful import RuleBasedStateMachine, get_state_machine_test
from sources import contract_source, deployer_of, replaced_source

T = TypeVar("T")

STEPS_PER_EXAMPLE = 50
"""Long enough for a node's whole life beside others, short enough that a failure reads well."""
EXAMPLES_PER_ROUND_MIN, EXAMPLES_PER_ROUND_MAX = 5, 100
"""Between two looks at how many calls were made. The first example of a round repeats its simplest rule, so rounds are
as long as the calls that are missing; the longest is about a minute."""


class RuleNeverRefused(AssertionError):
    """A rule that only ever succeeded, or only ever was refused, proves nothing."""


@dataclasses.dataclass(slots=True)
class Outcomes:
    succeeded: int = 0
    reverted: int = 0


@dataclasses.dataclass(slots=True)
class Tally:
    """What a run did: state-changing calls, outcomes by rule, and how often each revert reason was seen."""

    calls: int = 0
    rules: dict[str, Outcomes] = dataclasses.field(default_factory=lambda: collections.defaultdict(Outcomes))
    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter[str])

    def require_both_outcomes(self) -> None:
        """Raises `RuleNeverRefused` unless each rule was seen to succeed and to be refused."""
        one_sided = {name: seen for name, seen in self.rules.items() if not (seen.succeeded and seen.reverted)}
        if one_sided:
            raise RuleNeverRefused(f"after {self.calls} calls these rules had one outcome only: {one_sided}")

    def add(self, other: Tally) -> None:
        self.calls += other.calls
        self.reasons.update(other.reasons)
        for name, seen in other.rules.items():
            self.rules[name].succeeded += seen.succeeded
            self.rules[name].reverted += seen.reverted


class ContractMachine(RuleBasedStateMachine):
    """Base of each contract's machine: `attempt` makes the calls, chain state starts afresh with each example."""

    tally: ClassVar[Tally] = Tally()

    def __init__(self) -> None:
        super().__init__()
        self._anchor = contextlib.ExitStack()
        self._anchor.enter_context(boa.env.anchor())

    def teardown(self) -> None:
        self._anchor.close()
        super().teardown()

    def attempt(self, rule: str, call: Callable[[], T], *, refusal: str | None) -> T | None:
        """Makes one state-changing call. With `refusal` None it must succeed; else it must revert with exactly that."""
        tally = type(self).tally
        tally.calls += 1
        if refusal is None:
            answer = call()
            tally.rules[rule].succeeded += 1
            return answer
        try:
            call()
        except boa.BoaError as error:
            assert revert_reason(error) == refusal, f"{rule}: expected {refusal!r}, got {revert_reason(error)!r}"
        else:
            raise AssertionError(f"{rule}: expected to be refused with {refusal!r}, but it succeeded")
        tally.rules[rule].reverted += 1
        tally.reasons[refusal] += 1
        return None


def revert_reason(error: boa.BoaError) -> str:
    """The string a call reverted with; of an error without one, what the virtual machine said."""
    detail = error.stack_trace.last_frame
    return str(getattr(detail, "pretty_vm_reason", detail))


def run_machine(machine: type[ContractMachine], *, calls: int, seed: int, shrink: bool = True) -> Tally:
    """Runs the machine until at least `calls` state-changing calls were made. The same seed makes the same calls."""
    total = Tally()
    phases = [hypothesis.Phase.generate] + [hypothesis.Phase.shrink] * shrink
    base_settings = hypothesis.settings(
        stateful_step_count=STEPS_PER_EXAMPLE,
        deadline=None,
        database=None,
        phases=phases,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=[
            hypothesis.HealthCheck.data_too_large,
            hypothesis.HealthCheck.filter_too_much,
            hypothesis.HealthCheck.large_base_example,
            hypothesis.HealthCheck.too_slow,
        ],
    )
    for round_number in range(calls):
        missing_examples = (calls - total.calls) // STEPS_PER_EXAMPLE
        examples = min(max(missing_examples, EXAMPLES_PER_ROUND_MIN), EXAMPLES_PER_ROUND_MAX)
        settings = hypothesis.settings(base_settings, max_examples=examples)
        counted = type(machine.__name__, (machine,), {"tally": Tally()})
        test = hypothesis.seed(seed * 1_000_003 + round_number)(get_state_machine_test(counted, settings=settings))
        test()
        total.add(counted.tally)
        if total.calls >= calls:
            break
    return total


class Check(Protocol):
    """Something that fails with an AssertionError, a revert or a Hypothesis failure when a rule is broken."""

    def __call__(self) -> object: ...


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Mutant:
    """One planted bug: `before`, which stands exactly once in the contract's source, becomes `after`.

    `check` is what must fail on it; it deploys through `sources.deployer_of`, as everything here does.
    """

    invariant: str
    name: str
    contract: str
    before: str
    after: str
    check: Check

    def __str__(self) -> str:
        return f"{self.invariant}-{self.name}"


class MutantSurvived(AssertionError):
    """The suite did not notice a planted bug."""


def one_of_each_invariant(mutants: Sequence[Mutant]) -> list[Mutant]:
    """The first of each: as many as there is time for in every run, two seconds of compiling each."""
    first: dict[str, Mutant] = {}
    for mutant in mutants:
        first.setdefault(mutant.invariant, mutant)
    return list(first.values())


def must_catch(mutant: Mutant) -> None:
    """Raises `MutantSurvived` unless the mutant's check fails on the mutated contract. A check that breaks by a bug of
    its own has noticed nothing: that error goes on."""
    with planted(mutant):
        try:
            mutant.check()
        except (AssertionError, boa.BoaError):
            return
    raise MutantSurvived(f"{mutant}: {mutant.contract} with {mutant.after!r} instead of {mutant.before!r} passed")


@contextlib.contextmanager
def planted(mutant: Mutant) -> Generator[None]:
    source = contract_source(mutant.contract)
    found = source.count(mutant.before)
    assert found == 1, f"{mutant}: {mutant.before!r} stands {found} times in {mutant.contract}"
    with replaced_source(mutant.contract, source.replace(mutant.before, mutant.after)):
        deployer_of(mutant.contract)
        yield


def contract_state(contract: Any, *views: str) -> dict[str, Any]:
    """The answers of the named views without arguments, to compare before and after a refusal."""
    return {view: getattr(contract, view)() for view in views}
