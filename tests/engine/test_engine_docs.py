"""`docs/engine.md` says what the code does: its tables are made from the code here and must stand there so."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from world import World

from parallelix.engine import lifecycle
from parallelix.engine.settings import HOUR_MS, MINUTE_MS, SECOND_MS, EngineSettings

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "engine.md").read_text()


def table(heads: list[str], rows: list[list[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def named(states: frozenset[lifecycle.RequestState] | frozenset[lifecycle.AttemptState]) -> str:
    return ", ".join(f"`{state}`" for state in sorted(states)) or "nothing: it is final"


def in_words(milliseconds: int) -> str:
    for unit, size in (("h", HOUR_MS), ("min", MINUTE_MS), ("s", SECOND_MS)):
        if milliseconds % size == 0:
            return f"{milliseconds // size} {unit}"
    return f"{milliseconds} ms"


def default(name: str, value: int) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return in_words(value) if "_ms" in name and not name.endswith("per_ms") else f"{value:,}"


def shown(heading: str, made: str) -> None:
    assert made in PAGE, f"docs/engine.md, {heading}: the table must read\n\n{made}"


def test_the_states_of_a_request_are_those_of_the_code() -> None:
    rows = [[f"`{state}`", named(after)] for state, after in lifecycle.REQUEST_TRANSITIONS.items()]
    shown("The states of a request", table(["a request that is", "may become"], rows))


def test_the_states_of_an_attempt_are_those_of_the_code() -> None:
    rows = [
        [f"`{state}`", named(after), "yes" if state in lifecycle.COUNTED_ATTEMPTS else "not yet" if after else "no"]
        for state, after in lifecycle.ATTEMPT_TRANSITIONS.items()
    ]
    shown("The states of an attempt", table(["an attempt that is", "may become", "uses up one of three"], rows))


def test_what_always_holds_is_what_the_tests_check() -> None:
    elsewhere = {2, 9}
    """A check on the types that the engine is given, and the rule `restart`."""
    checked = {int(name.split("_")[1]) for name in dir(World) if name.startswith("check_") and name[6].isdigit()}
    said = re.findall(r"^\| (\d+) \| ", PAGE, flags=re.MULTILINE)
    assert sorted(map(int, said)) == sorted(checked | elsewhere)


def test_every_time_and_bound_is_there_with_its_default() -> None:
    rows = [
        [f"`{field.name}`", default(field.name, field.default)]
        for field in dataclasses.fields(EngineSettings)
        if isinstance(field.default, int)
    ]
    shown("Times and bounds", table(["setting", "default"], rows))
