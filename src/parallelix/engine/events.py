"""Everything that can happen to the engine. The shell has authenticated whoever said it; the engine decides.

Crypto is done by then too: the facts of a returned result arrive with the verdict of `validator.examine`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from parallelix.engine.catalogue import Priority
from parallelix.engine.chain_facts import ChainFact
from parallelix.protocol.messages import Manifest
from parallelix.protocol.registry import Registration
from parallelix.protocol.spot_check import Finding
from parallelix.protocol.work import Usage, WorkKind


class Admit(msgspec.Struct, frozen=True, kw_only=True):
    """A request at the door. `attached` says that a client waits on the connection (a stream, or an OpenAI call)."""

    account: str
    key_id: str
    workload_class: str
    kind: WorkKind
    model: str
    hardware_tier: int = 1
    priority: Priority = "standard"
    deadline_ms: int = 0
    queue_ms: int | None = None
    prompt_bytes: int
    message_count: int = 1
    max_tokens: int | None = None
    features: tuple[str, ...] = ()
    attached: bool = False
    idempotency_key: str = ""
    fingerprint: str = ""
    only_node: int | None = None
    """The one node that may serve it: a challenge."""


class Cancel(msgspec.Struct, frozen=True, kw_only=True):
    """`charged` asks the node for a partial result, which is recorded and paid for; without it the work is dropped."""

    request_id: str
    charged: bool
    reason: str


class ClientReturned(msgspec.Struct, frozen=True, kw_only=True):
    """The client of an orphaned request is waiting again."""

    request_id: str


class RegistryChanged(msgspec.Struct, frozen=True, kw_only=True):
    registrations: tuple[Registration, ...] = ()
    removed: tuple[int, ...] = ()


class Attached(msgspec.Struct, frozen=True, kw_only=True):
    node_id: int
    session: str
    manifest: Manifest
    manifest_json: str
    public_key: str


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True):
    node_id: int
    unix_ms: int
    paused: bool


class Acknowledged(msgspec.Struct, frozen=True, kw_only=True):
    attempt_id: str
    node_id: int


class ExecutionFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What goes into the record of a verified result, and what is charged for it."""

    usage: Usage
    entries_counted: int
    input_hash: str
    result_hash: str
    poe_commitment: str
    model_digest: str
    draw: int = 0
    """`sampling.draw` under the secret of the attempt's epoch."""
    spot_check: bool = True
    """Whether a few positions of it can be compared; otherwise an audit begins by running it again whole."""
    has_room: bool = True
    """Whether the shell can keep what one more audit needs; otherwise it stays unaudited."""


class ResultReturned(msgspec.Struct, frozen=True, kw_only=True):
    """`facts` are there exactly when the result passed verification; otherwise `code` and `message` say what is
    wrong with it, or why the node did not make one."""

    attempt_id: str
    node_id: int
    outcome: Literal["completed", "cancelled", "failed", "declined", "rejected"]
    facts: ExecutionFacts | None = None
    code: str = ""
    message: str = ""


class AuditAnswered(msgspec.Struct, frozen=True, kw_only=True):
    """An auditor's verified answer, compared with the executor's claim, and with the first auditor's answer where this
    is the third node's."""

    attempt_id: str
    node_id: int
    finding: Finding
    third: Finding | None = None
    """Against the first auditor's answer."""


class EpochBegan(msgspec.Struct, frozen=True, kw_only=True):
    """The secret of `epoch` is committed to (0x-hex): attempts from now on belong to it."""

    epoch: int
    commitment: str


class EpochRevealed(msgspec.Struct, frozen=True, kw_only=True):
    """The secret of a past epoch (0x-hex) is public."""

    epoch: int
    secret: str


class BatchConfirmed(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    reference: str


class ChainSpan(msgspec.Struct, frozen=True, kw_only=True):
    """All that the contracts said in the confirmed blocks `first_block` to `last_block`, which follow the last span's.
    `last_hash` and `last_time` (Unix seconds) are those of the last block."""

    first_block: int
    last_block: int
    last_hash: str
    last_time: int
    facts: tuple[ChainFact, ...] = ()


class ChainProvisional(msgspec.Struct, frozen=True, kw_only=True):
    """The newest block, its Unix second, and the wei that accounts ask to withdraw in blocks not confirmed yet."""

    block: int
    time: int
    asked: dict[str, int]


class ChainHalted(msgspec.Struct, frozen=True, kw_only=True):
    """What the chain says and what we know differ in `part`; nothing that depends on it goes on. Lifted by an empty
    `reason`."""

    part: Literal["registry", "vault", "anchor", "chain"]
    reason: str


class ClearanceAsked(msgspec.Struct, frozen=True, kw_only=True):
    """An account wants `amount_wei` of its deposit out, at once."""

    account: str
    amount_wei: int


class UptimeRestored(msgspec.Struct, frozen=True, kw_only=True):
    """Slots that a node proves by our own receipts, all of them checked."""

    node_id: int
    slots: tuple[int, ...]


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Credits given by whoever runs the network. The shell hands in each `grant_id` once."""

    grant_id: str
    account: str
    amount_wei: int

    @property
    def transfer_id(self) -> str:
        return f"grant:{self.grant_id}"


class KeyIssued(msgspec.Struct, frozen=True, kw_only=True):
    key_id: str
    key_hash: str
    account: str
    name: str
    requests_per_minute: int = 0
    concurrency: int = 0
    budget_wei: int = 0
    expires_at: int = 0
    scopes: str = "inference,read"
    kind: str = "key"


class KeyRevoked(msgspec.Struct, frozen=True, kw_only=True):
    key_id: str


class KeysForgotten(msgspec.Struct, frozen=True, kw_only=True):
    """Keys that are over and whose rows the shell deletes."""

    key_ids: tuple[str, ...]


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """Time passed; whatever is due happens."""


Event: TypeAlias = (
    Admit
    | Cancel
    | ClientReturned
    | RegistryChanged
    | Attached
    | Heartbeat
    | Acknowledged
    | ResultReturned
    | AuditAnswered
    | EpochBegan
    | EpochRevealed
    | BatchConfirmed
    | ChainSpan
    | ChainProvisional
    | ChainHalted
    | ClearanceAsked
    | UptimeRestored
    | Grant
    | KeyIssued
    | KeyRevoked
    | KeysForgotten
    | Tick
)
