"""One tree of refusals, one table for readers, one engine: all with the same codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from parallelix.coordinator import errors, service
from parallelix.engine import effects

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| `(\w+)` \| (\d{3}) \|", re.MULTILINE)
REFUSED = re.compile(r'Refused\(\s*code="(\w+)"')


def tree(kind: type[errors.ApiError] = errors.ApiError) -> set[tuple[str, int]]:
    found = {(code, kind.status) for code in kind.codes}
    return found.union(*(tree(each) for each in kind.__subclasses__()))


def test_the_table_for_readers_has_every_code_with_its_status() -> None:
    rows = ROW.findall((ROOT / "docs" / "errors.md").read_text())
    assert {(code, int(status)) for code, status in rows} == tree()


def test_the_drawing_at_the_head_has_every_code() -> None:
    drawing = errors.__doc__ or ""
    assert [code for code, _ in tree() if not re.search(rf"\b{code}\b", drawing)] == []


def test_a_code_has_one_status() -> None:
    codes = [code for code, _ in tree()]
    assert len(codes) == len(set(codes))


def codes_of_the_engine() -> list[str]:
    files = (ROOT / "src" / "parallelix" / "engine").glob("*.py")
    return sorted({code for file in files for code in REFUSED.findall(file.read_text())})


def test_the_engine_refuses_under_codes() -> None:
    assert {"insufficient_credits", "attempt_closed", "not_your_attempt", "stale_time"} <= {*codes_of_the_engine()}


@pytest.mark.parametrize("code", codes_of_the_engine())
def test_what_the_engine_refuses_reaches_the_caller_under_its_own_code(code: str) -> None:
    error = service.api_error(effects.Refused(code=code, message="because", retry_after_seconds=2.5))
    assert (error.code, error.message, error.retry_after_seconds) == (code, "because", 2.5)
    assert 400 <= error.status < 600
