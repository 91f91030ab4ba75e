"""The page about accounts states the scopes, the bounds, the refusals and the fields that there are."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from parallelix.coordinator import accounts, sign_in
from parallelix.coordinator.errors import SignInRefused
from parallelix.protocol.accounts import SCOPES, NonceView
from parallelix.protocol.requests import VaultView

PAGE = (Path(__file__).parents[3] / "docs" / "accounts.md").read_text()


def first_cells(heading: str) -> list[str]:
    table = PAGE.partition(heading)[2].partition("\n\n")[0]
    return [name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall("`(.*?)`", row)]


def test_the_table_of_scopes_is_whole() -> None:
    assert tuple(first_cells("| scope | lets a key |")) == SCOPES


def test_the_fields_of_the_vault_are_all_explained() -> None:
    named = first_cells("| field | what it is |")
    assert sorted(named) == sorted(field.name for field in msgspec.structs.fields(VaultView))


def test_the_nonces_example_has_every_field() -> None:
    text = PAGE.partition("```json\n")[2].partition("```")[0]
    assert list(msgspec.json.decode(text)) == [field.name for field in msgspec.structs.fields(NonceView)]


@pytest.mark.parametrize("code", SignInRefused.codes)
def test_every_refusal_of_a_sign_in_stands_in_the_table(code: str) -> None:
    assert f"| 401 `{code}` |" in PAGE


@pytest.mark.parametrize(
    "stated",
    [
        f"at most {accounts.KEYS_MAX} usable keys",
        f"at most {accounts.SESSIONS_OPEN_MAX} sessions open",
        f"After {accounts.SESSIONS_OF_ACCOUNT_MAX} sign-ins in an hour",
        f"asked {accounts.CONTRACTS_ASKED_A_MINUTE} times a minute",
        f"share {accounts.STRANGERS_MAX:,} sessions",
        f"younger than {sign_in.NONCE_SECONDS // 60} minutes",
    ],
)
def test_the_bounds_are_the_programs(stated: str) -> None:
    assert stated in " ".join(PAGE.split())
