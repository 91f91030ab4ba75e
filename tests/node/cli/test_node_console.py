from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from node_scene import Operate

from parallelix.node.console import PIPE_COLUMNS, Console, two_columns, wrapped
from parallelix.node.home import Home

HASH = "0x" + "9c27a4" * 10 + "9c27"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def on_a_terminal(arguments: list[str], environment: dict[str, str]) -> str:
    """What a command prints when its output is a real terminal of 80 columns."""
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "parallelix.node", *arguments]
    with subprocess.Popen(command, env=os.environ | environment, stdout=follower, stderr=follower, close_fds=True):
        os.close(follower)
        shown = b""
        while True:
            try:
                block = os.read(leader, 65536)
            # How Linux says that the other end closed its terminal.
            except OSError:
                break
            if not block:
                break
            shown += block
    os.close(leader)
    return shown.decode()


def test_a_terminal_gets_colour_and_a_pipe_does_not(home: Home, operate: Operate) -> None:
    environment = {"PARALLELIX_HOME": str(home.root), "TERM": "xterm-256color", "COLUMNS": "80"}
    assert "\x1b[2m//\x1b[0m node status" in on_a_terminal(["status"], environment)
    assert "\x1b" not in operate("status").out


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colour_can_be_switched_off(home: Home, environment: dict[str, str]) -> None:
    shown = on_a_terminal(["status"], {"PARALLELIX_HOME": str(home.root), "TERM": "xterm"} | environment)
    assert "// node status" in shown and "\x1b" not in shown


def test_an_error_on_a_terminal_is_broken_at_words(home: Home) -> None:
    environment = {"PARALLELIX_HOME": str(home.root), "COLUMNS": "80", "NO_COLOR": "1"}
    lines = on_a_terminal(["init", "--wallet", "ab" * 32], environment).splitlines()
    assert len(lines) > 2
    assert all(len(line) <= 80 for line in lines)


def test_an_error_in_a_pipe_is_one_line(operate: Operate) -> None:
    refused = operate("init", "--wallet", "ab" * 32)
    assert refused.out == "" and len(refused.err.splitlines()) == 1


def test_a_value_too_wide_for_its_line_goes_whole_below_its_label() -> None:
    assert list(two_columns("· nodeKeyHash", HASH, label_columns=16, columns=80)) == ["· nodeKeyHash", f"   {HASH}"]
    assert list(two_columns("· nodeKeyHash", HASH, label_columns=16, columns=PIPE_COLUMNS)) == [
        f"· nodeKeyHash    {HASH}"
    ]


def test_paths_and_hashes_are_never_broken() -> None:
    assert wrapped(f"the node {HASH} is orphaned", columns=40) == ["the node", HASH, "is orphaned"]


def test_a_live_line_is_written_over_and_ended_before_the_next_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    console = Console(terminal, io.StringIO())
    console.live("active · heartbeats 1")
    console.live("active · heartbeats 2")
    console.done("stopped")
    assert terminal.getvalue() == "\r\x1b[2K● active · heartbeats 1\r\x1b[2K● active · heartbeats 2\n✓ stopped\n"


def test_a_live_line_never_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    terminal = Terminal()
    Console(terminal, io.StringIO()).live("x" * 500)
    assert len(terminal.getvalue().rpartition("\x1b[2K")[2]) < 80


def test_without_a_terminal_nothing_is_written_over() -> None:
    pipe = io.StringIO()
    Console(pipe, io.StringIO()).live("active")
    assert pipe.getvalue() == ""


def test_the_words_of_a_stranger_steer_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    out, err = Terminal(), Terminal()
    console = Console(out, err)
    words = "in_cooldown\x1b]0;owned\x07\x1b[2J\u202e\x9b31m\r"
    console.warn(words)
    console.fact(words, words, label_columns=4)
    console.marked("✗", "name", words, label_columns=4)
    console.note(words)
    console.error("node.code", words)
    shown = out.getvalue() + err.getvalue()
    assert not {"\x1b", "\x07", "\u202e", "\x9b", "\r"} & set(shown)
    console.live(words)
    assert out.getvalue().count("\x1b") == 1, "its own way to clear the line"


def test_a_terminal_that_knows_no_symbols_shows_something_else(home: Home, tmp_path: Path) -> None:
    environment = os.environ | {"PARALLELIX_HOME": str(home.root), "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "parallelix.node", "status"], env=environment, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"? coordinator" in done.stdout
