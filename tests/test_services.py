"""The services that other tests rely on are real, are ours alone, and leave nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psycopg
import pytest

import services
from node.runtimes.tiny_gguf import write_tiny_model


def asked(url: str, query: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit", "full_page_writes"])
def test_what_postgresql_acknowledges_is_on_disk(postgresql_url: str, setting: str) -> None:
    assert asked(postgresql_url, f"SHOW {setting}") == "on"


def test_each_database_begins_empty_and_is_alone(postgresql_server: services.PostgreSQL) -> None:
    with postgresql_server.database() as first, postgresql_server.database() as second:
        with psycopg.connect(first) as connection:
            connection.execute("CREATE TABLE ledger (amount numeric)")
        assert asked(first, "SELECT to_regclass('ledger') IS NOT NULL") is True
        assert asked(second, "SELECT to_regclass('ledger') IS NULL") is True


def test_a_database_is_dropped_even_while_somebody_is_connected(postgresql_server: services.PostgreSQL) -> None:
    with postgresql_server.database() as url:
        lingering = psycopg.connect(url)
    with pytest.raises(psycopg.OperationalError):
        lingering.execute("SELECT 1")
    name = url.rpartition("/")[2]
    assert asked(postgresql_server.url, f"SELECT count(*) FROM pg_database WHERE datname = '{name}'") == 0


def test_postgresql_lets_nobody_in_without_its_password(postgresql_server: services.PostgreSQL) -> None:
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{postgresql_server.port}/postgres", passfile="/dev/null")


def test_postgresql_starts_from_a_checkout_that_others_cannot_enter_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = services.postgresql_programs()
    closed = tmp_path / "closed"
    package = programs.parents[1]
    for part in [programs.parent, *package.parent.glob(f"{package.name}.libs")]:
        shutil.copytree(part, closed / part.relative_to(package.parent), symlinks=True)
    closed.chmod(0o700)
    throwaway = Path(tempfile.mkdtemp(prefix="parallelix-services-"))
    throwaway.chmod(0o755)
    monkeypatch.setattr(tempfile, "tempdir", str(throwaway))
    with services.postgresql(closed / programs.relative_to(package.parent)) as server:
        assert asked(server.url, "SELECT 41 + 1") == 42
        assert list(throwaway.iterdir())
    assert not server.answers()
    throwaway.rmdir()  # refuses unless it is empty


def test_a_server_that_cannot_start_says_what_it_printed(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"(?s)ended with 3.*no such port\n$"),
        services.running(
            ["sh", "-c", "echo no such port; exit 3"],
            ready=lambda: False,
            stop_signal=signal.SIGTERM,
            environment={"PATH": "/usr/bin:/bin"},
            folder=tmp_path,
        ),
    ):
        pass


def test_a_missing_service_fails_in_ci_and_skips_on_a_laptop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="Ollama is not on this machine; run make setup"):
        services.missing("Ollama", "run make setup")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="Ollama is not on this machine; run make setup"):
        services.missing("Ollama", "run make setup")


def test_ollama_runs_a_model_and_returns_its_log_probabilities(ollama_server: services.Ollama, tmp_path: Path) -> None:
    weights = write_tiny_model(tmp_path / "tiny.gguf", seed=1, words=["north ", "south ", "east ", "west "])
    ollama_server.create_model("services-tiny", weights, temperature=0)
    question = {"model": "services-tiny", "prompt": "north ", "raw": True, "stream": False, "logprobs": True}
    answer = httpx.post(
        f"{ollama_server.url}/api/generate",
        json={**question, "options": {"num_predict": 8}},
        timeout=60,
        trust_env=False,
    ).raise_for_status()
    assert answer.json()["eval_count"] == 8
    assert "".join(entry["token"] for entry in answer.json()["logprobs"]) == answer.json()["response"]


def test_ollama_keeps_to_its_own_folder(ollama_server: services.Ollama) -> None:
    assert ollama_server.environment["HOME"] == str(ollama_server.folder)
    assert (ollama_server.folder / ".ollama" / "id_ed25519").is_file()


def test_each_chain_is_fresh_and_its_time_passes_on_demand(anvil_chain: services.Anvil) -> None:
    assert int(anvil_chain.ask("eth_blockNumber"), 16) == 0
    before = int(anvil_chain.ask("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
    anvil_chain.pass_time(7 * 86_400)
    after = int(anvil_chain.ask("eth_getBlockByNumber", "latest", False)["timestamp"], 16)
    assert 7 * 86_400 <= after - before <= 7 * 86_400 + 60


def test_the_chain_says_what_it_refuses(anvil_chain: services.Anvil) -> None:
    with pytest.raises(RuntimeError, match=r"anvil refused eth_call: .*revert"):
        anvil_chain.ask("eth_call", {"data": "0x60006000fd"}, "latest")


def test_a_chain_dies_with_the_tests_that_started_it(tmp_path: Path) -> None:
    script = "import services, signal, os, pathlib, sys\nwith services.anvil() as chain:\n"
    script += "    pathlib.Path(sys.argv[1]).write_text(chain.url)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    services.anvil_binary()
    command = [sys.executable, "-c", script, str(tmp_path / "url")]
    ended = subprocess.run(
        command, cwd=services.REPOSITORY / "tests", env=os.environ | {"TMPDIR": str(tmp_path)}, check=False
    )
    assert ended.returncode == -signal.SIGKILL
    orphan = services.Anvil(url=(tmp_path / "url").read_text())
    deadline = time.monotonic() + services.STOP_SECONDS_MAX
    while orphan.answers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not orphan.answers()
