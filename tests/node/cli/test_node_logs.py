from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
from node_scene import Operate

from parallelix.node import logging as node_logging
from parallelix.node.answers import LogLine
from parallelix.node.home import Home
from parallelix.node.logging import format_line, open_log
from parallelix.node.logs import follow, parse_line, tail

AT = 1_795_246_707.674


@pytest.fixture(autouse=True)
def closed_log() -> Iterator[None]:
    yield
    logger = logging.getLogger(node_logging.LOGGER_NAME)
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()


@pytest.fixture
def folder(home: Home) -> Home:
    home.root.mkdir(mode=0o700)
    return home


def lines(home: Home) -> list[str]:
    """Without their times."""
    return [line.split(" ", 1)[1] for line in home.log.read_text().splitlines()]


def test_a_line_reads_as_promised() -> None:
    fields = {"subject": "req_a3f1", "model": "llama3.2", "ms": 47, "poe": "0x9c27a4"}
    assert format_line(AT, "served", fields) == (
        "2026-11-21T07:38:27.674Z served req_a3f1 model=llama3.2 ms=47 poe=0x9c27a4"
    )


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("two words", '"two words"'),
        ("", '""'),
        ('quo"te', '"quo\\"te"'),
        ("a=b", '"a=b"'),
        ("line\nbreak", '"line\\nbreak"'),
        ("\x1b[31mred", '"\\u001b[31mred"'),
        ("\x9b31mred", '"\\u009b31mred"'),
        (True, "true"),
        (47, "47"),
        ("é ü", '"é ü"'),
    ],
)
def test_values_survive_writing_and_reading(value: object, written: str) -> None:
    line = format_line(AT, "event", {"reason": value})
    assert line.endswith(f"event reason={written}")
    assert parse_line(line).fields == {"reason": str(value).lower() if value is True else str(value)}


def test_what_has_no_name_in_the_log_is_withheld(folder: Home) -> None:
    log = open_log(folder)
    log.info("served", subject="req_a3f1", prompt="what is my salary", node_secret="ab" * 32, ms=47)
    log.warning("attempt.failed", exc_info=True, text="an answer")
    try:
        raise ValueError("the prompt itself")
    except ValueError:
        log.exception("broken", error="ValueError")
    assert lines(folder) == [
        "served req_a3f1 prompt=(withheld) node_secret=(withheld) ms=47",
        "attempt.failed text=(withheld) level=warning",
        "broken error=ValueError level=error",
    ]


def test_a_long_value_is_cut(folder: Home) -> None:
    open_log(folder).info("event", reason="x" * 5000)
    assert lines(folder) == [f"event reason={'x' * 300}…"]


def test_the_log_is_private_whatever_the_umask(folder: Home) -> None:
    old = os.umask(0)
    try:
        open_log(folder).info("event")
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.log.stat().st_mode) == 0o600


def test_the_log_rotates_at_its_bound_and_keeps_five_files(folder: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node_logging, "LOG_BYTES_MAX", 500)
    log = open_log(folder)
    for number in range(200):
        log.info("served", subject=f"req_{number:04}", ms=number)
    names = sorted(path.name for path in folder.root.iterdir())
    assert names == ["node.log", "node.log.1", "node.log.2", "node.log.3", "node.log.4"]
    assert all(path.stat().st_size <= 500 for path in folder.root.iterdir())
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in folder.root.iterdir())
    assert lines(folder)[-1] == "served req_0199 ms=199"


def test_the_real_bounds_are_five_files_of_ten_mebibytes() -> None:
    assert (node_logging.LOG_BYTES_MAX, node_logging.LOG_FILES_MAX) == (10 * 1024 * 1024, 5)


@pytest.mark.parametrize("count", [0, 1, 3, 7, 9, 10, 1000])
def test_a_tail_goes_on_into_older_files(tmp_path: Path, count: int) -> None:
    everything = [f"line {number}" for number in range(9)]
    for name, part in (("node.log.2", everything[:2]), ("node.log.1", everything[2:6]), ("node.log", everything[6:])):
        (tmp_path / name).write_text("".join(f"{line}\n" for line in part))
    assert tail(tmp_path / "node.log", count=count) == (everything[-count:] if count else [])


def test_a_tail_of_a_big_file_reads_its_end_only(tmp_path: Path) -> None:
    everything = [f"line {number} {'x' * 90}" for number in range(5000)]
    (tmp_path / "node.log").write_text("\n".join(everything) + "\n")
    assert tail(tmp_path / "node.log", count=1500) == everything[-1500:]


class Script:
    """Stands in for waiting: each time the follower waits, the next thing happens to the log; then it is over."""

    class Over(Exception):
        pass

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)

    def __call__(self, _seconds: float) -> None:
        if not self.steps:
            raise Script.Over
        step = self.steps.pop(0)
        assert callable(step)
        step()


def followed(log: Path, script: Script, *, count: int = 10) -> list[str]:
    found: list[str] = []
    with pytest.raises(Script.Over):
        for line in follow(log, count=count, pause=script):
            found.append(line)
    return found


def append(path: Path, text: str) -> object:
    def step() -> None:
        with path.open("a") as file:
            file.write(text)

    return step


def rotate(path: Path) -> object:
    def step() -> None:
        path.rename(path.with_name("node.log.1"))
        path.touch()

    return step


def test_following_begins_with_the_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_text("one\ntwo\nthree\n")
    assert followed(log, Script(append(log, "four\n")), count=2) == ["two", "three", "four"]


def test_following_survives_rotation_and_loses_no_line(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_text("one\n")

    def last_words_then_rotate() -> None:
        with log.open("a") as file:
            file.write("two\n")
        log.rename(tmp_path / "node.log.1")
        log.write_text("three\n")

    script = Script(last_words_then_rotate, append(log, "four\n"), rotate(log), append(log, "five\n"))
    assert followed(log, script) == ["one", "two", "three", "four", "five"]


def test_following_waits_for_a_log_that_is_not_there_yet(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    assert followed(log, Script(append(log, "one\n"), append(log, "two\n"))) == ["one", "two"]


def test_following_shows_whole_lines_only(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.touch()
    assert followed(log, Script(append(log, "served req_"), append(log, "a3f1\nserv"))) == ["served req_a3f1"]


def test_following_starts_again_in_a_file_that_was_emptied(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_text("one\ntwo\n")
    script = Script(lambda: log.write_text("three\n"))
    assert followed(log, script, count=1) == ["two", "three"]


def test_a_line_without_end_is_shown_in_pieces(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.touch()
    found = followed(log, Script(append(log, "x" * 200_000)))
    assert found and set("".join(found)) == {"x"}


@pytest.mark.parametrize(
    ("line", "parsed"),
    [
        (
            "2026-11-21T07:38:27.674Z served req_a3f1 model=llama3.2 ms=47",
            LogLine(
                time="2026-11-21T07:38:27.674Z",
                event="served",
                subject="req_a3f1",
                fields={"model": "llama3.2", "ms": "47"},
            ),
        ),
        (
            '2026-11-21T07:38:27.674Z rejected "odd subject" reason="wrong \\"proof\\""',
            LogLine(
                time="2026-11-21T07:38:27.674Z",
                event="rejected",
                subject="odd subject",
                fields={"reason": 'wrong "proof"'},
            ),
        ),
        ("2026-11-21T07:38:27.674Z link.up", LogLine(time="2026-11-21T07:38:27.674Z", event="link.up")),
        ("Traceback (most recent call last):", LogLine(time="", event="Traceback (most recent call last):")),
        ("", LogLine(time="", event="")),
    ],
)
def test_lines_are_read_back_as_parts(line: str, parsed: LogLine) -> None:
    assert parse_line(line) == parsed


def test_a_log_cannot_steer_the_terminal(folder: Home, operate: Operate) -> None:
    folder.log.write_text("2026-11-21T07:38:27.674Z event \x1b]0;owned\x07\n")
    shown = operate("logs").out
    assert "\x1b" not in shown and "\x07" not in shown and "owned" in shown


def test_without_a_log_the_command_says_who_writes_it(home: Home, operate: Operate) -> None:
    refused = operate("logs")
    assert refused.code == 1 and "`parallelix-node start` writes it" in refused.err


@pytest.mark.parametrize("count", ["-1", "1000001", "many"])
def test_an_odd_number_of_lines_is_refused(home: Home, operate: Operate, count: str) -> None:
    assert operate("logs", "-n", count).code == 2


def test_the_first_lines_of_a_follow_can_be_taken_alone(tmp_path: Path) -> None:
    log = tmp_path / "node.log"
    log.write_text("one\ntwo\n")
    assert list(islice(follow(log, count=1), 1)) == ["two"]
