"""`parallelix coordinator`: from an empty folder to a key that works, with real processes."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest
from client_scene import Operate, matches_golden, matches_schema, with_fixed_values

from parallelix.client import config as configs
from parallelix.client.answers import RunAnswer
from parallelix.client.commands import coordinator as coordinator_commands
from parallelix.coordinator import local
from parallelix.coordinator.settings import load
from parallelix.coordinator.store.store import Store
from parallelix.terminal import Console


@contextmanager
def running(*options: str) -> Generator[str]:
    """A coordinator of its own process, at the URL that it gives, until SIGTERM."""
    command = [sys.executable, "-m", "parallelix.client", "coordinator", "run", "--port", "0", "--json", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield matches_schema("coordinator-run", line)["url"]
        finally:
            process.send_signal(signal.SIGTERM)
            log = process.stderr.read()
        assert process.wait() == 0
        assert all(json.loads(each)["event"] for each in log.splitlines())


def default_folder() -> Path:
    return configs.folder() / "coordinator"


def test_from_nothing_to_a_key_that_works_and_is_revoked(operate: Operate, monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as url:
        monkeypatch.setenv("PARALLELIX_URL", url)
        granted, as_json = (
            operate("coordinator", "grant", "you", "100prlx"),
            operate("coordinator", "grant", "you", "5wei", "--json"),
        )
        assert (granted.code, granted.err) == (0, "")
        matches_golden("coordinator-grant", granted.out)
        assert matches_schema("coordinator-grant", as_json.out) == {
            "account": "you",
            "amount_wei": "5",
            "applied": True,
        }

        shown = operate("coordinator", "key", "you", "--name", "laptop", "--budget", "10prlx", "--days", "30")
        assert (shown.code, shown.err) == (0, "")
        matches_golden("coordinator-key", with_fixed_values(shown.out))
        made = matches_schema(
            "coordinator-key", operate("coordinator", "key", "you", "--concurrency", "3", "--json").out
        )
        assert (made["account"], made["concurrency"], made["applied"]) == ("you", 3, True)
        monkeypatch.setenv("PARALLELIX_API_KEY", made["api_key"])
        account = json.loads(operate("account", "--json").out)
        assert (account["available_wei"], account["key"]["id"]) == (str(100 * 10**18 + 5), made["id"])
        assert "none: whoever runs the coordinator" in operate("models").out
        assert "offers none" in operate("ask", "hi").err

        listed = operate("coordinator", "key", "--list")
        matches_golden("coordinator-key-list", with_fixed_values(listed.out))
        keys = matches_schema("coordinator-key-list", operate("coordinator", "key", "--list", "--json").out)["keys"]
        assert {key["name"]: key["budget_wei"] for key in keys} == {"laptop": str(10 * 10**18), "": "0"}
        assert made["api_key"] not in listed.out

        revoked = operate("coordinator", "key", "--revoke", made["id"], "--json")
        assert matches_schema("coordinator-key-revoke", revoked.out) == {"id": made["id"], "applied": True}
        assert operate("account", "--json").error["error"] == "revoked_key"
        unknown = operate("coordinator", "key", "--revoke", "key_none", "--json")
        assert (unknown.code, unknown.error["error"]) == (1, "coordinator.refused")


def test_what_is_asked_while_it_is_down_holds_once_it_starts(operate: Operate, monkeypatch: pytest.MonkeyPatch) -> None:
    configs.make_folder()
    default_folder().mkdir(mode=0o700)
    Store.open(f"sqlite:///{default_folder() / 'coordinator.db'}").close()
    monkeypatch.setattr(local, "SILENT_SECONDS", 0.0)
    granted = operate("coordinator", "grant", "you", "7wei")
    made = json.loads(operate("coordinator", "key", "you", "--json").out)
    assert "when one starts" in granted.err
    assert made["applied"] is False
    with running() as url:
        monkeypatch.setenv("PARALLELIX_API_KEY", made["api_key"])
        monkeypatch.setenv("PARALLELIX_URL", url)
        # Commands left before a start are applied in the first moments after it.
        operate("coordinator", "grant", "somebody", "1wei")
        assert json.loads(operate("account", "--json").out)["available_wei"] == "7"


def test_run_says_where_to_go_next(capsys: pytest.CaptureFixture[str]) -> None:
    answer = RunAnswer(url="http://127.0.0.1:8400", folder="", coordinator="0x" + "11" * 20, models=(), registrations=0)
    coordinator_commands.print_running(Console.standard(json=False), answer, load(default_folder()))
    matches_golden("coordinator-run", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "code", "error"),
    [
        (["grant", "you", "1prlx"], 2, "client.config_refused"),
        (["grant", "you", "100"], 2, "client.config_refused"),
        (["grant", "you", "0wei"], 2, "client.config_refused"),
        (["grant", "you\x1b[2J", "1prlx"], 2, "client.config_refused"),
        (["key", ""], 2, "client.config_refused"),
        (["key", "you", "--days", "-1"], 2, "client.config_refused"),
        (["key", "you", "--budget", "10"], 2, "client.config_refused"),
        (["key", "--revoke", "prlx_" + "x" * 43], 2, "client.config_refused"),
        (["key", "--list"], 2, "client.config_refused"),
    ],
)
def test_what_cannot_be_is_refused_and_makes_no_coordinator(
    operate: Operate, arguments: list[str], code: int, error: str
) -> None:
    printed = operate("coordinator", *arguments, "--json")
    assert (printed.code, printed.error["error"], printed.out) == (code, error, "")
    assert "xxxxx" not in printed.err
    assert not default_folder().exists()


@pytest.mark.parametrize(
    ("name", "text", "error"),
    [
        ("coordinator.toml", "colour = 1", "client.config_refused"),
        ("catalogue.toml", "[[models]]\nname = 1", "coordinator.refused"),
        ("registry.json", "{", "coordinator.refused"),
        ("storage.key", "loose", "coordinator.refused"),
    ],
)
def test_a_folder_that_is_wrong_is_refused_before_anything_runs(
    operate: Operate, tmp_path: Path, name: str, text: str, error: str
) -> None:
    folder = tmp_path / "wrong"
    folder.mkdir()
    (folder / name).write_text(text)
    printed = operate("coordinator", "run", "--folder", str(folder), "--port", "0", "--json")
    assert (printed.error["error"], printed.out) == (error, "")
    assert not (folder / "coordinator.db").exists()


def test_a_port_that_is_taken_is_said_in_a_line(operate: Operate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        printed = operate("coordinator", "run", "--json", "--port", str(taken.getsockname()[1]))
    assert (printed.code, printed.error["error"], printed.out) == (1, "coordinator.refused", "")
    assert "in use" in printed.error["message"]
