"""The bodies of the operator's calls: frozen, bounded, unknown fields ignored.

Integers above 2^53 and all PRLX amounts travel as decimal strings in wei; hashes and signatures as 0x-hex, other bytes
as base64url; times as Unix milliseconds.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from parallelix.protocol.canonical import Count
from parallelix.protocol.encoding import whole
from parallelix.protocol.work import Usage

SLOTS_MAX = 256
"""More than any one machine's runtime serves at once; a bound on what one node can reserve."""
MODELS_MAX = 256
"""Installed models that one manifest may list."""
PAYLOAD_BYTES_MAX = 4 * 1024 * 1024
"""A context of 1 M tokens at four bytes each. More is a bug or an attack."""
RESULT_BYTES_MAX = 40 * 1024 * 1024
"""32,768 tokens with twenty alternatives each are near 20 MiB of JSON; in base64url inside and outside the seal, 16/9
of that."""
FRAME_BYTES_MAX = 256 * 1024
"""One sealed delta: a few tokens with twenty alternatives each are a few KiB."""
OPERATOR_BODY_BYTES_MAX = 256 * 1024
"""Attach, heartbeat and acknowledgement bodies."""
UPTIME_PROOFS_MAX = 60
"""Those of ten minutes. A coordinator writes slots each minute, so a crash loses no more than two; checking a signature
takes it a tenth of a millisecond."""

HEADER_NODE = "x-parallelix-node"
HEADER_SESSION = "x-parallelix-session"
HEADER_TIME = "x-parallelix-time"
HEADER_SIGNATURE = "x-parallelix-signature"
HEADER_CONNECTION = "x-parallelix-connection"
HEADER_OFFSET = "x-parallelix-offset"

ShortText: TypeAlias = Annotated[str, Meta(max_length=128)]
LongText: TypeAlias = Annotated[str, Meta(max_length=4096)]
Digest: TypeAlias = Annotated[str, whole("[0-9a-f]{64}")]
AttemptText: TypeAlias = Annotated[str, whole("att_[0-9a-f]{32}")]
NodeText: TypeAlias = Annotated[str, whole("0|[1-9][0-9]{0,77}")]
"""A node id in decimal, without leading zeros."""

Features: TypeAlias = Annotated[tuple[ShortText, ...], Meta(max_length=32)]


class Hardware(msgspec.Struct, frozen=True, kw_only=True):
    """`gpu_model` is empty and `vram_mib` 0 on a machine without a usable GPU."""

    gpu_model: ShortText = ""
    gpu_count: Annotated[int, Meta(ge=0, le=1024)] = 0
    vram_mib: Count = 0
    cpu_model: ShortText = ""
    cpu_cores: Annotated[int, Meta(ge=1, le=65536)]
    memory_mib: Count = 0


class RuntimeInfo(msgspec.Struct, frozen=True, kw_only=True):
    name: ShortText
    version: ShortText


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True):
    """`digest` is the SHA-256 of the weights file, the same in every runtime."""

    name: ShortText
    digest: Digest
    context_tokens: Annotated[int, Meta(ge=1, le=2**31)]
    features: Features = ()


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a node can do, signed by hash at attach. `issued_at` makes every attach a new session.

    `run_id` is random and the same for one run of the daemon: another one tells that the last run's work is lost."""

    version: Literal[1] = 1
    node_id: NodeText
    chain_id: Count
    mode: Literal["gpu", "cpu"]
    hardware_tier: Annotated[int, Meta(ge=1, le=4)]
    hardware: Hardware
    region: ShortText = ""
    workload_classes: Annotated[tuple[ShortText, ...], Meta(min_length=1, max_length=16)]
    runtimes: Annotated[tuple[RuntimeInfo, ...], Meta(max_length=16)]
    models: Annotated[tuple[ModelInfo, ...], Meta(max_length=MODELS_MAX)]
    slots: Annotated[int, Meta(ge=1, le=SLOTS_MAX)]
    envelope_key: LongText
    """RSA-3072 public key in PEM; payload keys are sealed to it."""
    poe_key: LongText
    """RSA-3072 public key in PEM; proofs of execution are signed with it."""
    client_version: ShortText
    issued_at: Count
    run_id: ShortText


class Attach(msgspec.Struct, frozen=True, kw_only=True):
    """`manifest` is the JSON text itself, because its bytes are what was hashed and signed."""

    manifest: Annotated[str, Meta(max_length=OPERATOR_BODY_BYTES_MAX)]
    public_key: Annotated[str, whole("0x[0-9a-f]{128}")]
    signature: Annotated[str, whole("0x[0-9a-f]{130}")]


Period: TypeAlias = Annotated[float, Meta(ge=0.1, le=3600)]
"""Seconds between calls that a coordinator may ask for: a node that does nothing else, or falls silent, is no node."""


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    """Session facts. `coordinator` is the address that countersigns heartbeats and signs receipts."""

    session: ShortText
    chain_id: Count
    coordinator: ShortText
    server_time: Count
    heartbeat_seconds: Period
    poll_seconds: Period
    acknowledge_seconds: Period
    offline_seconds: Period


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    """`paused` asks for no new work (maintenance, or outside the operator's hours); `message` says why."""

    slots_free: Annotated[int, Meta(ge=0, le=SLOTS_MAX)] = 0
    paused: bool = False
    message: ShortText = ""


class Notice(msgspec.Struct, frozen=True, kw_only=True):
    """What the coordinator thinks of the calling node, told with each heartbeat. `rate_percent` is how many of its
    results are audited; `strikes` how many units running it did not acknowledge; `floor` the speed that it must show
    before `prove_until`, empty where it need not; `benched` why it does not count as online, empty while it does; times
    are Unix milliseconds, 0 for never."""

    rate_percent: Annotated[int, Meta(ge=0, le=100)] = 0
    audited: Count = 0
    disagreed: Count = 0
    strikes: Count = 0
    proven_at: Count = 0
    prove_until: Count = 0
    floor: ShortText = ""
    benched: ShortText = ""
    removed_until: Count = 0


class UptimeReceipt(msgspec.Struct, frozen=True, kw_only=True):
    """`signature` is the coordinator's over `signing.receipt_text`; the operator keeps it.

    `started_at` is when the coordinator started: another one than before may have lost slots, which `RestoreUptime`
    brings back."""

    node_id: NodeText
    session: ShortText
    unix_ms: Count
    slot: Count
    credited: bool
    server_time: Count
    started_at: Count = 0
    signature: Annotated[str, Meta(max_length=256)]
    notice: Notice | None = None


class UptimeProof(msgspec.Struct, frozen=True, kw_only=True):
    """What is countersigned in an `UptimeReceipt` of the calling node."""

    session: Annotated[str, whole("[0-9a-f]{32}")]
    unix_ms: Count
    signature: Annotated[str, whole("0x[0-9a-f]{130}")]


class RestoreUptime(msgspec.Struct, frozen=True, kw_only=True):
    """Receipts of the node's last heartbeats, sent again to a coordinator that may have lost their slots."""

    proofs: Annotated[tuple[UptimeProof, ...], Meta(max_length=UPTIME_PROOFS_MAX)]


class UptimeRestored(msgspec.Struct, frozen=True, kw_only=True):
    """`credited` is how many slots were lost and are credited again."""

    credited: int
    server_time: Count


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """One sealed unit for one attempt."""

    attempt_id: str
    attempt_number: int
    unit_id: str
    workload_class: str
    model: str
    model_digest: str
    deadline_seconds: float
    payload: str
    envelope: str


class Cancellation(msgspec.Struct, frozen=True, kw_only=True):
    """`partial` asks for what was generated so far, as a `cancelled` result."""

    attempt_id: str
    reason: str
    partial: bool


class Rejection(msgspec.Struct, frozen=True, kw_only=True):
    """Tells an operator which of its results was refused, and why."""

    attempt_id: str
    unit_id: str
    reason: str
    at: int


class Inbox(msgspec.Struct, frozen=True, kw_only=True):
    work: tuple[Work, ...] = ()
    cancellations: tuple[Cancellation, ...] = ()
    rejections: tuple[Rejection, ...] = ()
    server_time: Count


class Acknowledge(msgspec.Struct, frozen=True, kw_only=True):
    """`sealed` is the text `decrypted` under the acknowledgement key: only who opened the envelope can make it."""

    attempt_id: AttemptText
    sealed: Annotated[str, Meta(max_length=256)]


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    attempt_id: str
    deadline_at: int


ACKNOWLEDGEMENT = b"decrypted"


class StreamEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Answer to a stream that ended. `received_bytes` is the length of the text that arrived, in UTF-8."""

    attempt_id: str
    received_bytes: int


FailureCode: TypeAlias = Literal[
    "node.deadline_exceeded", "node.runtime_failed", "node.tier_mismatch", "node.draining", "node.busy",
    "node.unsupported", "node.paused", "node.bad_envelope",
]  # fmt: skip


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The return of an attempt. `completed` and `cancelled` carry a sealed `ResultDetail` with its proof; `failed` and
    `declined` say why instead."""

    attempt_id: AttemptText
    outcome: Literal["completed", "failed", "declined", "cancelled"]
    result: Annotated[str, Meta(max_length=RESULT_BYTES_MAX)] = ""
    poe: ShortText = ""
    signature: Annotated[str, Meta(max_length=256)] = ""
    poe_signature: Annotated[str, Meta(max_length=2048)] = ""
    code: FailureCode | None = None
    message: Annotated[str, Meta(max_length=512)] = ""


class ResultDetail(msgspec.Struct, frozen=True, kw_only=True):
    """Sealed under the result key. `content` is the canonical result, `entries` the JSON of its log-probabilities; both
    base64url, because their very bytes are hashed."""

    content: str
    entries: str
    salt: str
    usage: Usage
    model_digest: str


class ResultAnswer(msgspec.Struct, frozen=True, kw_only=True):
    attempt_id: str
    accepted: bool
    reason: str = ""


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry says of a node, for whoever asks. `cooldown_ends_at` is Unix seconds, 0 while the stake is
    active; `contracts` are addresses by name, and `block` the last one of the chain that was taken in, both empty where
    the network is on no chain."""

    node_id: NodeText
    state: Literal["active", "cooling", "retired", "unknown"]
    cooldown_ends_at: Count = 0
    hardware_tier: Annotated[int, Meta(ge=0, le=4)] = 0
    node_key_hash: ShortText = ""
    chain_id: Count
    contracts: Annotated[dict[ShortText, ShortText], Meta(max_length=32)] = {}
    block: Count | None = None
    server_time: Count


class ErrorBody(msgspec.Struct, frozen=True, kw_only=True):
    """Every refusal: a stable code, and the thing, its value, the bound and the way out in words."""

    error: str
    message: str
