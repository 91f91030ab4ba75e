"""A coordinator of this machine, as the command line runs it and asks things of its store."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import uvloop

from parallelix.coordinator import app, secrets, settings
from parallelix.coordinator.auditing import CardRefused
from parallelix.coordinator.commands import CommandAnswer, GrantCommand, KeyCommand, RevokeCommand, command_row
from parallelix.coordinator.logging import make_log
from parallelix.coordinator.ports import ChainNotUsable, RegistryUnreadable
from parallelix.coordinator.registry_file import parse as parse_registry
from parallelix.coordinator.secrets import SecretRefused
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.coordinator.store.errors import StoreError
from parallelix.coordinator.store.store import Store
from parallelix.engine import catalogue
from parallelix.engine.catalogue import CatalogueError
from parallelix.engine.ledger import AMOUNT_WEI_MAX
from parallelix.engine.rows import KeyRow
from parallelix.protocol.canonical import decode_json

SILENT_SECONDS = 2.0
"""A running coordinator looks five times a second. After this long it is asked whether there is one."""
APPLY_SECONDS_MAX = 30.0
"""For one that is very busy."""
LOOK_SECONDS = 0.05

CATALOGUE = """\
# The models on offer. Prices are wei per 1,000 tokens (1 PRLX is 10^18 wei). A change holds from the next start.
# `digests` are the SHA-256 of the weights files that count as this model; on a node, this prints them:
#   parallelix-node models --json
#
# [[models]]
# name = "llama3.2"
# digests = ["<64 hex digits>"]
# prompt_wei_per_1000 = "100000000000000"
# completion_wei_per_1000 = "300000000000000"
# context_tokens = 8192
# max_tokens_default = 256
# max_tokens_max = 4096
"""


class LocalRefused(Exception):
    """The coordinator or its store cannot do what was asked; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a coordinator will start with. `address` signs its receipts. On a chain `registrations` is 0: the contract
    knows who is registered."""

    settings: CoordinatorSettings
    models: tuple[str, ...]
    registrations: int
    address: str


def prepare(folder: Path, given: dict[str, Any]) -> Prepared:
    """Reads everything that a start needs, and makes what a first start lacks: keys, and a catalogue that offers
    nothing. Raises `SettingsError` or `LocalRefused`."""
    chosen = settings.load(folder, given)
    with _refusals():
        chosen.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not chosen.catalogue_path.exists() and not chosen.catalogue_file:
            chosen.catalogue_path.write_text(CATALOGUE)
        offers = catalogue.parse(chosen.catalogue_path.read_text(), source=str(chosen.catalogue_path))
        return Prepared(
            settings=chosen,
            models=tuple(each.name for each in offers.models),
            registrations=0 if chosen.is_on_chain else _registrations(chosen.registry_path),
            address=secrets.load_or_create(chosen.folder).signer.address,
        )


def _registrations(registry: Path) -> int:
    return len(parse_registry(registry.read_bytes())) if registry.exists() else 0


def serve(prepared: Prepared, *, on_ready: Callable[[str], None]) -> None:
    """Runs until SIGTERM or SIGINT, its log on standard error. Raises `LocalRefused` when it cannot start."""
    with _refusals():
        uvloop.run(app.run(prepared.settings, log=make_log(sys.stderr), on_ready=on_ready))


def grant(chosen: CoordinatorSettings, *, account: str, amount_wei: int) -> bool:
    """Like the others here: whether a coordinator applied it; if not, the next one to start will. Raises
    `LocalRefused`."""
    if not 0 < amount_wei <= AMOUNT_WEI_MAX:
        raise LocalRefused(f"amount {amount_wei} wei: expected 1 to {AMOUNT_WEI_MAX} wei")
    return _ask(chosen, "grant", GrantCommand(account=account, amount_wei=str(amount_wei)))


def issue_key(chosen: CoordinatorSettings, key: KeyCommand) -> bool:
    return _ask(chosen, "key", key)


def revoke_key(chosen: CoordinatorSettings, key_id: str) -> bool:
    return _ask(chosen, "revoke", RevokeCommand(key_id=key_id))


def keys(chosen: CoordinatorSettings) -> tuple[KeyRow, ...]:
    with _store(chosen) as store:
        return store.load(now=_now()).keys


def _ask(chosen: CoordinatorSettings, kind: Literal["grant", "key", "revoke"], body: msgspec.Struct) -> bool:
    row = command_row(kind, body, now=_now())
    with _store(chosen) as store:
        store.insert_command(row)
        return _was_applied(store, row.command_id)


def _was_applied(store: Store, command_id: str) -> bool:
    begun = time.monotonic()
    wait_seconds = SILENT_SECONDS
    while True:
        found = store.command(command_id)
        if found is not None and found.applied_at:
            answer = decode_json(found.answer, CommandAnswer)
            if not answer.ok:
                raise LocalRefused(answer.message)
            return True
        if time.monotonic() - begun > wait_seconds:
            if wait_seconds == APPLY_SECONDS_MAX or not store.is_led():
                return False
            wait_seconds = APPLY_SECONDS_MAX
        time.sleep(LOOK_SECONDS)


@contextmanager
def _store(chosen: CoordinatorSettings) -> Generator[Store]:
    with _refusals():
        store = Store.open(chosen.database_url)
        try:
            yield store
        finally:
            store.close()


@contextmanager
def _refusals() -> Generator[None]:
    try:
        yield
    except (CardRefused, ChainNotUsable, StoreError, CatalogueError, RegistryUnreadable, SecretRefused) as error:
        raise LocalRefused(str(error)) from error
    except OSError as error:
        what = error.filename or "the address to listen on"
        raise LocalRefused(f"{what}: {error.strerror or error}; see --folder, --host and --port") from error


def _now() -> int:
    return time.time_ns() // 1_000_000
