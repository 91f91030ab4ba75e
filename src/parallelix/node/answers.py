"""What each command answers to --json. The JSON schemas in `docs/schemas/node-cli` are made from these."""

from __future__ import annotations

from typing import Literal

import msgspec

from parallelix.protocol.calibration import Card
from parallelix.protocol.messages import Notice


class GpuAnswer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    vendor: Literal["nvidia", "amd", "apple"]
    memory_mib: int
    usable_mib: int


class CpuAnswer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    cores: int
    memory_mib: int


class OllamaAnswer(msgspec.Struct, frozen=True, kw_only=True):
    url: str
    running: bool
    version: str


class ProbeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`usable_vram_mib` is what the tier is judged by."""

    gpus: tuple[GpuAnswer, ...]
    cpu: CpuAnswer
    ollama: OllamaAnswer
    usable_vram_mib: int
    tier: int
    tier_label: str


class InitAnswer(msgspec.Struct, frozen=True, kw_only=True):
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


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: str
    size_bytes: int
    context_tokens: int
    features: tuple[str, ...]


class ModelsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    runtime: str
    models: tuple[ModelAnswer, ...]


class PullEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line each while a model is pulled; `done` is true on the last. Byte counts are 0 while unknown."""

    event: Literal["pull"] = "pull"
    model: str
    status: str
    digest: str = ""
    completed_bytes: int = 0
    total_bytes: int = 0
    done: bool = False


class CalibrateAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`card` is what was written to `path`. Of `audits` drawn from `answers`, `rejected` would have been held against
    an honest node, by reason: each half is judged by a card made from the other. `rejected_by_default` would have been
    without any card of this model. With it a distance above `threshold` disagrees."""

    path: str
    card: Card
    answers: int
    unauditable: int
    audits: int
    rejected: dict[str, int]
    rejected_by_default: int
    threshold: float


class StartEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One line each while the daemon runs, as in node.log; the last is `exit` with `reason`, `message`, `exit_code`."""

    event: str
    subject: str = ""
    level: Literal["info", "warning", "error"] = "info"
    fields: dict[str, str | int | float | bool] = {}


class ServiceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    manager: Literal["systemd", "launchd"]
    scope: Literal["user", "system"]
    name: str
    path: str
    content: str
    commands: tuple[tuple[str, ...], ...]
    changed: bool
    """False after --dry-run."""


class CheckAnswer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    passed: bool
    message: str


class VerifyAnswer(msgspec.Struct, frozen=True, kw_only=True):
    passed: bool
    checks: tuple[CheckAnswer, ...]


class ContractAnswer(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    address: str


class StatusAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`state` is of the table in state.py. Times are Unix milliseconds, 0 when there was none.

    `source` says who told the state: the chain or the coordinator, at `heard_at`, or this machine alone. `not_heard`
    says why it is not of now."""

    state: str
    state_reason: str
    state_changed_at: int
    daemon: str | None
    node_id: str
    node_address: str
    node_key_hash: str
    tier: int
    wallet: str
    chain_id: int
    coordinator: str
    ollama: str
    runtime: str
    contracts: tuple[ContractAnswer, ...]
    heartbeats: int
    served: int
    last_heartbeat_at: int
    pause: str
    source: Literal["chain", "coordinator", "machine"]
    heard_at: int
    block: int | None
    not_heard: str
    notice: Notice | None
    """What the coordinator thought of the node at the last heartbeat."""
    warnings: tuple[str, ...]


class LogLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of node.log. What is no line of ours has an empty `time` and its text as `event`."""

    time: str
    event: str
    subject: str = ""
    fields: dict[str, str] = {}


class VersionAnswer(msgspec.Struct, frozen=True, kw_only=True):
    name: Literal["parallelix-node"] = "parallelix-node"
    version: str


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """On standard error, with the exit code."""

    error: str
    message: str


SCHEMAS: dict[str, type[msgspec.Struct]] = {
    "error": ErrorAnswer,
    "init": InitAnswer,
    "logs": LogLine,
    "models": ModelsAnswer,
    "models-calibrate": CalibrateAnswer,
    "models-pull": PullEvent,
    "probe": ProbeAnswer,
    "service": ServiceAnswer,
    "start": StartEvent,
    "status": StatusAnswer,
    "verify": VerifyAnswer,
    "version": VersionAnswer,
}
"""One schema file for each name."""
