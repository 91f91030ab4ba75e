"""`keys list`, `keys create`, `keys revoke`: the API keys of an account, by its wallet or by a key with the scope."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from parallelix.client import amounts
from parallelix.client.commands.limits import Limits, require_name
from parallelix.client.commands.opening import asked_as, moment
from parallelix.client.errors import ConfigRefused
from parallelix.protocol.accounts import KEY_SCOPES, SCOPES, NewKeyBody, Scope

if TYPE_CHECKING:
    from parallelix.protocol.requests import KeyView
    from parallelix.terminal import Console

NAME_COLUMNS_MAX = 36


def show(console: Console, *, key_file: Path | None, url: str) -> None:
    found = asked_as(console, lambda client: client.keys(), key_file=key_file, url=url)
    console.heading("keys of this account")
    for key in found.data:
        print_key(console, key)
    console.value(found)


def create(
    console: Console, *, key_file: Path | None, name: str, scopes: tuple[str, ...], limits: Limits, url: str
) -> None:
    body = body_of(name=name, scopes=scopes, limits=limits)
    made = asked_as(console, lambda client: client.create_key(body), key_file=key_file, url=url)
    console.done(f"key {made.id} pays from account {made.account}; it is shown this once:")
    console.plain("")
    console.plain(f"  {made.api_key}")
    console.plain("")
    print_key(console, made.key)
    console.plain("  use it: parallelix login, or PARALLELIX_API_KEY, or as OPENAI_API_KEY")
    console.value(made)


def revoke(console: Console, key_id: str, *, key_file: Path | None, url: str) -> None:
    if key_id.startswith("prlx_"):
        raise ConfigRefused("ID: takes the key's id, key_…, not the key itself; see `parallelix keys list`")
    revoked = asked_as(console, lambda client: client.revoke_key(key_id), key_file=key_file, url=url)
    console.done(f"key {revoked.id} is revoked")
    console.value(revoked)


def body_of(*, name: str, scopes: tuple[str, ...], limits: Limits) -> NewKeyBody:
    """Raises `ConfigRefused` for what no key can be."""
    if name:
        require_name(name, "name")
    limits.require()
    unknown = [scope for scope in scopes if scope not in SCOPES]
    if unknown:
        raise ConfigRefused(f"--scope {unknown[0][:40]!r}: expected {', '.join(SCOPES)}")
    return NewKeyBody(
        name=name,
        scopes=tuple(dict.fromkeys(cast("tuple[Scope, ...]", scopes))) or KEY_SCOPES,
        requests_per_minute=limits.requests_per_minute,
        concurrency=limits.concurrency,
        budget_wei=str(limits.budget_wei),
        expires_at=limits.expires_at,
    )


def print_key(console: Console, key: KeyView) -> None:
    name = key.name[:NAME_COLUMNS_MAX]
    console.plain(f"· {key.id}  {name}{'  revoked' if key.revoked else ''}".rstrip())
    console.pair("since", moment(key.created_at))
    if key.expires_at:
        console.pair("until", moment(key.expires_at))
    console.pair("may", ", ".join(key.scopes))
    if key.kind == "session":
        return
    budget = f" of {amounts.shown(key.budget_wei)}" if int(key.budget_wei) else ""
    console.pair("spent", amounts.shown(key.spent_wei) + budget)
    limits = [
        f"{key.requests_per_minute} a minute" if key.requests_per_minute else "",
        f"{key.concurrency} at once" if key.concurrency else "",
    ]
    console.pair("limits", ", ".join(filter(None, limits)) or "none")
