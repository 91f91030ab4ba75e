"""`python -m bench.contracts_long --shard 1/2 --report reports/contracts-long.json`: the contracts beside their models,
for as long as it takes.

The work is a fixed list of units: a thousand calls of one contract's state machine, or fifty schedules of rewards
against exact fractions, each under a seed of its own. Shard i of n does every nth unit, for at most `--minutes`; what
is done is noted in `--folder` and not done again, so a run that ended early goes on where it stopped and the shards of
one machine add up. Notes taken with other contracts or other tests are set aside: the folder of each has its own name.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from parallelix.devnet.report import Report

REPOSITORY = Path(__file__).resolve().parent.parent
MACHINES = REPOSITORY / "tests" / "contracts" / "machines"
sys.path[:0] = [str(MACHINES), str(MACHINES.parent), str(MACHINES.parent.parent)]

CALLS_PER_UNIT = 1_000
SCHEDULES_PER_UNIT = 50
CALLS_WANTED = {
    "NodeRegistryLocker": 200_000,
    "OperatorStakeRewardsV2": 200_000,
    "CreditVault": 200_000,
    "PRLX": 20_000,
    "ExecutionAnchor": 20_000,
}
SCHEDULES_WANTED = 5_000
DIFFERENTIAL = "differential"
MINUTES = 60.0


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """One piece of work: `part` is a contract or the differential, `number` decides its seed."""

    part: str
    number: int


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What one unit did. `failure` is empty, or how to see it again."""

    unit: Unit
    calls: int = 0
    rules: dict[str, tuple[int, int]] = {}
    reasons: dict[str, int] = {}
    schedules: int = 0
    max_error_wei: float = 0.0
    stranded_wei: float = 0.0
    failure: str = ""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.contracts_long", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shard", type=shard_of, default=(1, 1), metavar="i/n")
    parser.add_argument("--minutes", type=float, default=MINUTES)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "reports" / "contracts-long")
    parser.add_argument("--report", type=Path, default=Path("reports/contracts-long.json"))
    options = parser.parse_args(arguments)
    report = Report("contracts-long", " ".join(("python -m bench.contracts_long", *arguments)), seed=0)
    notes = options.folder / sources_digest()[:16]
    notes.mkdir(parents=True, exist_ok=True)
    run_shard(notes, options.shard, options.minutes * 60.0, say=print)
    done = list(read_notes(notes))
    caught = catch_mutants(say=print)
    for name, was_caught in caught.items():
        report.control(name, was_caught)
    results = results_of(done, caught)
    code = report.write(options.report, results, passed=not any(each.failure for each in done))
    print_summary(results)
    return code


def shard_of(text: str) -> tuple[int, int]:
    """`2/3` as (2, 3). Raises `argparse.ArgumentTypeError`."""
    if not (found := re.fullmatch(r"([0-9]+)/([0-9]+)", text)) or not 1 <= int(found[1]) <= int(found[2]):
        raise argparse.ArgumentTypeError(f"{text!r} is no shard: give i/n with 1 <= i <= n, such as 1/2")
    return int(found[1]), int(found[2])


def units() -> list[Unit]:
    """All of the work, mixed so that a run which ends early has done the same share of every part."""
    shares: list[tuple[float, Unit]] = []
    for part, wanted in CALLS_WANTED.items():
        count = wanted // CALLS_PER_UNIT
        shares += [((number + 0.5) / count, Unit(part=part, number=number)) for number in range(count)]
    count = SCHEDULES_WANTED // SCHEDULES_PER_UNIT
    shares += [((number + 0.5) / count, Unit(part=DIFFERENTIAL, number=number)) for number in range(count)]
    return [unit for _, unit in sorted(shares, key=lambda each: (each[0], each[1].part))]


def run_shard(notes: Path, shard: tuple[int, int], seconds: float, *, say: Callable[[str], None]) -> None:
    """Does this shard's units that nobody has done, until the time is up. A unit begun is finished."""
    index, count = shard
    before = {each.unit for each in read_notes(notes)}
    mine = [unit for number, unit in enumerate(units()) if number % count == index - 1]
    left = [unit for unit in mine if unit not in before]
    say(f"shard {index}/{count}: {len(left)} of {len(mine)} units to do, at most {seconds / 60:.0f} minutes")
    started_at = time.monotonic()
    with (notes / f"shard-{index}-of-{count}.jsonl").open("ab") as file:
        for number, unit in enumerate(left, start=1):
            if (spent := time.monotonic() - started_at) >= seconds:
                say(f"shard {index}/{count}: time is up, {len(left) - number + 1} units left; the same command goes on")
                return
            done = run_unit(unit)
            file.write(msgspec.json.encode(done) + b"\n")
            file.flush()
            say(f"{number}/{len(left)} {unit.part} {unit.number} {done.failure or 'held'} ({spent:.0f} s)")


def run_unit(unit: Unit) -> Done:
    try:
        return run_schedules(unit) if unit.part == DIFFERENTIAL else run_calls(unit)
    except Exception as error:
        shown = f"{type(error).__name__}: {str(error).strip()[-300:]}"
        return Done(unit=unit, failure=f"unit {unit.number} of {unit.part} failed: {shown}")


def run_calls(unit: Unit) -> Done:
    from harness import run_machine

    tally = run_machine(machines()[unit.part], calls=CALLS_PER_UNIT, seed=unit.number + 1, shrink=False)
    return Done(
        unit=unit,
        calls=tally.calls,
        rules={name: (seen.succeeded, seen.reverted) for name, seen in tally.rules.items()},
        reasons=dict(tally.reasons),
    )


def run_schedules(unit: Unit) -> Done:
    import rewards_differential

    result = rewards_differential.run_schedules(SCHEDULES_PER_UNIT, seed=unit.number + 1)
    return Done(
        unit=unit,
        schedules=result.schedules,
        max_error_wei=float(result.max_error_wei),
        stranded_wei=float(result.stranded_wei),
    )


def machines() -> dict[str, Any]:
    """Each contract's state machine; imported late, since titanoboa takes seconds to load."""
    from anchor_machine import AnchorMachine
    from locker_machine import LockerMachine
    from prlx_machine import PrlxMachine
    from rewards_machine import RewardsMachine
    from vault_machine import VaultMachine

    return {
        "NodeRegistryLocker": LockerMachine,
        "OperatorStakeRewardsV2": RewardsMachine,
        "CreditVault": VaultMachine,
        "PRLX": PrlxMachine,
        "ExecutionAnchor": AnchorMachine,
    }


def catch_mutants(*, say: Callable[[str], None]) -> dict[str, bool]:
    """Every planted bug, by name, and whether the suite noticed it."""
    from harness import MutantSurvived, must_catch
    from mutants import MUTANTS

    caught: dict[str, bool] = {}
    for mutant in MUTANTS:
        try:
            must_catch(mutant)
        except MutantSurvived:
            caught[str(mutant)] = False
        else:
            caught[str(mutant)] = True
        say(f"planted {mutant}: {'caught' if caught[str(mutant)] else 'SURVIVED'}")
    return caught


def read_notes(notes: Path) -> Iterator[Done]:
    """What all shards have done. A last line that a kill cut short is done again."""
    for path in sorted(notes.glob("shard-*.jsonl")):
        for line in path.read_bytes().splitlines():
            try:
                yield msgspec.json.decode(line, type=Done)
            except msgspec.DecodeError:
                continue


def sources_digest() -> str:
    """Names what was tested: the contracts' sources and the machines they are tested by."""
    digest = hashlib.sha256()
    for path in sorted([*(REPOSITORY / "contracts" / "src").rglob("*.vy*"), *MACHINES.glob("*.py")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def results_of(done: list[Done], caught: dict[str, bool]) -> dict[str, Any]:
    contracts: dict[str, Any] = {}
    for part, wanted in CALLS_WANTED.items():
        mine = [each for each in done if each.unit.part == part]
        rules: dict[str, dict[str, int]] = {}
        for each in mine:
            for name, (succeeded, reverted) in each.rules.items():
                counts = rules.setdefault(name, {"succeeded": 0, "reverted": 0})
                counts["succeeded"] += succeeded
                counts["reverted"] += reverted
        calls = sum(each.calls for each in mine)
        contracts[part] = {"calls": calls, "calls_wanted": wanted, "rules": dict(sorted(rules.items()))}
    failures = [each.failure for each in done if each.failure]
    schedules = [each for each in done if each.unit.part == DIFFERENTIAL]
    return {
        "contracts": contracts,
        "invariants": invariants_of(caught, held=not failures),
        "differential": {
            "schedules": sum(each.schedules for each in schedules),
            "schedules_wanted": SCHEDULES_WANTED,
            "max_error_wei": max((each.max_error_wei for each in schedules), default=0.0),
            "stranded_wei": max((each.stranded_wei for each in schedules), default=0.0),
        },
        "failures": failures,
    }


def invariants_of(caught: dict[str, bool], *, held: bool) -> dict[str, dict[str, bool]]:
    """`mutant_caught` only where each bug planted against the invariant was noticed."""
    by_invariant: dict[str, list[bool]] = {}
    for name, was_caught in caught.items():
        by_invariant.setdefault(name.partition("-")[0], []).append(was_caught)
    numbered = sorted(by_invariant.items(), key=lambda each: int(each[0][1:]))
    return {name: {"held": held, "mutant_caught": all(found)} for name, found in numbered}


def print_summary(results: dict[str, Any]) -> None:
    for name, each in results["contracts"].items():
        print(f"{name:<24} {each['calls']:>7,} of {each['calls_wanted']:,} calls, {len(each['rules'])} rules")
    differential = results["differential"]
    print(
        f"{'differential':<24} {differential['schedules']:>7,} of {differential['schedules_wanted']:,} schedules, "
        f"error at most {differential['max_error_wei']:.3g} wei, {differential['stranded_wei']:.3g} wei stranded"
    )
    for name, each in results["invariants"].items():
        print(f"{name:<4} {'held' if each['held'] else 'BROKEN'}, planted bugs {each['mutant_caught']}")
    for failure in results["failures"]:
        print(failure)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
