"""One golden file a command at 80 columns, one JSON schema a --json, and what else each command promises."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import node_worlds
import pytest
from node_scene import REPOSITORY, SCHEMAS, UPDATE, Operate, matches_golden, matches_schema, with_fixed_values

from parallelix.node import answers, cli, keys, state
from parallelix.node.config import load_config
from parallelix.node.console import client_version
from parallelix.node.home import Home
from parallelix.node.service import program
from parallelix.protocol.messages import Notice
from parallelix.protocol.signing import NodeKey

WALLET = "0x52908400098527886E0F7030069857D2E4169EE7"


@pytest.fixture
def made(home: Home, made_keys: Home) -> Home:
    """A node that was initialised, with a key that is always the same."""
    shutil.copytree(made_keys.root, home.root)
    home.node_key.write_text(keys.NODE_KEY_PREFIX + "42" * 32)
    return home


NOWHERE = "http://127.0.0.1:1/api"
"""Nothing listens on this port, so it is refused at once."""


def configure(home: Home, *lines: str) -> None:
    home.root.mkdir(mode=0o700, exist_ok=True)
    home.config.write_text("\n".join(lines))
    home.config.chmod(0o600)


def test_a_library_that_is_not_installed_is_named_with_the_way_to_it(
    home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr("parallelix.node.probe", raising=False)
    monkeypatch.delitem(sys.modules, "parallelix.node.probe", raising=False)
    monkeypatch.setitem(sys.modules, "psutil", None)

    assert cli.run(["probe"]) == 1
    told = " ".join(capsys.readouterr().err.split())
    assert "needs psutil, which is not installed; run: pip install 'parallelix[node]'" in told


@pytest.mark.parametrize("name", answers.SCHEMAS)
def test_the_published_schema_is_that_of_the_answer(name: str) -> None:
    made = msgspec.json.schema(answers.SCHEMAS[name])
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"parallelix-node {name}"}
    path = SCHEMAS / f"{name}.json"
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(head | made, indent=2, ensure_ascii=False) + "\n")
    published = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    assert published == json.loads(json.dumps(head | made))


def test_there_are_exactly_nine_subcommands_in_the_order_of_use(operate: Operate) -> None:
    listed = operate("--help").out.partition("Commands:\n")[2].splitlines()
    names = [line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "][:9]
    assert names == ["probe", "init", "models", "start", "service", "verify", "status", "logs", "version"]
    assert set(names) == set(cli.COMMANDS)


@pytest.mark.parametrize("command", [*cli.COMMANDS, "models pull", "models calibrate"])
def test_every_subcommand_takes_json_and_its_help_fits_80_columns(operate: Operate, command: str) -> None:
    shown = operate(*command.split(), "--help").out
    assert "--json" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_help(operate: Operate) -> None:
    matches_golden("help", operate("--help").out)


def test_without_a_command_the_help_is_shown_as_it_is(operate: Operate) -> None:
    printed = operate()
    assert (printed.code, printed.err, printed.out) == (2, "", operate("--help").out)


# probe


@pytest.mark.usefixtures("h100")
def test_probe_as_promised(home: Home, operate: Operate) -> None:
    with node_worlds.ollama() as web:
        configure(home, f'ollama_url = "{web.url}"')
        printed, as_json = operate("probe"), operate("probe", "--json")
    matches_golden("probe", printed.out)
    answer = matches_schema("probe", as_json.out)
    assert (answer["tier"], answer["usable_vram_mib"], answer["ollama"]["version"]) == (4, 81559, "0.17.4")


def test_probe_without_gpu_and_ollama(home: Home, operate: Operate, graphics: Callable[..., None]) -> None:
    graphics()
    configure(home, 'ollama_url = "http://127.0.0.1:9"')
    printed, as_json = operate("probe"), operate("probe", "--json")
    lines = printed.out.splitlines()
    assert lines[0] == "· gpu       none"
    assert lines[1].startswith("· cpu       ")
    assert lines[2:] == ["· ollama    not running at http://127.0.0.1:9", "✓ maps to tier 1 (CPU)"]
    assert matches_schema("probe", as_json.out)["tier"] == 1


def test_probe_is_not_fooled_by_another_server_on_ollamas_port(home: Home, operate: Operate) -> None:
    def hello(_method: str, _path: str, _body: bytes) -> node_worlds.Answer:
        return 200, {"hello": "world"}

    with node_worlds.Web(hello) as web:
        configure(home, f'ollama_url = "{web.url}"')
        assert json.loads(operate("probe", "--json").out)["ollama"]["running"] is False


# init


@pytest.mark.usefixtures("h100")
def test_init_as_promised(home: Home, operate: Operate) -> None:
    printed = operate("init", "--wallet", WALLET)
    assert (printed.code, printed.err) == (0, "")
    matches_golden("init", with_fixed_values(printed.out).replace(with_fixed_values(WALLET), WALLET))
    config = load_config(home)
    assert (config.wallet, config.tier) == (WALLET, 4)
    assert stat.S_IMODE(home.config.stat().st_mode) == 0o600


@pytest.mark.usefixtures("h100")
def test_init_prints_the_hash_of_the_key_that_it_made(home: Home, operate: Operate) -> None:
    answer = matches_schema("init", operate("init", "--json").out)
    key = keys.load_keys(home).node
    assert (answer["node_key_hash"], answer["node_address"]) == ("0x" + key.key_hash.hex(), key.address)
    assert (answer["tier"], answer["replaced"], answer["wallet"]) == (4, False, "")
    assert state.read(home).state is state.State.INITED
    assert "state.transition source=FRESH target=INITED" in home.log.read_text()


def test_init_stores_an_address_and_no_key_of_it(home: Home, operate: Operate) -> None:
    operate("init", "--wallet", WALLET.lower())
    stored = {path.name: path.read_bytes() for path in home.root.rglob("*") if path.is_file()}
    assert [name for name, data in stored.items() if WALLET.encode() in data] == ["config.toml"]
    secret = keys.load_keys(home).node.secret.hex().encode()
    assert [name for name, data in stored.items() if secret in data] == ["node.key"]


def test_init_refuses_to_replace_a_key(made: Home, operate: Operate) -> None:
    before = made.node_key.read_bytes()
    refused = operate("init")
    assert (refused.code, refused.out) == (3, "")
    assert "node.key_exists" in refused.err and "--force" in refused.err and "orphans" in refused.err
    assert made.node_key.read_bytes() == before


def test_init_force_warns_that_the_old_node_is_orphaned(made: Home, operate: Operate) -> None:
    old = NodeKey(bytes.fromhex("42" * 32))
    configure(made, f'wallet = "{WALLET}"', "slots = 4", "# mine")
    printed = operate("init", "--force", "--json")
    assert f"the node registered with 0x{old.key_hash.hex()} is orphaned" in printed.err
    answer = matches_schema("init", printed.out)
    assert answer["replaced"] is True and answer["node_address"] != old.address
    assert (load_config(made).wallet, load_config(made).slots) == (WALLET, 4)


def test_init_leaves_a_configuration_alone_that_already_says_it_all(home: Home, operate: Operate) -> None:
    tier = json.loads(operate("probe", "--json").out)["tier"]
    configure(home, f"tier = {tier}", "slots = 4", "# a note of mine")
    before = home.config.read_text()
    assert operate("init").code == 0
    assert home.config.read_text() == before


def test_init_makes_no_key_beside_a_broken_configuration(home: Home, operate: Operate) -> None:
    configure(home, "slots = 0")
    assert operate("init").code == 2
    assert not home.node_key.exists()


def test_init_refuses_a_loose_folder(home: Home, operate: Operate) -> None:
    home.root.mkdir(mode=0o755)
    refused = operate("init")
    assert refused.code == 3 and "mode 0755 lets others in, must be 0700" in refused.err


# models


def test_models_as_promised(home: Home, operate: Operate) -> None:
    with node_worlds.ollama("llama3.2:latest", "qwen3:8b") as web:
        configure(home, f'ollama_url = "{web.url}"')
        printed, as_json = operate("models"), operate("models", "--json")
    matches_golden("models", with_fixed_values(printed.out))
    answer = matches_schema("models", as_json.out)
    assert [model["name"] for model in answer["models"]] == ["llama3.2:latest", "qwen3:8b"]
    assert answer["models"][0]["digest"] == node_worlds.DIGEST


def test_no_model_yet_says_how_to_get_one(home: Home, operate: Operate) -> None:
    with node_worlds.ollama() as web:
        configure(home, f'ollama_url = "{web.url}"')
        assert "models pull llama3.2" in operate("models").out


def test_models_without_ollama_exits_4(home: Home, operate: Operate) -> None:
    configure(home, 'ollama_url = "http://127.0.0.1:9"')
    refused = operate("models", "--json")
    assert (refused.code, refused.error["error"]) == (4, "node.runtime_not_ready")
    assert "ollama serve" in refused.error["message"]


def test_models_pull_as_promised(home: Home, operate: Operate) -> None:
    with node_worlds.ollama() as web:
        configure(home, f'ollama_url = "{web.url}"')
        printed, as_json = operate("models", "pull"), operate("models", "pull", "qwen3:8b", "--json")
    matches_golden("models-pull", printed.out)
    last = matches_schema("models-pull", as_json.out)
    assert last == {
        "event": "pull", "model": "qwen3:8b", "status": "success", "digest": "",
        "completed_bytes": 0, "total_bytes": 0, "done": True,
    }  # fmt: skip
    events = [json.loads(line) for line in as_json.out.splitlines()]
    assert [event["done"] for event in events] == [False] * 6 + [True]
    assert max(event["completed_bytes"] for event in events) == 2019377376
    assert [json.loads(body)["model"] for body in web.calls("/api/pull")] == ["llama3.2", "qwen3:8b"]


def test_the_flag_may_stand_before_pull(home: Home, operate: Operate) -> None:
    with node_worlds.ollama() as web:
        configure(home, f'ollama_url = "{web.url}"')
        matches_schema("models-pull", operate("models", "--json", "pull").out)


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        (
            [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}],
            "file does not exist",
        ),
        ([{"status": "pulling manifest"}], "pull it again"),
    ],
)
def test_a_pull_that_fails_says_why(home: Home, operate: Operate, steps: list[dict[str, Any]], said: str) -> None:
    with node_worlds.ollama(pull=steps) as web:
        configure(home, f'ollama_url = "{web.url}"')
        refused = operate("models", "pull", "nosuch")
    assert refused.code == 4 and said in refused.err and "✓" not in refused.out


@pytest.mark.parametrize("name", ["", " x", "x" * 257, "a\nb", "\x1b[31m"])
def test_an_odd_model_name_is_refused_before_anything_is_asked(home: Home, operate: Operate, name: str) -> None:
    refused = operate("models", "pull", name)
    assert refused.code == 2 and "\x1b" not in refused.err


DEMONSTRATION_MODEL = REPOSITORY / "models" / "parallelix-demo.gguf"


def test_models_calibrate_as_promised(home: Home, operate: Operate) -> None:
    configure(home, 'runtime = "llama_cpp"', f'gguf = ["{DEMONSTRATION_MODEL}"]')
    asked = ("models", "calibrate", "parallelix-demo", "--prompts", "4")
    printed, as_json = operate(*asked), operate(*asked, "--json")
    text = printed.out.replace(str(home.root), "~/.parallelix")
    for pattern, shown in (
        (r"\d+\.\d+ ms", "1.23 ms"),
        (r"0\.\d{4}", "0.0012"),
        (r"0\.\d{3}:", "0.060:"),
        (r"\d+\.\d %", "1.3 %"),
        (r"llama_cpp \S+", "llama_cpp 2026.10.11549"),
    ):
        text = re.sub(pattern, shown, text)
    matches_golden("models-calibrate", text)
    answer = matches_schema("models-calibrate", as_json.out)
    path = home.card(answer["card"]["model_digest"])
    assert answer["path"] == str(path)
    assert path.name == hashlib.sha256(DEMONSTRATION_MODEL.read_bytes()).hexdigest()[:16] + ".json"
    assert json.loads(path.read_text()) == answer["card"]
    assert answer["card"]["hardware"].endswith("· tier 1")
    assert (answer["answers"], answer["audits"], answer["rejected"], answer["rejected_by_default"]) == (4, 40, {}, 0)


@pytest.mark.parametrize("count", ["3", "241", "0", "-1"])
def test_prompts_beyond_the_bounds_are_refused_before_anything_is_asked(
    home: Home, operate: Operate, count: str
) -> None:
    configure(home, 'ollama_url = "http://127.0.0.1:9"')
    refused = operate("models", "calibrate", "x", "--prompts", count, "--json")
    assert (refused.code, refused.error["error"]) == (2, "node.config_refused")
    assert "4 to 240" in refused.error["message"]


def test_a_model_that_is_not_there_cannot_be_calibrated(home: Home, operate: Operate) -> None:
    with node_worlds.ollama("llama3.2:latest", version="0.12.0") as web:
        configure(home, f'ollama_url = "{web.url}"')
        for name, words in (("qwen3:8b", "not installed"), ("llama3.2", "no log-probabilities")):
            refused = operate("models", "calibrate", name)
            assert refused.code == 4 and words in " ".join(refused.err.split())
    assert not home.cards_folder.exists()


# service, verify, status, logs, version


def test_service_as_promised(made: Home, operate: Operate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr("pwd.getpwuid", lambda _uid: type("Entry", (), {"pw_name": "operator"}))  # pyright: ignore[reportUnknownArgumentType, reportUnknownLambdaType]
    printed = operate("service", "--node-id", "4217", "--gpu", "--dry-run").out
    for found, shown in ((" ".join(program()), "/opt/parallelix/bin/parallelix-node"), (str(made.root.parent), "~")):
        printed = printed.replace(found, shown)
    matches_golden("service", printed)
    answer = matches_schema("service", operate("service", "--node-id", "4217", "--gpu", "--dry-run", "--json").out)
    assert (answer["manager"], answer["scope"], answer["changed"]) == ("systemd", "user", False)


def test_verify_as_promised(made: Home, operate: Operate) -> None:
    with node_worlds.ollama("llama3.2:latest") as web, node_worlds.coordinator() as coordinator:
        configure(made, f'ollama_url = "{web.url}"', f'coordinator = "{coordinator.url}/api"')
        printed, as_json = operate("verify"), operate("verify", "--json")
    python = printed.out.split("Python ")[1].split(" ·")[0]
    text = printed.out.replace(f"Python {python}", "Python 3.11.7").replace(client_version(), "1.2.1")
    text = text.replace(str(coordinator.port), "8400").replace(str(web.port), "11434")
    text = re.sub(r"[+-]\d s from", "+0 s from", text)
    matches_golden("verify", text)
    assert matches_schema("verify", as_json.out)["passed"] is True


def test_verify_that_finds_faults(home: Home, operate: Operate) -> None:
    configure(home, 'ollama_url = "http://127.0.0.1:9"', 'coordinator = "http://127.0.0.1:9/api"')
    printed, as_json = operate("verify"), operate("verify", "--json")
    assert printed.code == as_json.code == 1
    assert all(len(line) <= 80 or "/" in line for line in printed.out.splitlines())
    answer = matches_schema("verify", as_json.out)
    assert [check["name"] for check in answer["checks"] if not check["passed"]] == ["keys", "ollama", "coordinator"]


def test_status_as_promised(made: Home, operate: Operate) -> None:
    configure(made, "tier = 3")
    matches_golden("status", operate("status").out)
    answer = matches_schema("status", operate("status", "--json").out)
    key = NodeKey(bytes.fromhex("42" * 32))
    assert answer["node_address"] == key.address
    assert answer["node_key_hash"] == "0x" + key.key_hash.hex()
    assert (answer["tier"], answer["state"], answer["daemon"]) == (3, "INITED", None)


NOTICE = Notice(
    rate_percent=50,
    audited=12,
    disagreed=1,
    strikes=2,
    proven_at=1_795_852_800_000,
    prove_until=1_795_874_400_000,
    floor="12 tokens per second of llama3.2",
    benched="too_slow: 3.1 of 12 tokens per second",
    removed_until=1_795_939_200_000,
)


def told(home: Home, notice: Notice | None) -> None:
    """The daemon's last heartbeat was answered so."""
    at = int((time.time() - 3.5 * 86_400) * 1000)
    stored = state.Stored(state=state.State.ACTIVE_IDLE, node_id="4217", changed_at=at, notice=notice)
    state.write(home, stored, durable=False)


def test_status_says_what_the_coordinator_thinks_of_the_node(made: Home, operate: Operate) -> None:
    configure(made, "tier = 4", f'coordinator = "{NOWHERE}"')
    told(made, NOTICE)
    matches_golden("status-benched", operate("status").out)
    assert matches_schema("status", operate("status", "--json").out)["notice"] == msgspec.to_builtins(NOTICE)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "· audits         50 % of results · 11 passed · 1 disagreed"),
        ({"rate_percent": 0}, "· audits         off"),
        ({"proven_at": 0}, "· proven         not yet · valid until 2026-11-28 14:00 UTC"),
        ({"strikes": 1}, "· missed         1 unit not acknowledged in time"),
        ({"prove_until": 2**53 - 1}, "· valid until never"),
    ],
)
def test_status_says_each_thing_in_words(made: Home, operate: Operate, changes: dict[str, Any], shown: str) -> None:
    configure(made, f'coordinator = "{NOWHERE}"')
    told(made, msgspec.structs.replace(NOTICE, **changes))
    assert shown in operate("status").out


def test_status_of_a_node_in_good_standing_is_short(made: Home, operate: Operate) -> None:
    configure(made, f'coordinator = "{NOWHERE}"')
    told(made, Notice(rate_percent=100))
    text = operate("status").out
    assert "· audits         100 % of results · 0 passed · 0 disagreed" in text
    for absent in ("speed floor", "proven", "missed", "benched", "removed"):
        assert f"· {absent} " not in text


def test_status_before_init(home: Home, operate: Operate) -> None:
    printed = operate("status")
    assert printed.code == 0 and "FRESH" in printed.out and "parallelix-node init" in printed.out
    assert matches_schema("status", operate("status", "--json").out)["state"] == "FRESH"


def test_status_in_cooldown_after_the_daemon_stopped(made: Home, operate: Operate) -> None:
    configure(
        made,
        "tier = 4",
        f'coordinator = "{NOWHERE}"',
        f'wallet = "{WALLET}"',
        'pause = "moving house"',
        "[contracts]",
        f'NodeRegistryLocker = "{WALLET}"',
    )
    stored = state.Stored(
        state=state.State.COOLING,
        node_id="4217",
        reason="withdrawable from 2026-11-28 08:00 UTC",
        served=37,
        changed_at=int((time.time() - 3.5 * 3600) * 1000),
    )
    state.write(made, stored, durable=False)
    matches_golden("status-cooling", operate("status").out)
    answer = matches_schema("status", operate("status", "--json").out)
    assert (answer["state"], answer["node_id"], answer["served"]) == ("COOLING", "4217", 37)
    assert answer["contracts"] == [{"name": "NodeRegistryLocker", "address": WALLET}]


def test_logs_as_promised(made: Home, operate: Operate) -> None:
    made.log.write_text(
        "2026-11-21T08:00:03.117Z start node=4217 mode=gpu model=llama3.2\n"
        "2026-11-21T08:00:09.402Z served req_a3f1 model=llama3.2 ms=47 poe=0x9c27a4\n"
        '2026-11-21T08:00:10.911Z rejected req_a3f5 reason="wrong proof" level=warning\n'
    )
    matches_golden("logs", operate("logs").out)
    assert operate("logs", "-n", "1").out.startswith("2026-11-21T08:00:10.911Z rejected")
    answer = matches_schema("logs", operate("logs", "--json").out)
    assert answer["subject"] == "req_a3f5"
    assert answer["fields"] == {"reason": "wrong proof", "level": "warning"}


def test_version_as_promised(operate: Operate) -> None:
    matches_golden("version", operate("version").out.replace(client_version(), "1.2.1"))
    assert matches_schema("version", operate("version", "--json").out)["version"] == client_version()


# Errors


@pytest.mark.parametrize(
    ("arguments", "code", "name"),
    [
        (["frobnicate"], 2, "node.usage"),
        (["status", "--frobnicate"], 2, "node.usage"),
        (["start", "--slots", "many"], 2, "node.usage"),
        (["start", "--node-id", "4217"], 3, "node.key_missing"),
        (["logs"], 1, "node.failed"),
    ],
)
def test_a_refusal_is_one_line_or_one_object_on_standard_error(
    home: Home, operate: Operate, arguments: list[str], code: int, name: str
) -> None:
    plain, as_json = operate(*arguments), operate(*arguments, "--json")
    assert (plain.code, as_json.code) == (code, code)
    assert plain.out == as_json.out == ""
    assert plain.err.startswith(f"✗ {name}: ") and plain.err.count("\n") == 1
    error = matches_schema("error", as_json.err)
    assert error["error"] == name and error["message"] in plain.err


def test_a_bug_of_ours_is_one_line_too(home: Home, operate: Operate, tmp_path: Path) -> None:
    home.root.mkdir(mode=0o700)
    home.log.mkdir()
    refused = operate("logs")
    assert refused.code == 1 and refused.err.startswith("✗ node.failed: IsADirectoryError")
