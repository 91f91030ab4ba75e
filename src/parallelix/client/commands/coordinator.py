"""`coordinator run`, `coordinator grant`, `coordinator key`: on the machine that holds the store.

There is no administration over HTTP. A grant or a key is a row in the store, which the running coordinator applies.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from parallelix.client import amounts, answers
from parallelix.client import config as configs
from parallelix.client.commands.extras import needing
from parallelix.client.commands.opening import moment
from parallelix.client.errors import ConfigRefused, CoordinatorRefused

if TYPE_CHECKING:
    import msgspec

    from parallelix.coordinator.settings import CoordinatorSettings
    from parallelix.coordinator.store.store import Store
    from parallelix.terminal import Console

SILENT_SECONDS = 2.0
"""A running coordinator looks five times a second. After this long it is asked whether there is one."""
APPLY_SECONDS_MAX = 30.0
"""For one that is very busy."""
LOOK_SECONDS = 0.05
NAME_CHARACTERS_MAX = 128
LIMIT_MAX = 1_000_000
DAYS_MAX = 3650
DAY_MS = 86_400_000

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """0, and an empty budget, mean none."""

    requests_per_minute: int
    concurrency: int
    budget: str
    days: int


def run(console: Console, *, folder: Path | None, host: str, port: int | None) -> None:
    with needing("coordinator"):
        import uvloop

        from parallelix.coordinator import app, secrets
        from parallelix.coordinator.logging import make_log
        from parallelix.coordinator.registry_file import parse as parse_registry
        from parallelix.engine import catalogue
    import sys

    given: dict[str, Any] = {name: value for name, value in (("host", host), ("port", port)) if value not in ("", None)}
    settings = _settings(folder, given, must_exist=False)
    with _refusals():
        if settings.folder == _default_folder():
            configs.make_folder()
        settings.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not settings.catalogue_path.exists() and not settings.catalogue_file:
            settings.catalogue_path.write_text(CATALOGUE)
        models = [each.name for each in catalogue.parse(settings.catalogue_path.read_text()).models]
        registry = settings.registry_path
        registrations = len(parse_registry(registry.read_bytes())) if registry.exists() else 0
        address = secrets.load_or_create(settings.folder).signer.address

        def ready(url: str) -> None:
            answer = answers.RunAnswer(
                url=url,
                folder=str(settings.folder),
                coordinator=address,
                models=tuple(models),
                registrations=registrations,
            )
            print_running(console, answer, settings)
            console.value(answer)

        uvloop.run(app.run(settings, log=make_log(sys.stderr), on_ready=ready))


def print_running(console: Console, answer: answers.RunAnswer, settings: CoordinatorSettings) -> None:
    columns = 8
    console.heading(f"coordinator · {answer.url}")
    console.fact("folder", configs.shown(settings.folder), label_columns=columns)
    console.fact("signs as", answer.coordinator, label_columns=columns)
    console.fact("models", ", ".join(answer.models) or "none", label_columns=columns)
    console.fact("nodes", f"{answer.registrations} registered", label_columns=columns)
    if not answer.models:
        console.warn(f"offers nothing yet: list models in {configs.shown(settings.catalogue_path)}, start again")
    if not answer.registrations:
        console.warn(f"knows no node yet: register some in {configs.shown(settings.registry_path)}")
    is_default = settings.folder == _default_folder()
    place = "" if is_default else f" --folder {configs.shown(settings.folder)}"
    console.plain("  next, in another terminal:")
    console.plain(f"    parallelix coordinator grant you 100prlx{place}")
    console.plain(f"    parallelix coordinator key you{place}")
    console.plain(f"    parallelix login --url {answer.url}")
    console.plain('    parallelix ask "Hello"')


def grant(console: Console, *, folder: Path | None, account: str, amount: str) -> None:
    with needing("coordinator"):
        from parallelix.coordinator.commands import GrantCommand
        from parallelix.engine.ledger import AMOUNT_WEI_MAX

    _require_name(account, "account")
    amount_wei = amounts.read(amount, name="amount")
    if not 0 < amount_wei <= AMOUNT_WEI_MAX:
        raise ConfigRefused(f"amount {amount[:40]}: expected 1 wei to {amounts.shown(AMOUNT_WEI_MAX)}")
    with _store(folder) as store:
        applied = _leave(store, "grant", GrantCommand(account=account, amount_wei=str(amount_wei)))
    _say(console, f"{amounts.shown(amount_wei)} granted to account {account}", applied=applied)
    console.value(answers.GrantAnswer(account=account, amount_wei=str(amount_wei), applied=applied))


def make_key(console: Console, *, folder: Path | None, account: str, name: str, limits: Limits) -> None:
    with needing("coordinator"):
        from parallelix.coordinator.commands import KeyCommand, new_key

    _require_name(account, "account")
    if name:
        _require_name(name, "name")
    _require_limits(limits)
    key = new_key()
    command = KeyCommand(
        key_id=key.key_id,
        key_hash=key.key_hash,
        account=account,
        name=name,
        requests_per_minute=limits.requests_per_minute,
        concurrency=limits.concurrency,
        budget_wei=str(amounts.read(limits.budget, name="budget") if limits.budget else 0),
        expires_at=_now() + limits.days * DAY_MS if limits.days else 0,
    )
    with _store(folder) as store:
        applied = _leave(store, "key", command)
    _say(console, f"key {key.key_id} pays from account {account}; it is shown this once:", applied=applied)
    console.plain("")
    console.plain(f"  {key.secret}")
    console.plain("")
    console.plain("  use it: parallelix login, or PARALLELIX_API_KEY, or as OPENAI_API_KEY")
    console.value(
        answers.NewKeyAnswer(
            api_key=key.secret,
            id=key.key_id,
            account=account,
            name=name,
            requests_per_minute=command.requests_per_minute,
            concurrency=command.concurrency,
            budget_wei=command.budget_wei,
            expires_at=command.expires_at,
            applied=applied,
        )
    )


def revoke_key(console: Console, *, folder: Path | None, key_id: str) -> None:
    with needing("coordinator"):
        from parallelix.coordinator.commands import RevokeCommand

    if key_id.startswith("prlx_"):
        raise ConfigRefused("--revoke: takes the key's id, key_…, not the key itself; see --list")
    with _store(folder) as store:
        applied = _leave(store, "revoke", RevokeCommand(key_id=key_id))
    _say(console, f"key {key_id[:80]} is revoked", applied=applied)
    console.value(answers.RevokedAnswer(id=key_id, applied=applied))


def list_keys(console: Console, *, folder: Path | None) -> None:
    with _store(folder) as store:
        rows = store.load(now=_now()).keys
    keys = tuple(
        answers.IssuedKey(
            id=row.key_id,
            account=row.account,
            name=row.name,
            requests_per_minute=row.requests_per_minute,
            concurrency=row.concurrency,
            budget_wei=row.budget_wei,
            spent_wei=row.spent_wei,
            created_at=row.created_at,
            expires_at=row.expires_at,
            revoked=bool(row.revoked_at),
        )
        for row in sorted(rows, key=lambda row: (row.account, row.created_at))
    )
    console.heading("keys")
    for key in keys:
        state = "  revoked" if key.revoked else f"  until {moment(key.expires_at)}" if key.expires_at else ""
        named = f"  {key.name[:24]}" if key.name else ""
        console.plain(f"· {key.id}  {key.account[:24]}{named}{state}")
    if not keys:
        console.plain("  none yet; make one: parallelix coordinator key you")
    console.value(answers.IssuedKeys(keys=keys))


def _say(console: Console, text: str, *, applied: bool) -> None:
    console.done(text)
    if not applied:
        console.note("no coordinator runs on this store now: it takes effect when one starts")


@contextmanager
def _store(folder: Path | None) -> Generator[Store]:
    with needing("coordinator"):
        from parallelix.coordinator.store.store import Store

    settings = _settings(folder, {}, must_exist=True)
    with _refusals():
        store = Store.open(settings.database_url)
        try:
            yield store
        finally:
            store.close()


def _leave(store: Store, kind: Literal["grant", "key", "revoke"], body: msgspec.Struct) -> bool:
    """Leaves a command in the store, and says whether the coordinator applied it. Raises `CoordinatorRefused`."""
    from parallelix.coordinator.commands import CommandAnswer, command_row
    from parallelix.protocol.canonical import decode_json

    row = command_row(kind, body, now=_now())
    store.insert_command(row)
    begun = time.monotonic()
    wait_seconds = SILENT_SECONDS
    while True:
        found = store.command(row.command_id)
        if found is not None and found.applied_at:
            answer = decode_json(found.answer, CommandAnswer)
            if not answer.ok:
                raise CoordinatorRefused(answer.message)
            return True
        if time.monotonic() - begun > wait_seconds:
            if wait_seconds == APPLY_SECONDS_MAX or not store.is_led():
                return False
            wait_seconds = APPLY_SECONDS_MAX
        time.sleep(LOOK_SECONDS)


def _settings(folder: Path | None, given: dict[str, Any], *, must_exist: bool) -> CoordinatorSettings:
    with needing("coordinator"):
        from parallelix.coordinator import settings

    chosen = (folder or _default_folder()).expanduser().absolute()
    if must_exist and not chosen.is_dir():
        raise ConfigRefused(
            f"{configs.shown(chosen)}: no coordinator has its data there; name it by --folder, or start one: "
            "parallelix coordinator run"
        )
    try:
        return settings.load(chosen, given)
    except settings.SettingsError as error:
        raise ConfigRefused(str(error)) from error


@contextmanager
def _refusals() -> Generator[None]:
    """What a coordinator or its store refuses, in one line."""
    from parallelix.coordinator.ports import RegistryUnreadable
    from parallelix.coordinator.secrets import SecretRefused
    from parallelix.coordinator.store.errors import StoreError
    from parallelix.engine.catalogue import CatalogueError

    try:
        yield
    except (StoreError, CatalogueError, RegistryUnreadable, SecretRefused) as error:
        raise CoordinatorRefused(str(error)) from error
    except OSError as error:
        raise CoordinatorRefused(
            f"{error.filename or 'address'}: {error.strerror or error}; see --folder, --host and --port"
        ) from error


def _default_folder() -> Path:
    return configs.folder() / "coordinator"


def _require_name(text: str, what: str) -> None:
    if not text or len(text) > NAME_CHARACTERS_MAX or not text.isprintable() or text != text.strip():
        raise ConfigRefused(
            f"{what} {text[:40]!r}: expected 1 to {NAME_CHARACTERS_MAX} printable characters, such as a name"
        )


def _require_limits(limits: Limits) -> None:
    for name, value, most in (
        ("--requests-per-minute", limits.requests_per_minute, LIMIT_MAX),
        ("--concurrency", limits.concurrency, LIMIT_MAX),
        ("--days", limits.days, DAYS_MAX),
    ):
        if not 0 <= value <= most:
            raise ConfigRefused(f"{name} {value}: expected 0 (none) to {most}")


def _now() -> int:
    return time.time_ns() // 1_000_000
