"""`coordinator run`, `coordinator grant`, `coordinator key`: on the machine that holds the store.

There is no administration over HTTP. A grant or a key is a row in the store, which the running coordinator applies.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parallelix.client import amounts, answers
from parallelix.client import config as configs
from parallelix.client.commands.extras import needing
from parallelix.client.commands.limits import Limits, require_name
from parallelix.client.commands.opening import moment
from parallelix.client.errors import ConfigRefused, CoordinatorRefused

if TYPE_CHECKING:
    from parallelix.coordinator.settings import CoordinatorSettings
    from parallelix.terminal import Console


def run(
    console: Console, *, folder: Path | None, host: str, port: int | None, deployment: Path | None, rpc: str
) -> None:
    with needing("coordinator"):
        from parallelix.coordinator import local

    asked = {
        "host": host,
        "port": port,
        "deployment_file": str(deployment.expanduser().absolute()) if deployment else "",
        "rpc_url": rpc,
    }
    given: dict[str, Any] = {name: value for name, value in asked.items() if value not in ("", None)}
    chosen = _folder(folder)
    if chosen == _default_folder():
        configs.make_folder()
    with _refusals():
        prepared = local.prepare(chosen, given)
        if prepared.settings.is_on_chain:
            with needing("chain"):
                import_module("parallelix.coordinator.onchain.running")

        def ready(url: str) -> None:
            answer = answers.RunAnswer(
                url=url,
                folder=str(chosen),
                coordinator=prepared.address,
                models=prepared.models,
                registrations=prepared.registrations,
            )
            print_running(console, answer, prepared.settings)
            console.value(answer)

        local.serve(prepared, on_ready=ready)


def print_running(console: Console, answer: answers.RunAnswer, settings: CoordinatorSettings) -> None:
    columns = 8
    console.heading(f"coordinator · {answer.url}")
    console.fact("folder", configs.shown(settings.folder), label_columns=columns)
    console.fact("signs as", answer.coordinator, label_columns=columns)
    console.fact("models", ", ".join(answer.models) or "none", label_columns=columns)
    if settings.is_on_chain:
        console.fact("chain", configs.shown(Path(settings.deployment_file)), label_columns=columns)
    else:
        console.fact("nodes", f"{answer.registrations} registered", label_columns=columns)
    if not answer.models:
        console.warn(f"offers nothing yet: list models in {configs.shown(settings.catalogue_path)}, start again")
    if settings.is_on_chain:
        return
    if not answer.registrations:
        console.warn(f"knows no node yet: register some in {configs.shown(settings.registry_path)}")
    place = "" if settings.folder == _default_folder() else f" --folder {configs.shown(settings.folder)}"
    console.plain("  next, in another terminal:")
    console.plain(f"    parallelix coordinator grant you 100prlx{place}")
    console.plain(f"    parallelix coordinator key you{place}")
    console.plain(f"    parallelix login --url {answer.url}")
    console.plain('    parallelix ask "Hello"')


def grant(console: Console, *, folder: Path | None, account: str, amount: str) -> None:
    with needing("coordinator"):
        from parallelix.coordinator import local

    require_name(account, "account")
    amount_wei = amounts.read(amount, name="amount")
    if amount_wei == 0:
        raise ConfigRefused(f"amount {amount[:40]}: expected at least 1wei")
    with _refusals():
        applied = local.grant(_settings(folder), account=account, amount_wei=amount_wei)
    _say(console, f"{amounts.shown(amount_wei)} granted to account {account}", applied=applied)
    console.value(answers.GrantAnswer(account=account, amount_wei=str(amount_wei), applied=applied))


def make_key(console: Console, *, folder: Path | None, account: str, name: str, limits: Limits) -> None:
    with needing("coordinator"):
        from parallelix.coordinator import local
        from parallelix.coordinator.commands import KeyCommand, new_key

    require_name(account, "account")
    if name:
        require_name(name, "name")
    limits.require()
    key = new_key()
    command = KeyCommand(
        key_id=key.key_id,
        key_hash=key.key_hash,
        account=account,
        name=name,
        requests_per_minute=limits.requests_per_minute,
        concurrency=limits.concurrency,
        budget_wei=str(limits.budget_wei),
        expires_at=limits.expires_at or 0,
    )
    with _refusals():
        applied = local.issue_key(_settings(folder), command)
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
        from parallelix.coordinator import local

    if key_id.startswith("prlx_"):
        raise ConfigRefused("--revoke: takes the key's id, key_…, not the key itself; see --list")
    with _refusals():
        applied = local.revoke_key(_settings(folder), key_id)
    _say(console, f"key {key_id[:80]} is revoked", applied=applied)
    console.value(answers.RevokedAnswer(id=key_id, applied=applied))


def list_keys(console: Console, *, folder: Path | None) -> None:
    with needing("coordinator"):
        from parallelix.coordinator import local

    with _refusals():
        rows = local.keys(_settings(folder))
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


def _folder(given: Path | None) -> Path:
    return (given or _default_folder()).expanduser().absolute()


def _default_folder() -> Path:
    return configs.folder() / "coordinator"


def _settings(given: Path | None) -> CoordinatorSettings:
    """Those of a coordinator that has its data there already."""
    from parallelix.coordinator import settings

    chosen = _folder(given)
    if not chosen.is_dir():
        raise ConfigRefused(
            f"{configs.shown(chosen)}: no coordinator has its data there; name it by --folder, or start one: "
            "parallelix coordinator run"
        )
    return settings.load(chosen)


@contextmanager
def _refusals() -> Generator[None]:
    from parallelix.coordinator import local
    from parallelix.coordinator.settings import SettingsError

    try:
        yield
    except SettingsError as error:
        raise ConfigRefused(str(error)) from error
    except local.LocalRefused as error:
        raise CoordinatorRefused(str(error)) from error
