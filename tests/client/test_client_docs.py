"""The pages for requesters: their commands exist, their tables are whole, and their script verifies a receipt."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer.main
from client_scene import REPOSITORY

import vector_files as vectors
from parallelix.client import KeptAnswer, cli, errors, sdk
from parallelix.protocol import receipts, signing
from parallelix.protocol.receipts import Receipt

PAGES = {name: (REPOSITORY / "docs" / f"{name}.md").read_text() for name in ("client", "receipts", "accounts")}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: str, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(PAGES[page]) if kind == language]


def command_lines() -> list[str]:
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in block.splitlines()]
    inline = [text for page in PAGES.values() for text in re.findall(r"`(parallelix [a-z][^`]*)`", page)]
    return [line for line in [*lines, *inline] if line.startswith("parallelix ")]


def unknown_in(line: str) -> list[str]:
    """The words of a command line that are neither a command nor an option of it."""
    found: Any = typer.main.get_command(cli.app)
    words = shlex.split(line.replace("…", "x"), comments=True)[1:]
    while words and hasattr(found, "commands"):
        if words[0] not in found.commands:
            return [words[0]]
        found = found.commands[words.pop(0)]
    options = {option for parameter in found.params for option in parameter.opts}
    return [word for word in words if word.startswith("--") and word not in options]


def test_every_command_on_the_pages_exists_with_its_options() -> None:
    lines = command_lines()
    assert len(lines) > 9
    assert {line: unknown_in(line) for line in lines if unknown_in(line) and "devnet" not in line} == {}


@pytest.mark.parametrize("line", ["parallelix aks", "parallelix ask --modle x", "parallelix receipt veryfy x"])
def test_a_command_that_does_not_exist_would_be_noticed(line: str) -> None:
    assert unknown_in(line)


def test_the_table_of_commands_names_all_and_no_other() -> None:
    table = PAGES["client"].partition("| command | what it does |")[2].partition("\n\n")[0]
    cells = re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
    named = {name.split()[0] for cell in cells for name in re.findall("`(.*?)`", cell)}
    assert named == set(cli.COMMANDS)


def test_the_table_of_exit_codes_is_that_of_the_program() -> None:
    table = PAGES["client"].partition("| exit code | meaning |")[2].partition("\n\n")[0]
    stated = {int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert stated == {0} | {value for name, value in vars(errors).items() if name.startswith("EXIT_")}


def test_the_pages_python_can_be_parsed_and_names_what_there_is() -> None:
    for text in (text for page in PAGES for text in blocks(page, "python")):
        tree = ast.parse(text if "async with aclosing" not in text else f"async def f():\n{indented(text)}")
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("parallelix"):
                module = __import__(node.module, fromlist=["_"])
                assert all(hasattr(module, alias.name) for alias in node.names), node.module
    listed = PAGES["client"].partition("### The other calls\n\n")[2].partition("`published`")[0]
    assert all(hasattr(sdk.Client, name) for name in re.findall(r"`([a-z]+)`", listed))


def indented(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


VECTORS = vectors.load("receipts")


@pytest.mark.parametrize("case", VECTORS["receipts"], ids=lambda case: case["name"])
def test_the_script_verifies_what_holds_and_nothing_else(
    case: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (text,) = blocks("receipts", "python")
    script, file = tmp_path / "verify.py", tmp_path / "answer.json"
    script.write_text(text)
    monkeypatch.setattr(sys, "argv", [str(script), str(file)])
    kept = KeptAnswer(
        payload=VECTORS["payload"], result=VECTORS["result"], receipt=msgspec.convert(case["receipt"], Receipt)
    )
    whole = json.loads(msgspec.json.encode(kept))
    file.write_text(json.dumps(whole))
    runpy.run_path(str(script))
    state = kept.receipt.audit.state if kept.receipt.audit else "not told: a receipt of version 1"
    assert capsys.readouterr().out == f"holds; audit: {state}\nsigned by {kept.receipt.coordinator}\n"
    for edit in (
        {"payload": whole["payload"] + " "},
        {"result": whole["result"] + " "},
        {"receipt": whole["receipt"] | {"charge_wei": "1"}},
        *lies_about_the_audit(kept.receipt),
    ):
        file.write_text(json.dumps(whole | edit))
        with pytest.raises(AssertionError):
            runpy.run_path(str(script))


def lies_about_the_audit(receipt: Receipt) -> Iterator[dict[str, Any]]:
    """Signed by the coordinator."""
    audit = receipt.audit
    if not audit or audit.state == "pending":
        return
    key = signing.NodeKey(bytes.fromhex(VECTORS["coordinator_key"]["secret"][2:]))
    other = {"disagree": "agree", "not_drawn": "pending"}[audit.state]
    for change in ({"state": other}, {"state": "off"}):
        lied = msgspec.structs.replace(receipt, signature="", audit=msgspec.structs.replace(audit, **change))
        yield {"receipt": msgspec.to_builtins(receipts.sign(lied, key))}
