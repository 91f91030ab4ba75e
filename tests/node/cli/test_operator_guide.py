"""The operator guide names every command, setting and code that an operator can meet."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from parallelix.node import answers, cli, errors, service
from parallelix.node.config import Config
from parallelix.node.state import State
from parallelix.protocol.messages import FailureCode

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "operator-guide.md").read_text()


def refusals(kind: type[errors.NodeError] = errors.NodeError) -> list[type[errors.NodeError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in refusals(below))]


@pytest.mark.parametrize("kind", refusals(), ids=lambda kind: kind.code)
def test_every_refusal_has_its_row_with_its_exit_code(kind: type[errors.NodeError]) -> None:
    assert f"| `{kind.code}` | {kind.exit_code} |" in GUIDE


def test_no_row_tells_of_a_refusal_that_is_none() -> None:
    told = set(re.findall(r"^\| `(node\.[a-z_]+)` \|", GUIDE, re.MULTILINE))
    assert told == {kind.code for kind in refusals()} | {"node.usage"}


@pytest.mark.parametrize("code", get_args(FailureCode))
def test_every_reason_to_return_a_request_is_explained(code: str) -> None:
    assert code in GUIDE


@pytest.mark.parametrize("setting", [field.name for field in msgspec.structs.fields(Config)])
def test_every_setting_has_its_row(setting: str) -> None:
    assert f"| `{setting}` |" in GUIDE


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_is_shown(command: str) -> None:
    assert f"parallelix-node {command}" in GUIDE


@pytest.mark.parametrize("name", answers.SCHEMAS)
def test_every_schema_is_linked(name: str) -> None:
    assert f"schemas/node-cli/{name}.json" in GUIDE


@pytest.mark.parametrize("state", State)
def test_every_state_is_explained(state: State) -> None:
    assert f"`{state}`" in GUIDE


def test_what_the_service_does_not_start_again_is_told() -> None:
    assert service.RESTART_SECONDS == 10 and "again ten seconds after a crash" in GUIDE
