from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from parallelix.devnet.report import Report


def written(path: Path) -> dict[str, object]:
    return json.loads(path.read_text())


def test_a_report_says_what_was_run_where_and_what_came_of_it(tmp_path: Path) -> None:
    report = Report("speed", "make speed", seed=7)
    report.control("a slow one", True)

    code = report.write(tmp_path / "new" / "speed.json", {"per_second": {32: 5}}, passed=True)

    found = written(tmp_path / "new" / "speed.json")
    assert code == 0
    assert list(found) == ["commit", "command", "seed", "machine", "load", "results", "controls", "passed"]
    assert found["command"] == "make speed" and found["seed"] == 7 and found["passed"] is True
    assert found["results"] == {"per_second": {"32": 5}}
    assert found["controls"] == [{"name": "a slow one", "caught": True}]


@pytest.mark.parametrize(
    ("passed", "caught", "code"),
    [(True, [True], 0), (False, [True], 1), (True, [True, False], 1), (True, [], 1)],
)
def test_it_passes_only_when_every_control_was_caught_and_there_is_one(
    tmp_path: Path, passed: bool, caught: list[bool], code: int
) -> None:
    report = Report("speed", "make speed")
    for each in caught:
        report.control("a fault", each)

    assert report.write(tmp_path / "speed.json", {}, passed=passed) == code
    assert written(tmp_path / "speed.json")["passed"] is (code == 0)


def test_the_commit_is_named_and_so_are_changes_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Report("x", "x").document({}, True)["commit"] == ""

    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b.example", "-c", "commit.gpgsign=false")
        return subprocess.run(("git", *identity, *arguments), check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    (tmp_path / "file").write_text("one")
    git("add", "file")
    git("commit", "--quiet", "--no-verify", "--message", "one")
    assert Report("x", "x").document({}, True)["commit"] == git("rev-parse", "HEAD")
    (tmp_path / "file").write_text("two")
    assert Report("x", "x").document({}, True)["commit"] == git("rev-parse", "HEAD") + "+changes"
