"""The coordinator's own rows, beside the engine's. What they hold of prompts and answers is sealed."""

from __future__ import annotations

from typing import ClassVar

from parallelix.engine.rows import Row


class PayloadRow(Row, frozen=True, kw_only=True):
    """A request's payload, encrypted once. `wrapped_keys` is the content key and the salt under the storage key."""

    table: ClassVar[str] = "payloads"
    key: ClassVar[tuple[str, ...]] = ("request_id",)

    request_id: str
    sealed: bytes
    wrapped_keys: bytes
    requester_public_key: str
    created_at: int


class EnvelopeRow(Row, frozen=True, kw_only=True):
    """What one attempt's node needs to open the payload. `wrapped_secret` is S under the storage key."""

    table: ClassVar[str] = "envelopes"
    key: ClassVar[tuple[str, ...]] = ("attempt_id",)

    attempt_id: str
    request_id: str
    envelope: str
    wrapped_secret: bytes


class ResultRow(Row, frozen=True, kw_only=True):
    table: ClassVar[str] = "results"
    key: ClassVar[tuple[str, ...]] = ("request_id",)

    request_id: str
    sealed: bytes
    entries: bytes
    expires_at: int


class ClaimRow(Row, frozen=True, kw_only=True):
    """What an open audit compares: the request, what its executor claimed, and what is known beside it, sealed under a
    key of its own. It goes with the verdict, so that nothing more of a request stays here than was there without it."""

    table: ClassVar[str] = "claims"
    key: ClassVar[tuple[str, ...]] = ("audit_id",)

    audit_id: str
    sealed: bytes
    wrapped_key: bytes
    """That key under the storage key."""


class CommandRow(Row, frozen=True, kw_only=True):
    """Something asked on the machine that holds the store. `applied_at` 0 means not yet; `answer` is there after."""

    table: ClassVar[str] = "commands"
    key: ClassVar[tuple[str, ...]] = ("command_id",)

    command_id: str
    kind: str
    body: bytes
    created_at: int
    applied_at: int = 0
    answer: bytes = b""


class IntentRow(Row, frozen=True, kw_only=True):
    """One thing to be done on the chain, once. `attempts` is JSON: every transaction signed for it. `nonce` is -1 until
    one is; `mined_block` 0 until a block has one."""

    table: ClassVar[str] = "intents"
    key: ClassVar[tuple[str, ...]] = ("intent_id",)

    intent_id: str
    role: str
    nonce: int
    to_address: str
    data: bytes
    attempts: str
    state: str
    mined_block: int
    created_at: int
    reference: str


class LeaderRow(Row, frozen=True, kw_only=True):
    """The one row that every commit is conditional on. Each new leader raises `epoch`, each commit `commit_number`."""

    table: ClassVar[str] = "leader"
    key: ClassVar[tuple[str, ...]] = ("id",)

    id: int
    epoch: int
    commit_number: int
    instance: str
