"""What the tests of the command line share: what a command printed, and the files it is compared with."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import jsonschema
import msgspec

from parallelix.node import answers

REPOSITORY = Path(__file__).resolve().parents[3]
GOLDEN = REPOSITORY / "tests" / "node" / "golden"
SCHEMAS = REPOSITORY / "docs" / "schemas" / "node-cli"
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"
"""`UPDATE_GOLDEN=1 pytest tests/node/cli` writes the files anew; read their diff before you commit it."""


@dataclass(frozen=True, kw_only=True)
class Printed:
    """What one command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> dict[str, str]:
        """The object that --json puts on standard error."""
        return json.loads(self.err.splitlines()[-1])


Operate: TypeAlias = Callable[..., Printed]


def matches_golden(name: str, text: str) -> None:
    """Compares with the golden file, after checking that every line of it fits 80 columns."""
    path = GOLDEN / f"{name}.txt"
    if UPDATE:
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"differs from {path.name}"
    too_wide = [line for line in text.splitlines() if len(line) > 80]
    assert not too_wide


def matches_schema(name: str, text: str) -> Any:
    """Every line of `text` is JSON that the schema allows, with no property it does not know; the last one's value."""
    schema = json.loads((SCHEMAS / f"{name}.json").read_text())
    lines = text.splitlines()
    assert lines
    for line in lines:
        jsonschema.validate(json.loads(line), schema, cls=jsonschema.Draft202012Validator)
        _require_known(json.loads(line), name)
    return json.loads(lines[-1])


def _require_known(value: dict[str, Any], name: str) -> None:
    known = {field.encode_name for field in msgspec.structs.fields(answers.SCHEMAS[name])}
    assert set(value) == known


def with_fixed_values(text: str) -> str:
    """What differs from run to run, in the same width: keys, hashes, ports."""
    text = re.sub(r"0x[0-9a-f]{64}\b", "0x" + "9c27a4" * 10 + "9c27", text)
    text = re.sub(r"0x[0-9a-fA-F]{40}\b", "0x" + "9C27a4" * 6 + "9C27", text)
    return re.sub(r"127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:11434", text)
