"""Every reason that a contract can give is one of our errors, and every error has a contract that gives its reason."""

from __future__ import annotations

import importlib
import io
import re
import tokenize
from pathlib import Path
from typing import Any

import pytest
from eth_abi import abi
from vyper.ast import nodes, parse_to_ast

from parallelix.chain.errors import (
    AllowanceTooLow,
    BelowMinimumStake,
    ChainError,
    LockerRefused,
    Reverted,
    UnknownRevert,
    from_revert,
    reasons,
)

SOURCES = Path(__file__).resolve().parents[2] / "contracts" / "src" / "parallelix_contracts" / "sources"
SNEKMATE = Path(next(iter(importlib.import_module("snekmate").__path__)))
REASON = re.compile(r"[a-z][a-z0-9_]*: .+")


def files_compiled() -> list[Path]:
    """Our contracts, and all that they import, one from the other."""
    found: list[Path] = []
    waiting = sorted(SOURCES.glob("*.vy"))
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.append(path)
            waiting += imported_by(path)
    return found


def imported_by(path: Path) -> list[Path]:
    found: list[Path] = []
    for module, name in re.findall(r"^from ([\w.]+) import (\w+)", path.read_text(), re.MULTILINE):
        if module.startswith("ethereum."):
            continue
        dots = len(module) - len(module.lstrip("."))
        base = [path.parent, *path.parents[1:]][dots - 1] if dots else SNEKMATE.parent
        folder = base.joinpath(*filter(None, module.lstrip(".").split(".")))
        found += [each for each in (folder / f"{name}.vy", folder / f"{name}.vyi") if each.exists()]
    return found


def reasons_in(path: Path) -> set[str]:
    """Text that looks like a reason, anywhere but in comments and docstrings."""
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text().replace("$", "_")).readline)
    texts = [token.string for token in tokens if token.type == tokenize.STRING and not token.string.startswith('"""')]
    return {text.strip('"') for text in texts if REASON.fullmatch(text.strip('"'))}


def test_every_reason_in_the_sources_has_its_error_and_no_error_is_left_over() -> None:
    given = {reason for path in files_compiled() for reason in reasons_in(path)}

    assert given - set(reasons()) == set()
    assert set(reasons()) - given == set()


def test_the_walk_reaches_the_modules_that_our_contracts_are_made_of() -> None:
    names = {path.name for path in files_compiled()}

    assert {"PRLX.vy", "CreditVault.vy", "erc20.vy", "ownable.vy", "ownable_2step.vy", "ecdsa.vy"} <= names


ASSERTED_WITHOUT_REASON = {"OperatorStakeRewardsV2.vy: assert number >> bits == 0"}
"""What no caller can bring about: a number too large for its place in a packed slot."""


def test_no_contract_refuses_without_a_reason() -> None:
    vyper: Any = nodes
    bare: set[str] = set()
    for path in sorted(SOURCES.rglob("*.vy")):
        tree: Any = parse_to_ast(path.read_text())
        for statement in tree.get_descendants((vyper.Assert, vyper.Raise)):
            given = statement.msg if isinstance(statement, vyper.Assert) else statement.exc
            if not isinstance(given, vyper.Str):
                bare.add(f"{path.name}: {statement.node_source_code}")

    assert bare == ASSERTED_WITHOUT_REASON


@pytest.mark.parametrize("reason", sorted(reasons()))
def test_a_reason_becomes_its_error_which_names_it_and_says_the_way_out(reason: str) -> None:
    error = from_revert(revert(reason), what="someCall")

    assert type(error) is reasons()[reason]
    assert error.message == f"someCall: {reason}; {error.way_out}"
    assert error.way_out and error.way_out[0].islower() and not error.way_out.endswith(".")


def revert(reason: str) -> bytes:
    return bytes.fromhex("08c379a0") + abi.encode(["string"], [reason])


def test_errors_of_one_contract_can_be_caught_together() -> None:
    error = from_revert(revert("locker: below minimum stake"))

    assert isinstance(error, BelowMinimumStake)
    assert isinstance(error, LockerRefused)
    assert isinstance(error, Reverted)
    assert isinstance(error, ChainError)
    assert isinstance(from_revert(revert("erc20: insufficient allowance")), AllowanceTooLow)


@pytest.mark.parametrize(
    ("data", "given"),
    [
        (b"", ""),
        (revert("sablier: something else"), "sablier: something else"),
        (bytes.fromhex("4e487b71") + (0x11).to_bytes(32, "big"), "panic 0x11"),
        (bytes.fromhex("08c379a0") + b"\xff" * 40, ""),
        (bytes.fromhex("08c379a0") + abi.encode(["bytes"], [b"\xff\xfe"]), ""),
        (bytes.fromhex("deadbeef"), ""),
        (revert("x" * 100_000), "x" * 300),
    ],
)
def test_what_a_stranger_reverts_with_is_kept_and_never_breaks_us(data: bytes, given: str) -> None:
    error = from_revert(data)

    assert isinstance(error, UnknownRevert)
    assert (error.given, error.data) == (given, data)
    assert len(error.message) < 600
