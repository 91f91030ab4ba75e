"""What the commands do, `start` aside: ask, then print for a person or for a program."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from parallelix.node import answers, keys, notice, standing, state
from parallelix.node import home as files
from parallelix.node.config import DEFAULT_MODEL, Config, encode_config, load_config, wallet_address
from parallelix.node.console import Console, client_version
from parallelix.node.errors import EXIT_FAILED, ConfigRefused, KeyExists, KeyMissing, NodeError, RuntimeNotReady
from parallelix.node.home import Home

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from parallelix.node.calibrating import Measured
    from parallelix.node.probe import Machine
    from parallelix.node.runtimes.base import Model
    from parallelix.node.runtimes.ollama import PullProgress
    from parallelix.node.service import Plan, Scope
    from parallelix.node.starting import Options
    from parallelix.protocol.signing import NodeKey

T = TypeVar("T")

LABEL_COLUMNS = 14
PROBE_LABEL_COLUMNS = 9
VERIFY_LABEL_COLUMNS = 12
NAME_COLUMNS_MAX = 40
PROBE_SECONDS_MAX = 3
MODEL_NAME_MAX = 256


def probe(console: Console) -> None:
    from parallelix.node import probe as hardware

    config = load_config(Home.from_environment())
    machine = hardware.probe_machine()
    ollama = _ollama(config.ollama_url)
    label = hardware.TIER_LABELS[machine.tier]
    console.fact("gpu", hardware.describe_gpus(machine), label_columns=PROBE_LABEL_COLUMNS)
    if not machine.has_gpu:
        console.fact("cpu", hardware.describe_cpu(machine.cpu), label_columns=PROBE_LABEL_COLUMNS)
    running = f"running (v{ollama.version})" if ollama.running else f"not running at {ollama.url}"
    console.fact("ollama", running, label_columns=PROBE_LABEL_COLUMNS)
    console.done(f"maps to tier {machine.tier} ({label})")
    console.value(
        answers.ProbeAnswer(
            gpus=tuple(
                answers.GpuAnswer(
                    name=gpu.name, vendor=gpu.vendor, memory_mib=gpu.memory_mib, usable_mib=gpu.usable_mib
                )
                for gpu in machine.gpus
            ),
            cpu=answers.CpuAnswer(name=machine.cpu.name, cores=machine.cpu.cores, memory_mib=machine.cpu.memory_mib),
            ollama=ollama,
            usable_vram_mib=machine.usable_vram_mib,
            tier=machine.tier,
            tier_label=label,
        )
    )


def init(console: Console, *, wallet: str, force: bool) -> None:
    address = wallet_address(wallet) if wallet else ""
    home = Home.from_environment()
    exists = keys.node_key_exists(home)
    if exists and not force:
        raise KeyExists(keys.existing_key_message(home))
    from parallelix.node import probe as hardware

    old = load_config(home)
    machine = hardware.probe_machine()
    config = msgspec.structs.replace(old, wallet=address or old.wallet, tier=machine.tier)
    before = state.read(home).state
    if exists:
        console.note(f"--force: {_orphan(home)}")
    key = keys.create_keys(
        home,
        replace=force,
        config=encode_config(config) if config != old or not home.config.exists() else None,
        progress=lambda step: console.live(f"generating the {step}"),
    )
    console.clear_live()
    _log_init(home, before)
    _print_init(console, home, key, config, machine, replaced=exists)


def models(console: Console) -> None:
    from parallelix.node.runtime_choice import open_runtime

    async def installed() -> tuple[str, list[Model]]:
        async with open_runtime(config) as runtime:
            return runtime.name, await runtime.models()

    config = load_config(Home.from_environment())
    name, found = _asked(installed())
    console.heading(f"models · {name}{f' · {config.ollama_url}' if name == 'ollama' else ''}")
    name_columns = min(NAME_COLUMNS_MAX, max((len(model.name) for model in found), default=0))
    for model in found:
        details = f"{size(model.size_bytes):>8}  context {model.context_tokens:<7}  {model.digest[:12]}"
        console.fact(model.name, details, label_columns=name_columns)
    if not found:
        console.warn(f"none installed; run: parallelix-node models pull {DEFAULT_MODEL}")
    console.value(
        answers.ModelsAnswer(
            runtime=name,
            models=tuple(
                answers.ModelAnswer(
                    name=model.name,
                    digest=model.digest,
                    size_bytes=model.size_bytes,
                    context_tokens=model.context_tokens,
                    features=model.features,
                )
                for model in found
            ),
        )
    )


def pull(console: Console, name: str) -> None:
    _require_model_name(name)
    config = load_config(Home.from_environment())
    if config.runtime != "ollama":
        raise ConfigRefused(f"runtime {config.runtime}: has nothing to pull from; name its model files in `gguf`")
    _asked(_pull(console, config, name))
    console.done(f"{name} is installed")
    console.value(answers.PullEvent(model=name, status="success", done=True))


def calibrate(console: Console, name: str, prompts: int | None) -> None:
    from parallelix import private_files
    from parallelix.node import calibrating
    from parallelix.node import probe as hardware
    from parallelix.node.runtime_choice import open_runtime
    from parallelix.protocol.calibration import encode_card

    _require_model_name(name)
    count = calibrating.PROMPTS_DEFAULT if prompts is None else prompts
    if not calibrating.PROMPTS_MIN <= count <= calibrating.PROMPTS_MAX:
        raise ConfigRefused(f"prompts {count}: expected {calibrating.PROMPTS_MIN} to {calibrating.PROMPTS_MAX}")
    home = Home.from_environment()
    config = load_config(home)
    try:
        measured = _asked(
            calibrating.calibrate(
                lambda: open_runtime(config),
                name,
                prompts=count,
                slots=config.slots,
                hardware=hardware.describe_class(hardware.probe_machine()),
                measured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
                on_progress=lambda step, done, total: console.live(f"{step} {done} of {total}"),
            )
        )
    except calibrating.NotMeasurable as error:
        raise NodeError(f"{error}; calibrate another model, or with more prompts (--prompts)") from error
    finally:
        console.clear_live()
    path = home.card(measured.card.model_digest)
    with files.key_trouble():
        for folder in (home.root, home.cards_folder):
            private_files.make_folder(folder)
        private_files.replace(path, encode_card(measured.card))
    _print_calibration(console, measured, home.shown(path))
    console.value(
        answers.CalibrateAnswer(
            path=str(path),
            card=measured.card,
            answers=measured.answers,
            unauditable=measured.unauditable,
            audits=measured.audits,
            rejected=measured.rejected,
            rejected_by_default=measured.rejected_by_default,
            threshold=measured.threshold,
        )
    )


def service(console: Console, options: Options, *, scope: Scope, dry_run: bool) -> None:
    from parallelix.node import service as units
    from parallelix.node.starting import checked_arguments

    home = _service_home(scope)
    arguments = [*units.program(), "start", *checked_arguments(options, home)]
    chosen = units.plan(arguments, home=home.root, scope=scope, environment=os.environ)
    if dry_run:
        _print_plan(console, chosen)
    else:
        if not keys.node_key_exists(home):
            raise KeyMissing(f"{home.node_key}: not there; run `parallelix-node init` first")
        units.install(chosen)
        name = units.NAME if chosen.manager == "systemd" else units.LABEL
        console.done(f"installed + started as {chosen.manager} service '{name}'")
    console.value(
        answers.ServiceAnswer(
            manager=chosen.manager,
            scope=chosen.scope,
            name=units.NAME if chosen.manager == "systemd" else units.LABEL,
            path=str(chosen.path),
            content=chosen.content,
            commands=chosen.commands,
            changed=not dry_run,
        )
    )


def verify(console: Console) -> int:
    from parallelix.node import verify as diagnostics

    home = Home.from_environment()
    checks = asyncio.run(diagnostics.run_checks(home, client_version=client_version()))
    for check in checks:
        symbol = "✓" if check.passed else "✗"
        console.marked(symbol, check.name, check.message, label_columns=VERIFY_LABEL_COLUMNS)
    failed = sum(not check.passed for check in checks)
    if failed:
        console.warn(f"{failed} of {len(checks)} checks failed")
    console.value(
        answers.VerifyAnswer(
            passed=failed == 0,
            checks=tuple(
                answers.CheckAnswer(name=check.name, passed=check.passed, message=check.message) for check in checks
            ),
        )
    )
    return EXIT_FAILED if failed else 0


def status(console: Console) -> None:
    home = Home.from_environment()
    config = load_config(home)
    key = keys.load_node_key(home) if keys.node_key_exists(home) else None
    answer = _status(home, config, key)
    console.heading("node status")
    for label, value in _status_lines(answer):
        console.fact(label, value, label_columns=LABEL_COLUMNS)
    for warning in answer.warnings:
        console.warn(warning)
    console.value(answer)


def logs(console: Console, *, count: int, follow: bool) -> None:
    from parallelix.node import logs as reader

    if not 0 <= count <= reader.LINES_MAX:
        raise ConfigRefused(f"--lines {count}: expected 0 to {reader.LINES_MAX}")
    log = Home.from_environment().log
    if not follow and not log.exists():
        raise NodeError(f"{log}: no log yet; `parallelix-node start` writes it")
    for line in reader.follow(log, count=count) if follow else reader.tail(log, count=count):
        console.plain(line)
        console.value(reader.parse_line(line))


def size(count: int) -> str:
    """Bytes as people say them, in powers of ten."""
    for unit, scale in (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} B"


def _ollama(url: str) -> answers.OllamaAnswer:
    import httpx

    try:
        found = httpx.get(f"{url}/api/version", timeout=PROBE_SECONDS_MAX, trust_env=False)
        version = str(found.raise_for_status().json()["version"])[:40]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return answers.OllamaAnswer(url=url, running=False, version="")
    return answers.OllamaAnswer(url=url, running=True, version=version)


def _orphan(home: Home) -> str:
    try:
        whose = f"the node registered with {_key_hash(home)}"
    except NodeError:
        whose = "the node registered with the old key"
    return f"{whose} is orphaned and can never serve again; take its stake back in the Console (requestUnstake)"


def _key_hash(home: Home) -> str:
    return "0x" + keys.load_node_key(home).key_hash.hex()


def _log_init(home: Home, before: state.State) -> None:
    from parallelix.node.logging import open_log

    after = state.next_state(before, state.Event.KEYS_MADE)
    if after is not before:
        open_log(home).info("state.transition", source=before, target=after, cause=state.Event.KEYS_MADE)


def _print_init(
    console: Console, home: Home, key: NodeKey, config: Config, machine: Machine, *, replaced: bool
) -> None:
    from parallelix.node.probe import TIER_LABELS

    tier = f"{machine.tier} ({TIER_LABELS[machine.tier]})"
    key_hash = "0x" + key.key_hash.hex()
    console.done(f"node key generated at {home.shown(home.node_key)} (mode 0600)")
    console.heading("register this node on-chain (in the Console), using:")
    console.pair("tier", tier)
    console.pair("nodeKeyHash", key_hash)
    if config.wallet:
        console.pair("wallet", config.wallet)
    console.value(
        answers.InitAnswer(
            home=str(home.root),
            node_key=str(home.node_key),
            config=str(home.config),
            node_address=key.address,
            node_key_hash=key_hash,
            tier=machine.tier,
            tier_label=TIER_LABELS[machine.tier],
            wallet=config.wallet,
            replaced=replaced,
        )
    )


def _require_model_name(name: str) -> None:
    if not name or len(name) > MODEL_NAME_MAX or not name.isprintable() or name != name.strip():
        raise ConfigRefused(
            f"model {name[:40]!r}: expected a name such as {DEFAULT_MODEL}, at most {MODEL_NAME_MAX} long"
        )


def _print_calibration(console: Console, measured: Measured, path: str) -> None:
    card, spread = measured.card, measured.card.spreads[-1]
    rejected = sum(measured.rejected.values())
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(measured.rejected.items()))
    console.heading(f"calibration · {card.model} · {card.runtime} {card.runtime_version}")
    lines = (
        ("answers", f"{measured.answers}, {measured.unauditable} of them without a place to compare"),
        ("audits", f"{measured.audits:,} drawn from them, each at some of its places"),
        (
            "distance",
            f"median {spread.median:.4f}, 99 % below {spread.q99:.4f}, largest {spread.largest:.4f}",
        ),
        ("threshold", f"{measured.threshold:.3f}: a distance above it is held against a node"),
        ("false rejects", f"{rejected} of {measured.audits:,}" + (f" ({reasons})" if reasons else "")),
        ("without it", f"{measured.rejected_by_default} of {measured.audits:,}, by the threshold for any model"),
        ("unusable", f"{100 * card.unusable_share:.1f} % of places"),
        ("reading", f"{card.prefill_ms_per_token:.2f} ms a token"),
        ("writing", f"{card.decode_ms_per_token:.2f} ms a token"),
    )
    for label, value in lines:
        console.fact(label, value, label_columns=LABEL_COLUMNS)
    if rejected:
        console.warn("honest answers of this machine would be rejected: say so when you send the card")
    console.done(f"card: {path}")
    console.plain("  Send it to whoever runs the network: it belongs in the coordinator's cards/.")


async def _pull(console: Console, config: Config, name: str) -> None:
    import httpx

    from parallelix.node.runtimes.ollama import Ollama

    async with httpx.AsyncClient(trust_env=False) as http:
        with console.download(name) as bar:
            async with aclosing(Ollama(config.ollama_url, http).pull(name)) as steps:
                last = None
                async for step in steps:
                    if step != last and step.status != "success":
                        bar(step.status, step.completed, step.total)
                        console.value(_pull_event(name, step))
                    last = step


def _pull_event(name: str, step: PullProgress) -> answers.PullEvent:
    return answers.PullEvent(
        model=name,
        status=step.status,
        digest=step.digest,
        completed_bytes=step.completed,
        total_bytes=step.total,
    )


def _service_home(scope: Scope) -> Home:
    """Under `sudo … --system` the folder of the user who typed it, unless PARALLELIX_HOME names one."""
    user = os.environ.get("SUDO_USER")
    if scope == "system" and user and not os.environ.get("PARALLELIX_HOME"):
        return Home(Path(f"~{user}").expanduser() / ".parallelix")
    return Home.from_environment()


def _print_plan(console: Console, chosen: Plan) -> None:
    console.heading(f"{chosen.path}")
    for line in chosen.content.splitlines():
        console.plain(line)
    console.heading("then")
    for command in chosen.commands:
        console.plain(" ".join(command))


def _status(home: Home, config: Config, key: NodeKey | None) -> answers.StatusAnswer:
    stored = state.read(home)
    # Before its first attach a node has no id that the network could be asked about.
    heard, not_heard = standing.hear(home, config, stored.node_id) if stored.node_id else (None, "")
    configured = {name: address for name, address in msgspec.to_builtins(config.contracts).items() if address}
    contracts = standing.contracts_of(heard) | configured
    now = stored.state if heard is None else standing.state_of(stored.state, heard.standing)
    key_hash = "0x" + key.key_hash.hex() if key else ""
    return answers.StatusAnswer(
        state=now,
        state_reason=standing.reason_of(heard.standing) if heard and now is not stored.state else stored.reason,
        state_changed_at=stored.changed_at,
        daemon=files.holder(home),
        node_id=stored.node_id,
        node_address=key.address if key else "",
        node_key_hash=key_hash,
        tier=config.tier,
        wallet=config.wallet,
        chain_id=config.chain_id,
        coordinator=config.coordinator,
        runtime=config.runtime,
        ollama=config.ollama_url,
        contracts=tuple(answers.ContractAnswer(name=name, address=address) for name, address in contracts.items()),
        heartbeats=stored.heartbeats,
        served=stored.served,
        last_heartbeat_at=stored.last_heartbeat_at,
        pause=config.pause,
        source=heard.source if heard is not None else "machine",
        heard_at=heard.at if heard is not None else 0,
        block=heard.standing.block if heard is not None else None,
        not_heard=not_heard,
        notice=stored.notice,
        warnings=tuple(_differences(config, configured, key_hash, heard)),
    )


def _differences(
    config: Config, configured: dict[str, str], key_hash: str, heard: standing.Heard | None
) -> Iterable[str]:
    """Where this folder and the network do not fit together: a node that is started here would be refused."""
    if heard is None:
        return
    said = heard.standing
    if said.chain_id != config.chain_id:
        yield f"the network is on chain {said.chain_id}; set chain_id = {said.chain_id} in config.toml"
    if said.node_key_hash and key_hash and said.node_key_hash != key_hash:
        yield (
            f"node {said.node_id} is registered for nodeKeyHash {said.node_key_hash}, but the key here has {key_hash}; "
            "set PARALLELIX_HOME to the folder that holds the registered key"
        )
    for name, address in configured.items():
        if (other := said.contracts.get(name, address)).lower() != address.lower():
            yield f"{name}: config.toml says {address}, the {heard.source} says {other}; find out which is right"


def _status_lines(answer: answers.StatusAnswer) -> Iterable[tuple[str, str]]:
    missing = "none; run `parallelix-node init`"
    yield "node address", answer.node_address or missing
    yield "nodeKeyHash", answer.node_key_hash or missing
    yield "tier", str(answer.tier) if answer.tier else "unknown; see `parallelix-node probe`"
    yield "chain id", str(answer.chain_id)
    yield "coordinator", answer.coordinator
    if answer.runtime == "ollama":
        yield "ollama", answer.ollama
    else:
        yield "runtime", answer.runtime
    if answer.wallet:
        yield "wallet", answer.wallet
    for contract in answer.contracts:
        yield contract.name, contract.address
    yield "state", _describe_state(answer)
    if answer.node_id:
        yield "as of", _describe_source(answer)
    yield "daemon", f"{answer.daemon} · {_describe_counts(answer)}" if answer.daemon else "not running"
    if answer.notice is not None:
        yield from notice.lines(answer.notice)
    if answer.pause:
        yield "paused", answer.pause


def _describe_state(answer: answers.StatusAnswer) -> str:
    phase, _, activity = answer.state.partition(".")
    if answer.daemon is None and activity:
        activity = "idle, machine off"
    node = f"node {answer.node_id}" if answer.node_id else ""
    if node and answer.state_reason.startswith(f"{node} "):
        node = ""
    return " · ".join(part for part in (phase, activity, node, answer.state_reason) if part)


def _describe_source(answer: answers.StatusAnswer) -> str:
    heard_at = answer.heard_at or max(answer.last_heartbeat_at, answer.state_changed_at)
    who = "this machine" if answer.source == "machine" else f"the {answer.source}"
    if not answer.not_heard:
        return f"now, by {who}" + (f" at block {answer.block}" if answer.block is not None else "")
    age = f"{_ago(heard_at)} ago, by {who}" if heard_at else "never asked"
    return f"{age}; {answer.not_heard}"


def _ago(unix_ms: int) -> str:
    seconds = max(0, int(time.time()) - unix_ms // 1000)
    for unit, size_seconds in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size_seconds:
            return f"{seconds // size_seconds} {unit}"
    return f"{seconds} s"


def _describe_counts(answer: answers.StatusAnswer) -> str:
    return f"heartbeats {answer.heartbeats} · served {answer.served}"


def _asked(question: Coroutine[Any, Any, T]) -> T:
    from parallelix.node.runtimes.base import RuntimeFailed

    try:
        return asyncio.run(question)
    except RuntimeFailed as error:
        raise RuntimeNotReady(str(error)) from error
