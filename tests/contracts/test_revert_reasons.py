"""No refusal of ours goes unseen: each reason that a contract can give stands in a test that has it raised."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from sources import SOURCES

REASON = re.compile(r'"((?:prlx|anchor|locker|rewards|vault): [^"]+)"')
HERE = Path(__file__).resolve()


def reasons_in_sources() -> list[str]:
    return sorted({reason for path in SOURCES.glob("*.vy") for reason in REASON.findall(path.read_text())})


def reasons_in_tests() -> set[str]:
    tests = (path for path in HERE.parent.rglob("*.py") if path != HERE)
    return {reason for path in tests for reason in REASON.findall(path.read_text())}


@pytest.mark.parametrize("reason", reasons_in_sources())
def test_a_test_has_it_raised(reason: str) -> None:
    assert reason in reasons_in_tests()


def test_the_sources_give_reasons() -> None:
    assert len(reasons_in_sources()) > 60
