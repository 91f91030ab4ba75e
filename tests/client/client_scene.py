"""What the client's tests share: what a command printed, the files it is compared with, and a script for the wire."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import jsonschema
import msgspec

from parallelix.client.schemas import SCHEMAS as STRUCTS

REPOSITORY = Path(__file__).resolve().parents[2]
GOLDEN = REPOSITORY / "tests" / "client" / "golden"
SCHEMAS = REPOSITORY / "docs" / "schemas" / "client-cli"
UPDATE = os.environ.get("UPDATE_GOLDEN") == "1"
"""`UPDATE_GOLDEN=1 pytest tests/client` writes the files anew; read their diff before you commit it."""


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
Operating: TypeAlias = Callable[..., Awaitable[Printed]]


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
    known = {field.encode_name for field in msgspec.structs.fields(STRUCTS[name])}
    lines = text.splitlines()
    assert lines
    for line in lines:
        value = json.loads(line)
        jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)
        assert set(value) == known
    return json.loads(lines[-1])


FIXED = (
    (r"req_[0-9a-f]{64}", "req_" + "9c27a4" * 10 + "9c27"),
    (r"0x[0-9a-f]{64}\b", "0x" + "9c27a4" * 10 + "9c27"),
    (r"\b[0-9a-f]{64}\b", "9c27a4" * 10 + "9c27"),
    (r"0x[0-9a-fA-F]{40}\b", "0x" + "9C27a4" * 6 + "9C27"),
    (r"key_[0-9a-f]{16}", "key_9c27a49c27a49c27"),
    (r"ses_[0-9a-f]{32}", "ses_9c27a49c27a49c279c27a49c27a49c27"),
    (r"prlx_[A-Za-z0-9_-]{43}", "prlx_" + "x" * 43),
    (r"127\.0\.0\.1:\d{4,5}\b", "127.0.0.1:18400"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ", "2026-11-21 08:00:00Z"),
    (r"after \d+\.\d s", "after 0.1 s"),
    (r"record number \d+|number \d+ of the chain", "number 7 of the chain"),
    (r"number \d+, \d+ records?", "number 3, 1 records"),
    (r"batch \d+", "batch 3"),
    (r"about [\d.]+ s", "about 0.1 s"),
    (r"account\d+", "account1"),
    (r"parallelix \d+\.\d+\.\d+\S*", "parallelix 0.1.0"),
)


def with_fixed_values(text: str) -> str:
    """What differs from run to run, in the same width: ids, hashes, keys, times, ports."""
    for pattern, fixed in FIXED:
        text = re.sub(pattern, fixed, text)
    return text


class Script(httpx.AsyncBaseTransport):
    """Answers calls one after the other as a test says: with a response, or by an exception of the transport."""

    def __init__(self, *steps: httpx.Response | httpx.TransportError) -> None:
        self.steps = list(steps)
        self.calls: list[httpx.Request] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request)
        step = self.steps.pop(0)
        if isinstance(step, httpx.TransportError):
            raise step
        return step


class Pauses:
    """Instead of waiting, notes how long."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
