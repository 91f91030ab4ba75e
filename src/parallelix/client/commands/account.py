"""`login`, `models`, `account`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from parallelix.client import amounts, answers
from parallelix.client import config as configs
from parallelix.client.commands.keys import body_of, print_key
from parallelix.client.commands.limits import Limits
from parallelix.client.commands.opening import asked, asked_as, run
from parallelix.client.connection import base_url_of, printable_key
from parallelix.client.errors import KeyRefused

if TYPE_CHECKING:
    from parallelix.client.sdk import Client
    from parallelix.protocol.requests import AccountView, NetworkView, VaultView
    from parallelix.terminal import Console

LABEL_COLUMNS = 10
VAULT_COLUMNS = 11
KEY_CHARACTERS_MAX = 256


def login(console: Console, *, url: str, coordinator: str) -> None:
    _store(console, _read_key(console), url=_url_of(url), coordinator=coordinator)


def login_by_wallet(console: Console, key_file: Path, *, name: str, days: int, url: str, coordinator: str) -> None:
    """Makes an API key of the wallet's account, which may ask and look but neither make keys nor withdraw."""
    body = body_of(name=name, scopes=(), limits=Limits(days=days))
    chosen = _url_of(url)
    made = asked_as(console, lambda client: client.create_key(body), key_file=key_file, url=chosen)
    _store(console, made.api_key, url=chosen, coordinator=coordinator)


def _url_of(url: str) -> str:
    return base_url_of(configs.load(url=url).url)


def _store(console: Console, api_key: str, *, url: str, coordinator: str) -> None:
    """Tries the key, and stores it with its coordinator."""
    stored = configs.load_file()
    given = configs.require_address(coordinator) if coordinator else ""
    chosen = msgspec.structs.replace(stored, url=url, api_key=api_key)

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
    if found.vault is not None:
        _print_vault(console, found.vault)
    console.heading("this key")
    print_key(console, found.key)
    console.value(found)


def _print_vault(console: Console, vault: VaultView) -> None:
    console.heading(f"vault {vault.address} at block {vault.block}")
    for label, text in (
        ("deposit", amounts.shown(vault.deposit_wei)),
        ("unsettled", f"{amounts.shown(vault.unsettled_wei)} charged and not settled yet"),
        ("asked back", f"{amounts.shown(vault.asked_wei)} frozen for a withdrawal"),
        ("cleared", f"{amounts.shown(vault.cleared_wei)} that may be withdrawn at once"),
        ("spendable", amounts.shown(vault.spendable_wei)),
        ("daily limit", f"{amounts.shown(vault.daily_limit_wei)}, {amounts.shown(vault.daily_room_wei)} left"),
    ):
        console.fact(label, text, label_columns=VAULT_COLUMNS)
