"""`login`, `models`, `account`, `keys`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import msgspec

from parallelix.client import amounts, answers
from parallelix.client import config as configs
from parallelix.client.commands.opening import asked, moment, run
from parallelix.client.connection import base_url_of, printable_key
from parallelix.client.errors import KeyRefused

if TYPE_CHECKING:
    from parallelix.client.sdk import Client
    from parallelix.protocol.requests import AccountView, KeyView, NetworkView
    from parallelix.terminal import Console

LABEL_COLUMNS = 10
KEY_CHARACTERS_MAX = 256
NAME_COLUMNS_MAX = 36


def login(console: Console, *, url: str, coordinator: str) -> None:
    stored = configs.load_file()
    given = configs.require_address(coordinator) if coordinator else ""
    chosen = msgspec.structs.replace(
        stored, url=base_url_of(url or stored.url or configs.DEFAULT_URL), api_key=_read_key(console)
    )

    async def tried(client: Client) -> tuple[AccountView, NetworkView]:
        return await client.account(), await client.network()

    found, network = run(console, tried, chosen)
    signer = given or network.coordinator
    if stored.url == chosen.url and stored.coordinator not in ("", signer):
        console.note(f"this coordinator signed as {stored.coordinator} before; its older receipts name that address")
    path = configs.save(msgspec.structs.replace(chosen, coordinator=signer))
    console.done(f"{configs.shown(path)} has the key {found.key.id} of account {found.account}")
    console.fact("url", chosen.url, label_columns=LABEL_COLUMNS)
    console.fact("credits", amounts.shown(found.available_wei), label_columns=LABEL_COLUMNS)
    console.fact("receipts", f"signed by {signer}", label_columns=LABEL_COLUMNS)
    console.plain('  next: parallelix ask "Hello"')
    console.value(
        answers.LoginAnswer(
            path=str(path), url=chosen.url, account=found.account, key_id=found.key.id, coordinator=signer
        )
    )


def _read_key(console: Console) -> str:
    if sys.stdin.isatty():
        import getpass

        key = getpass.getpass("API key (prlx_…, not shown): ", stream=sys.stderr)
    else:
        key = sys.stdin.readline(KEY_CHARACTERS_MAX + 2)
    key = key.strip()
    if not key or len(key) > KEY_CHARACTERS_MAX:
        raise KeyRefused(f"API key: {len(key)} characters; give the one that `parallelix coordinator key` showed")
    return printable_key(key)


def models(console: Console, *, url: str) -> None:
    found = asked(console, lambda client: client.models(), url=url)
    console.heading("models on offer")
    for model in found.data:
        console.plain(f"· {model.id}")
        console.pair("context", f"{model.context_tokens} tokens; answers up to {model.max_tokens_max}")
        console.pair("prompt", f"{amounts.shown(model.prompt_wei_per_1000)} per 1000 tokens")
        console.pair("answer", f"{amounts.shown(model.completion_wei_per_1000)} per 1000 tokens")
        console.pair("nodes", f"{model.capable_nodes} can run it, {model.free_slots} slots free")
    if not found.data:
        console.warn("none: whoever runs the coordinator lists them in its catalogue.toml")
    console.value(found)


def account(console: Console, *, url: str) -> None:
    found = asked(console, lambda client: client.account(), url=url)
    console.heading(f"account {found.account}")
    console.fact("available", amounts.shown(found.available_wei), label_columns=LABEL_COLUMNS)
    # A charge leaves the hold when the batch of its record is confirmed.
    unsettled = found.held_wei != "0" and not found.open_requests
    reason = "until the batch of the last answers is confirmed" if unsettled else f"for {found.open_requests} open"
    held = f"{amounts.shown(found.held_wei)} {reason}"
    console.fact("held", held, label_columns=LABEL_COLUMNS)
    console.heading("this key")
    _print_key(console, found.key)
    console.value(found)


def keys(console: Console, *, url: str) -> None:
    found = asked(console, lambda client: client.keys(), url=url)
    console.heading("keys of this account")
    for key in found.data:
        _print_key(console, key)
    console.value(found)


def _print_key(console: Console, key: KeyView) -> None:
    name = key.name[:NAME_COLUMNS_MAX]
    console.plain(f"· {key.id}  {name}{'  revoked' if key.revoked else ''}".rstrip())
    console.pair("since", moment(key.created_at))
    if key.expires_at:
        console.pair("until", moment(key.expires_at))
    budget = f" of {amounts.shown(key.budget_wei)}" if int(key.budget_wei) else ""
    console.pair("spent", amounts.shown(key.spent_wei) + budget)
    limits = [
        f"{key.requests_per_minute} a minute" if key.requests_per_minute else "",
        f"{key.concurrency} at once" if key.concurrency else "",
    ]
    console.pair("limits", ", ".join(filter(None, limits)) or "none")
