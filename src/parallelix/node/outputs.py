"""What each command answers to --json. The JSON schemas in `docs/schemas/node-cli` are made from these."""

from __future__ import annotations

from typing import Literal

import msgspec


class GpuOutput(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    vendor: Literal["nvidia", "amd", "apple"]
    memory_mib: int
    usable_mib: int


class CpuOutput(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    cores: int
    memory_mib: int


class OllamaOutput(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    running: bool
    version: str


class ProbeOutput(msgspec.Struct, frozen=True, kw_only=True):
    """`usable_vram_mib` is what the tier is judged by."""

    gpus: tuple[GpuOutput, ...]
    cpu: CpuOutput
    ollama: OllamaOutput
    usable_vram_mib: int
    tier: int
    tier_label: str


class InitOutput(msgspec.Struct, frozen=True, kw_only=True):
    """`node_key_hash` and `tier` are what `registerNode` takes."""

    home: str
    node_key: str
    config: str
    node_address: str
    node_key_hash: str
    tier: int
    tier_label: str
    wallet: str
    replaced: bool


class ModelOutput(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: str
    size_bytes: int
    context_tokens: int
    features: tuple[str, ...]


class ModelsOutput(msgspec.Struct, frozen=True, kw_only=True):
    runtime: str
    models: tuple[ModelOutput, ...]


class PullEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line each while a model is pulled; `done` is true on the last. Byte counts are 0 while unknown."""

    event: Literal["pull"] = "pull"
    model: str
    status: str
    digest: str = ""
    completed_bytes: int = 0
    total_bytes: int = 0
    done: bool = False


class StartEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line each while the daemon runs; `exit` is the last."""

    event: str
    node_id: str
    heartbeats: int = 0
    served: int = 0
    running: int = 0
    reason: str = ""
    message: str = ""
    exit_code: int | None = None


class ServiceOutput(msgspec.Struct, frozen=True, kw_only=True):
    manager: Literal["systemd", "launchd"]
    scope: Literal["user", "system"]
    name: str
    path: str
    content: str
    commands: tuple[tuple[str, ...], ...]
    changed: bool
    """False after --dry-run."""


class CheckOutput(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    passed: bool
    message: str


class VerifyOutput(msgspec.Struct, frozen=True, kw_only=True):
    passed: bool
    checks: tuple[CheckOutput, ...]


class ContractOutput(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    address: str


class StatusOutput(msgspec.Struct, frozen=True, kw_only=True):
    """`state` is of the table in state.py. Times are Unix milliseconds, 0 when there was none."""

    state: str
    state_reason: str
    state_changed_at: int
    daemon: str | None
    node_id: str
    node_address: str
    node_key_hash: str
    tier: int
    wallet: str
    coordinator: str
    ollama: str
    runtime: str
    contracts: tuple[ContractOutput, ...]
    heartbeats: int
    served: int
    last_heartbeat_at: int
    pause: str


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of node.log. What is no line of ours has an empty `time` and its text as `event`."""

    time: str
    event: str
    subject: str = ""
    fields: dict[str, str] = {}


class VersionOutput(msgspec.Struct, frozen=True, kw_only=True):
    name: Literal["parallelix-node"] = "parallelix-node"
    version: str


class ErrorOutput(msgspec.Struct, frozen=True, kw_only=True):
    """On standard error, with the exit code."""

    error: str
    message: str


SCHEMAS: dict[str, type[msgspec.Struct]] = {
    "error": ErrorOutput,
    "init": InitOutput,
    "logs": LogLine,
    "models": ModelsOutput,
    "models-pull": PullEvent,
    "probe": ProbeOutput,
    "service": ServiceOutput,
    "start": StartEvent,
    "status": StatusOutput,
    "verify": VerifyOutput,
    "version": VersionOutput,
}
"""One schema file for each name."""
