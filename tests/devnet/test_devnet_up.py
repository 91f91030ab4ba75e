from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from typer.testing import CliRunner

import services
from parallelix.client.cli import app as parallelix
from parallelix.devnet.cli import ChainAnswer, UpAnswer, api_key, app, what_to_try
from parallelix.devnet.network import Network, Plan, Seat

UP = [sys.executable, "-m", "parallelix.devnet.cli", "up"]


def test_what_to_try_fits_80_columns_and_can_be_copied() -> None:
    lines = what_to_try("http://127.0.0.1:65535", "prlx_" + "x" * 43)

    assert all(len(line) <= 80 for line in lines if sys.executable not in line and "/bin/parallelix" not in line)
    text = "\n".join(lines)
    assert "export PARALLELIX_API_KEY=prlx_xxx" in text and "/v1/chat/completions" in text and "OpenAI()" in text
    assert "PARALLELIX_RPC_URL" not in text
    body = text.partition("-d '")[2].partition("'")[0]
    assert json.loads(body)["messages"][0]["role"] == "user"


def test_what_to_look_at_on_the_chain_names_commands_and_options_that_there_are() -> None:
    chain = ChainAnswer(
        rpc_url="http://127.0.0.1:8545", deployment_file="/x/d.json", keys="/x/keys", requester="0x", stream=True, pid=1
    )
    lines = what_to_try("http://127.0.0.1:8400", "prlx_x", chain)[-6:]

    exported = dict(line.removeprefix("export ").split("=") for line in lines if line.startswith("export "))
    assert exported == {
        "PARALLELIX_RPC_URL": chain.rpc_url,
        "PARALLELIX_DEPLOYMENT": chain.deployment_file,
        "PARALLELIX_KEY_FILE": "/x/keys/requester.key",
    }
    for line in lines[-2:]:
        _, *words = line.split()
        helped = CliRunner().invoke(parallelix, [*words, "--help"])
        assert helped.exit_code == 0 and "PARALLELIX_RPC_URL" in helped.output


def test_a_chain_that_is_not_there_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("ANVIL_BIN", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    code = app(["up", "--folder", str(tmp_path / "new")], standalone_mode=False)

    told = " ".join(capsys.readouterr().err.split())
    assert code == 1 and "devnet.failed: no anvil" in told and "make setup-chain" in told and "--no-chain" in told
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("on_path", [True, False])
def test_what_to_ask_stands_on_one_line_where_it_fits(monkeypatch: pytest.MonkeyPatch, on_path: bool) -> None:
    found = "/usr/bin/parallelix" if on_path else None

    def which(_: str) -> str | None:
        return found

    monkeypatch.setattr("shutil.which", which)
    monkeypatch.setattr("sys.executable", f"/opt/{'x' * 40}/bin/python")

    lines = what_to_try("http://127.0.0.1:65535", "prlx_x")

    asked = next(number for number, line in enumerate(lines) if 'ask "' in line)
    assert lines[asked].startswith("parallelix ask " if on_path else "  ask ")
    assert on_path or lines[asked - 1] == f"/opt/{'x' * 40}/bin/parallelix \\"


def test_a_port_that_is_taken_is_refused_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        code = app(["up", "--port", str(port), "--folder", str(tmp_path / "new")], standalone_mode=False)

    printed = capsys.readouterr()
    assert code == 1 and printed.out == "" and not (tmp_path / "new").exists()
    assert f"--port {port}" in printed.err and "choose another port" in " ".join(printed.err.split())


@contextmanager
def up(folder: Path, *chosen: str) -> Generator[dict[str, Any]]:
    """A devnet that runs, as it said itself. It is stopped by Ctrl-C, and leaves no process behind."""
    devnet = subprocess.Popen([*UP, "--json", "--folder", str(folder), *chosen], stdout=subprocess.PIPE, text=True)
    try:
        assert devnet.stdout is not None
        answer = json.loads(devnet.stdout.readline())
        assert set(answer) == set(UpAnswer.__struct_fields__)
        yield answer
        processes = psutil.Process(devnet.pid).children(recursive=True)
        started = {answer["chain"]["pid"]} if answer["chain"] else set[int]()
        started |= {node["pid"] for node in answer["nodes"]}
        assert started <= {process.pid for process in processes}
        devnet.send_signal(signal.SIGINT)
        assert devnet.wait(60) == 0
    finally:
        devnet.kill()
        devnet.communicate()
    assert psutil.wait_procs(processes, timeout=10)[1] == []


@pytest.mark.slow
def test_a_network_on_a_chain_answers_survives_its_coordinator_and_goes_on_another_time(tmp_path: Path) -> None:
    services.anvil_binary()
    with up(tmp_path, "--nodes", "1") as answer:
        assert ask(answer)["usage"]["completion_tokens"] > 0
        os.kill(answer["coordinator_pid"], signal.SIGKILL)
        assert ask(answer)["choices"][0]["message"]["content"]
    assert (tmp_path / "api-key").read_text().strip() == answer["api_key"]
    assert oct((tmp_path / "api-key").stat().st_mode & 0o777) == "0o600"

    with up(tmp_path, "--nodes", "1") as again:
        assert [node["node_id"] for node in again["nodes"]] == [answer["nodes"][0]["node_id"]] == ["1"]
        assert again["chain"]["requester"] == answer["chain"]["requester"]
        assert ask(again)["usage"]["completion_tokens"] > 0


def test_a_folder_in_which_another_network_runs_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / ".lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        code = app(["up", "--folder", str(tmp_path), "--no-chain"], standalone_mode=False)

    told = " ".join(capsys.readouterr().err.split())
    assert code == 1 and "another devnet runs there; stop it, or choose another --folder" in told
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


async def test_without_a_chain_the_key_is_granted_and_kept(tmp_path: Path) -> None:
    network = Network(Plan(folder=tmp_path, catalogue="", node_command=no_node, node_count=1, settings={}))
    network.prepare()

    given = await api_key(network)

    assert await api_key(network) == given == (tmp_path / "api-key").read_text().strip()
    stored = sqlite3.connect(tmp_path / "coordinator" / "coordinator.db").execute("SELECT kind FROM commands")
    assert sorted(kind for (kind,) in stored) == ["grant", "key"]


def test_without_a_chain_no_anvil_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANVIL_BIN", "/nowhere/anvil")
    (tmp_path / "file").touch()

    code = app(["up", "--no-chain", "--folder", str(tmp_path / "file")], standalone_mode=False)

    told = capsys.readouterr().err
    assert code == 1 and "ANVIL_BIN" not in told and str(tmp_path / "file") in told


def no_node(seat: Seat) -> list[str]:
    raise AssertionError(seat)


def ask(answer: dict[str, Any]) -> dict[str, Any]:
    """Again while the coordinator is away, as a client does."""
    ends_at = time.monotonic() + 60
    while True:
        try:
            reply = httpx.post(
                f"{answer['url']}/v1/chat/completions",
                headers={"Authorization": f"Bearer {answer['api_key']}"},
                json={"model": answer["model"], "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 20},
                timeout=60,
                trust_env=False,
            )
            return reply.raise_for_status().json()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            # A coordinator that was away serves deposits again when it has heard of its chain.
            if isinstance(error, httpx.HTTPStatusError) and error.response.status_code != 503:
                raise
            assert time.monotonic() < ends_at
            time.sleep(0.05)
