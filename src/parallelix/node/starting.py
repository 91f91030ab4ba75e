"""`parallelix-node start`: everything is checked before the daemon runs, and shown while it does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from parallelix.node import verify
from parallelix.node.answers import StartEvent
from parallelix.node.config import Config, checked, load_config
from parallelix.node.console import Console, client_version
from parallelix.node.errors import ConfigRefused, GpuMissing, ModelNotPresent, NodeError, RuntimeNotReady, TierMismatch
from parallelix.node.home import Home, exclusive
from parallelix.node.keys import NodeKeys, load_keys
from parallelix.node.probe import Machine, probe_machine
from parallelix.node.runtime_choice import open_runtime
from parallelix.node.runtimes.base import Model, Runtime, RuntimeFailed
from parallelix.node.state import State, read
from parallelix.protocol.ids import NODE_ID_MAX
from parallelix.protocol.messages import Hardware

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

    from parallelix.node.events import DaemonEvent

Mode = Literal["gpu", "cpu"]
TEXT_MAX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The command line of `start`; None and empty mean what config.toml says."""

    node_id: str | None = None
    gpu: bool = False
    cpu: bool = False
    models: tuple[str, ...] = ()
    runtime: str | None = None
    gguf: tuple[str, ...] = ()
    slots: int | None = None
    coordinator: str | None = None
    tier: int | None = None


def merged(config: Config, options: Options) -> Config:
    """The command line over the file. Raises `ConfigRefused`."""
    runtime = options.runtime or ("llama_cpp" if options.gguf else config.runtime)
    changes = {
        "models": options.models or config.models,
        "runtime": runtime,
        "gguf": options.gguf or config.gguf,
        "slots": config.slots if options.slots is None else options.slots,
        "coordinator": options.coordinator or config.coordinator,
        "tier": config.tier if options.tier is None else options.tier,
    }
    try:
        chosen = msgspec.convert(msgspec.to_builtins(msgspec.structs.replace(config, **changes)), Config)
    except msgspec.ValidationError as error:
        raise ConfigRefused(f"start: {error}") from error
    if chosen.runtime == "llama_cpp" and not chosen.gguf:
        raise ConfigRefused("runtime llama_cpp: no model file; name one with --gguf PATH, or `gguf` in config.toml")
    return checked(chosen)


def chosen_node_id(text: str | None, home: Home) -> int:
    """From the command line, else the node that was attached last. Raises `ConfigRefused`."""
    text = text or read(home).node_id
    if not text:
        raise ConfigRefused("--node-id: missing; registerNode in the Console prints the id of your node")
    if not text.isascii() or not text.isdecimal() or int(text[:79]) > NODE_ID_MAX:
        raise ConfigRefused(f"--node-id {text[:80]!r}: expected the decimal number that registerNode gave")
    return int(text)


def chosen_mode(options: Options, machine: Machine) -> Mode:
    """Raises `ConfigRefused` for both, `GpuMissing` for a GPU that is not there."""
    require_one_mode(options)
    if options.gpu and not machine.has_gpu:
        raise GpuMissing(
            f"--gpu: no usable GPU found ({machine.usable_vram_mib} MiB of usable VRAM); "
            "install its driver and see `parallelix-node probe`, or use --cpu"
        )
    return "gpu" if options.gpu or (machine.has_gpu and not options.cpu) else "cpu"


def require_one_mode(options: Options) -> None:
    """Raises `ConfigRefused`."""
    if options.gpu and options.cpu:
        raise ConfigRefused("--gpu and --cpu: choose one")


def require_tier(probed: int, registered: int) -> None:
    """Raises `TierMismatch` when the machine is below what was registered; 0 is unknown."""
    if probed < registered:
        raise TierMismatch(
            f"this machine maps to tier {probed}, below the registered tier {registered}; repair the GPU (see "
            "`parallelix-node probe`), or register a node of this tier and set `tier` in config.toml"
        )


def hardware(machine: Machine, mode: Mode) -> Hardware:
    """For the manifest. In cpu mode the GPU is not offered."""
    gpus = machine.gpus if mode == "gpu" else ()
    return Hardware(
        gpu_model=gpus[0].name[:TEXT_MAX] if gpus else "",
        gpu_count=len(gpus),
        vram_mib=machine.usable_vram_mib if gpus else 0,
        cpu_model=machine.cpu.name[:TEXT_MAX],
        cpu_cores=machine.cpu.cores,
        memory_mib=machine.cpu.memory_mib,
    )


async def require_runtime(runtime: Runtime, allowed: Sequence[str]) -> list[Model]:
    """The models to be served. Raises `RuntimeNotReady` or `ModelNotPresent`."""
    for check in await verify.check_runtime(runtime):
        if not check.passed and not check.warning:
            raise RuntimeNotReady(check.message)
    check = await verify.check_models(runtime, allowed)
    if not check.passed:
        raise ModelNotPresent(check.message)
    models = await runtime.models()
    return [
        model for model in models if not allowed or any(verify.is_installed(name, [model.name]) for name in allowed)
    ]


def checked_arguments(options: Options, home: Home) -> list[str]:
    """What to write after `start` in a service, with everything that needs no runtime checked."""
    node_id = chosen_node_id(options.node_id, home)
    require_one_mode(options)
    merged(load_config(home), options)
    given = {"--runtime": options.runtime, "--slots": options.slots, "--coordinator": options.coordinator}
    arguments = ["--node-id", str(node_id), *(["--gpu"] if options.gpu else []), *(["--cpu"] if options.cpu else [])]
    for name, value in (given | {"--tier": options.tier}).items():
        arguments += [] if value is None else [name, str(value)]
    for name, values in (("--model", options.models), ("--gguf", options.gguf)):
        arguments += [part for value in values for part in (name, value)]
    return arguments


def start(console: Console, options: Options, *, foreground: bool) -> int:
    """Runs the daemon to its end; the exit code. Raises `NodeError` for whatever keeps it from starting."""
    from parallelix.node.logging import open_log

    home = Home.from_environment()
    node_keys = load_keys(home)
    with exclusive(home, purpose="start"):
        log = open_log(home, echo=foreground and not console.json)
        try:
            return asyncio.run(_run(console, options, home, node_keys, live=not foreground))
        except RuntimeFailed as error:
            raise _logged(log, RuntimeNotReady(str(error))) from error
        except NodeError as error:
            raise _logged(log, error) from error.__cause__


async def _run(console: Console, options: Options, home: Home, node_keys: NodeKeys, *, live: bool) -> int:
    from parallelix.node.daemon import DaemonSettings, run_daemon

    config = merged(load_config(home), options)
    node_id = chosen_node_id(options.node_id, home)
    machine = probe_machine()
    require_tier(machine.tier, config.tier)
    mode = chosen_mode(options, machine)
    tier = machine.tier if mode == "gpu" else 1
    require_tier(tier, config.tier)
    async with open_runtime(config) as runtime:
        models = await require_runtime(runtime, config.models)
        console.heading(f"parallelix-node {client_version()}")
        settings = DaemonSettings(
            node_id=node_id,
            chain_id=config.chain_id,
            coordinator_url=config.coordinator,
            mode=mode,
            hardware=hardware(machine, mode),
            hardware_tier=tier,
            region=config.region,
            slots=config.slots,
            models=tuple(model.name for model in models) if config.models else (),
            home=home.root,
            hours=config.hours,
        )
        display = Display(console, coordinator=config.coordinator, live=live)
        ended = await run_daemon(settings, keys=node_keys, runtime=runtime, on_event=display.show)
    display.end(ended.reason, ended.message, ended.exit_code)
    return ended.exit_code


class Display:
    """What an operator sees of a running daemon: one live line, and above it what needs attention."""

    def __init__(self, console: Console, *, coordinator: str, live: bool) -> None:
        self._console = console
        self._live = live
        self._heartbeats = 0
        self._served = 0
        self._up = False
        self._activity = "idle"
        self._line(f"attaching to {coordinator}")

    def show(self, event: DaemonEvent) -> None:
        if event.name == "heartbeat":
            self._heartbeats += 1
        else:
            self._console.value(
                StartEvent(event=event.name, subject=event.subject, level=event.level, fields=dict(event.fields))
            )
        if event.name == "served":
            self._served += 1
        elif event.name == "state.transition":
            self._activity = "running inference" if event.fields.get("target") == State.ACTIVE_RUNNING else "idle"
        elif event.name == "attached" and not self._up:
            self._up = True
            self._console.done("daemon up · heartbeating + serving · ctrl-c to stop")
        elif event.name in ("paused", "resumed", "draining"):
            self._activity = "idle" if event.name == "resumed" else event.name
            self._warn(event)
        elif event.level != "info" and event.name != "stop":
            self._warn(event)
        if self._up:
            self._line(f"active · heartbeats {self._heartbeats} · served {self._served} · {self._activity}")

    def end(self, reason: str, message: str, exit_code: int) -> None:
        self._console.clear_live()
        self._console.value(
            StartEvent(
                event="exit",
                level="info" if exit_code == 0 else "error",
                fields={"reason": reason, "message": message, "exit_code": exit_code},
            )
        )
        if reason == "stopped":
            self._console.done(f"stopped · heartbeats {self._heartbeats} · served {self._served}")
        elif exit_code == 0:
            self._console.warn(f"{reason}: {message}")
        else:
            self._console.error(f"node.{reason}", message)

    def _warn(self, event: DaemonEvent) -> None:
        # In the foreground the log is printed, and has it already.
        if self._live:
            self._console.warn(_sentence(event))

    def _line(self, text: str) -> None:
        if self._live:
            self._console.live(text)


def _sentence(event: DaemonEvent) -> str:
    reason = event.fields.get("reason") or event.fields.get("code")
    subject = f" {event.subject}" if event.subject else ""
    return f"{event.name}{subject}{f': {reason}' if reason else ''}"


def _logged(log: BoundLogger, error: NodeError) -> NodeError:
    log.error("start.refused", code=error.code, message=error.message)
    return error
