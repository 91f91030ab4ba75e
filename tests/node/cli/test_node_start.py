"""`start` as an operator sees it: a process of its own, an Ollama and a coordinator on the wire."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import node_worlds
import pytest
from node_scene import REPOSITORY, Operate, matches_golden, matches_schema

import services
from parallelix.node import state
from parallelix.node.console import client_version
from parallelix.node.home import Home, exclusive

WAIT_SECONDS_MAX = 60
DEMONSTRATION_MODEL = REPOSITORY / "models" / "parallelix-demo.gguf"


@pytest.fixture
def made(home: Home, made_keys: Home) -> Home:
    shutil.copytree(made_keys.root, home.root)
    return home


def configure(home: Home, *lines: str) -> None:
    home.config.write_text("\n".join(lines) + "\n")
    home.config.chmod(0o600)


@contextmanager
def network(
    home: Home,
    *settings: str,
    models: tuple[str, ...] = ("llama3.2:latest",),
    refuse_attach: node_worlds.Answer | None = None,
    refuse_heartbeat: node_worlds.Answer | None = None,
    ollama_url: str = "",
) -> Generator[tuple[node_worlds.Web, node_worlds.Web]]:
    """A coordinator and an Ollama, and a configuration that names them."""
    with (
        node_worlds.coordinator(refuse_attach=refuse_attach, refuse_heartbeat=refuse_heartbeat) as coordinator,
        node_worlds.ollama(*models) as ollama,
    ):
        url = ollama_url or ollama.url
        configure(home, f'coordinator = "{coordinator.url}/api"', f'ollama_url = "{url}"', *settings)
        yield coordinator, ollama


@contextmanager
def started(home: Home, *arguments: str, stdout: int = subprocess.PIPE) -> Generator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "parallelix.node", "start", "--node-id", "4217", "--cpu", *arguments]
    environment = os.environ | {"PARALLELIX_HOME": str(home.root)}
    process = subprocess.Popen(command, env=environment, stdout=stdout, stderr=subprocess.PIPE, text=True)
    stop = threading.Timer(WAIT_SECONDS_MAX, process.kill)
    stop.start()
    try:
        yield process
    finally:
        stop.cancel()
        process.kill()
        process.communicate()


def until(process: subprocess.Popen[str], found: Callable[[str], bool]) -> list[str]:
    """The lines up to the first that is looked for."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if found(line):
            return lines
    raise AssertionError(f"ended with {process.wait()}: {lines} {process.stderr.read() if process.stderr else ''}")


def manifest_of(coordinator: node_worlds.Web) -> dict[str, Any]:
    return json.loads(json.loads(coordinator.calls("/api/operator/attach")[0])["manifest"])


def test_start_as_promised(made: Home, operate: Operate) -> None:
    with network(made) as (coordinator, _ollama), started(made) as process:
        shown = until(process, lambda line: "daemon up" in line)
        while not coordinator.calls("/api/operator/heartbeat"):
            time.sleep(0.01)
        running = operate("status").out
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    text = "".join(shown) + rest
    text = text.replace(client_version(), "1.2.1")
    matches_golden("start", re.sub(r"heartbeats \d+", "heartbeats 142", text))
    assert f"start (pid {process.pid})" in running and "ACTIVE · idle · node 4217" in running
    after = operate("status").out
    assert "· daemon         not running" in after and "ACTIVE · idle, machine off · node 4217" in after


def test_the_manifest_tells_what_the_machine_and_the_operator_offer(made: Home) -> None:
    settings = ('region = "eu-west"', "slots = 3", "chain_id = 31337", 'models = ["llama3.2"]')
    models = ("llama3.2:latest", "other:latest")
    with network(made, *settings, models=models) as (coordinator, _ollama), started(made) as process:
        until(process, lambda line: "daemon up" in line)
        process.send_signal(signal.SIGINT)
        process.communicate()
    assert process.returncode == 0
    manifest = manifest_of(coordinator)
    assert (manifest["node_id"], manifest["chain_id"], manifest["mode"]) == ("4217", 31337, "cpu")
    assert (manifest["hardware_tier"], manifest["slots"], manifest["region"]) == (1, 3, "eu-west")
    assert [model["name"] for model in manifest["models"]] == ["llama3.2:latest"]
    assert manifest["hardware"]["cpu_cores"] >= 1 and manifest["hardware"]["vram_mib"] == 0


def test_events_as_json(made: Home) -> None:
    with network(made), started(made, "--json") as process:
        shown = until(process, lambda line: '"attached"' in line)
        process.send_signal(signal.SIGTERM)
        rest, _errors = process.communicate()
    last = matches_schema("start", "".join(shown) + rest)
    assert last["event"] == "exit"
    assert last["fields"]["reason"] == "stopped" and last["fields"]["exit_code"] == 0


def test_foreground_prints_the_log_as_well(made: Home) -> None:
    with network(made), started(made, "--foreground") as process:
        shown = until(process, lambda line: " attached " in line)
        process.send_signal(signal.SIGTERM)
        rest, _errors = process.communicate()
    assert rest.count("draining") == 1
    assert any(re.match(r"\d{4}-.*Z start node=4217 mode=cpu model=llama3.2", line) for line in shown)
    assert "start node=4217 mode=cpu model=llama3.2" in made.log.read_text()


def test_the_live_line_on_a_terminal(made: Home) -> None:
    leader, follower = pty.openpty()
    with network(made), started(made, stdout=follower) as process:
        os.close(follower)
        shown = b""
        while not re.search(rb"active \xc2\xb7 heartbeats [2-9] \xc2\xb7 served 0 \xc2\xb7 idle", shown):
            shown += os.read(leader, 65536)
        process.send_signal(signal.SIGINT)
        process.wait()
    os.close(leader)
    text = shown.decode(errors="replace")
    assert "● attaching to http://127.0.0.1" in re.sub("\x1b\\[[0-9;]*m", "", text)
    assert text.count("\r\x1b[2K") >= 3


@pytest.mark.parametrize(
    ("code", "message", "after"),
    [
        ("not_staked", "node 4217 has no stake", state.State.INITED),
        ("in_cooldown", "withdrawable from 2026-11-28 08:00 UTC", state.State.COOLING),
    ],
)
def test_a_403_prints_the_reason_and_exits_0(
    made: Home, operate: Operate, code: str, message: str, after: state.State
) -> None:
    refusal = (403, {"error": code, "message": message})
    with network(made, refuse_attach=refusal), started(made) as process:
        out, errors = process.communicate()
    assert (process.returncode, errors) == (0, "")
    matches_golden(f"start-{code.replace('_', '-')}", out.replace(client_version(), "1.2.1"))
    assert state.read(made).state is after
    if after is state.State.COOLING:
        assert message in operate("status").out


def test_an_unstaked_node_retires(made: Home) -> None:
    refusal = (403, {"error": "not_staked", "message": "the stake of node 4217 was withdrawn"})
    with network(made, refuse_heartbeat=refusal), started(made) as process:
        process.communicate()
    assert process.returncode == 0
    assert (state.read(made).state, state.read(made).node_id) == (state.State.RETIRED, "4217")


def test_the_coordinators_tier_mismatch_is_an_error(made: Home) -> None:
    refusal = (409, {"error": "tier_mismatch", "message": "manifest says tier 1, registered is tier 4"})
    with network(made, refuse_attach=refusal), started(made) as process:
        _out, errors = process.communicate()
    assert process.returncode == 6
    assert "node.tier_mismatch: manifest says tier 1, registered is tier 4" in errors


def test_a_machine_below_the_registered_tier_is_refused_before_anybody_is_asked(made: Home, operate: Operate) -> None:
    with network(made, "tier = 4") as (coordinator, _ollama):
        refused = operate("start", "--node-id", "4217", "--cpu")
        by_option = operate("start", "--node-id", "4217", "--tier", "2", "--cpu", "--json")
        assert operate("start", "--node-id", "4217", "--gpu").code == 6
    assert refused.code == by_option.code == 6
    assert "this machine maps to tier 1, below the registered tier 4" in refused.err
    assert by_option.error["error"] == "node.tier_mismatch"
    assert coordinator.seen == []
    assert "start.refused code=node.tier_mismatch" in made.log.read_text()


@pytest.mark.usefixtures("h100")
def test_a_gpu_node_that_is_started_on_its_cpu_is_refused_too(made: Home, operate: Operate) -> None:
    with network(made, "tier = 4"):
        refused = operate("start", "--node-id", "4217", "--cpu")
    assert refused.code == 6 and "maps to tier 1" in refused.err


def test_without_a_gpu_the_gpu_cannot_be_asked_for(made: Home, operate: Operate, graphics: Callable[..., None]) -> None:
    graphics()
    refused = operate("start", "--node-id", "4217", "--gpu", "--json")
    assert (refused.code, refused.error["error"]) == (6, "node.gpu_missing")


def test_without_ollama_start_refuses(made: Home, operate: Operate) -> None:
    configure(made, 'ollama_url = "http://127.0.0.1:9"')
    refused = operate("start", "--node-id", "4217", "--cpu", "--json")
    assert (refused.code, refused.error["error"]) == (4, "node.runtime_not_ready")


@pytest.mark.parametrize(("models", "wanted"), [((), []), (("other:latest",), ["--model", "llama3.2"])])
def test_without_a_model_start_refuses(
    made: Home, operate: Operate, models: tuple[str, ...], wanted: list[str]
) -> None:
    with network(made, models=models) as (coordinator, _ollama):
        refused = operate("start", "--node-id", "4217", "--cpu", *wanted, "--json")
    assert (refused.code, refused.error["error"]) == (4, "node.model_missing")
    assert "parallelix-node models pull llama3.2" in refused.error["message"]
    assert coordinator.seen == []


def test_an_ollama_without_log_probabilities_is_refused(made: Home, operate: Operate) -> None:
    with node_worlds.ollama("llama3.2:latest", version="0.12.10") as ollama:
        configure(made, f'ollama_url = "{ollama.url}"')
        refused = operate("start", "--node-id", "4217", "--cpu")
    assert refused.code == 4 and "log-probabilities" in refused.err


def test_a_missing_model_file_is_refused(made: Home, operate: Operate, tmp_path: Path) -> None:
    refused = operate("start", "--node-id", "4217", "--cpu", "--gguf", str(tmp_path / "none.gguf"))
    assert refused.code == 4 and "none.gguf" in refused.err


def test_a_second_daemon_in_the_same_folder_is_refused(made: Home, operate: Operate) -> None:
    with exclusive(made, purpose="start"):
        refused = operate("start", "--node-id", "4217", "--cpu", "--json")
    assert (refused.code, refused.error["error"]) == (7, "node.busy")


def test_the_node_id_is_remembered_once_it_was_attached(made: Home) -> None:
    state.write(made, state.Stored(state=state.State.ACTIVE_IDLE, node_id="4217"), durable=False)
    with network(made) as (coordinator, _ollama), started(made) as process:
        until(process, lambda line: "daemon up" in line)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert coordinator.calls("/api/operator/attach")


def test_a_real_ollama_is_probed_listed_verified_and_served_from(
    made: Home, operate: Operate, ollama_server: services.Ollama
) -> None:
    ollama_server.create_model("operator-demo", DEMONSTRATION_MODEL)
    with network(made, 'models = ["operator-demo"]', ollama_url=ollama_server.url) as (coordinator, _ollama):
        assert json.loads(operate("probe", "--json").out)["ollama"]["running"] is True
        listed = {model["name"]: model for model in json.loads(operate("models", "--json").out)["models"]}
        assert operate("verify").code == 0
        missing = operate("models", "pull", "localhost:1/no/such", "--json")
        with started(made) as process:
            until(process, lambda line: "daemon up" in line)
            process.send_signal(signal.SIGTERM)
            process.communicate()
    digest = hashlib.sha256(DEMONSTRATION_MODEL.read_bytes()).hexdigest()
    assert listed["operator-demo:latest"]["digest"] == digest
    assert (missing.code, missing.error["error"]) == (4, "node.runtime_not_ready")
    assert [model["name"] for model in manifest_of(coordinator)["models"]] == ["operator-demo:latest"]


def test_a_model_file_is_served_without_ollama(made: Home, operate: Operate) -> None:
    with (
        network(made, ollama_url="http://127.0.0.1:9") as (coordinator, _ollama),
        started(made, "--gguf", str(DEMONSTRATION_MODEL)) as process,
    ):
        until(process, lambda line: "daemon up" in line)
        process.send_signal(signal.SIGTERM)
        process.communicate()
    manifest = manifest_of(coordinator)
    assert manifest["runtimes"][0]["name"] == "llama_cpp"
    assert manifest["models"][0]["digest"] == hashlib.sha256(DEMONSTRATION_MODEL.read_bytes()).hexdigest()
