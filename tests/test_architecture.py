"""Imports point one way, and the pure parts stay pure. ARCHITECTURE.md says why; this holds it."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "src" / "parallelix"

MAY_IMPORT: dict[str, set[str]] = {
    "protocol": {"protocol"},
    "engine": {"engine", "protocol"},
    "chain": {"chain", "protocol"},
    "coordinator": {"coordinator", "engine", "protocol", "chain"},
    "console": {"console", "coordinator", "engine", "protocol"},
    "node": {"node", "protocol", "chain"},
    "client": {"client", "protocol", "chain"},
    "devnet": {"devnet", "client", "node", "console", "coordinator", "engine", "protocol", "chain"},
}
COMMAND_LINE = re.compile(r"client/(cli|cli/.*|commands|commands/.*)\.py")
"""The one command whose subcommands start other parts: it imports them when they are asked for, never before."""
LAZY_FOR_THE_COMMAND_LINE = {"coordinator", "devnet", "console"}

OUTSIDE_WORLD = {
    "aiohttp", "aiosqlite", "alembic", "asyncio", "asyncpg", "concurrent", "ftplib", "http", "httpx", "litestar",
    "multiprocessing", "nats", "psycopg", "requests", "select", "selectors", "signal", "smtplib", "socket",
    "socketserver", "sqlalchemy", "sqlite3", "ssl", "subprocess", "threading", "uvicorn", "uvloop", "web3",
    "websockets",
}  # fmt: skip
CLOCKS_AND_CHANCE = {"random", "secrets", "time", "uuid"}
"""What the pure parts are given as arguments instead."""
PURE = {"protocol", "engine"}
REACHING_OUT = {"getenv", "input", "now", "open", "print", "today", "urandom", "utcnow"}
GUESSABLE_CHANCE_ALLOWED = {"node/backoff.py"}
"""Jitter between tries is no secret."""
ON_CHAIN = "coordinator/onchain/"
EXTRAS: dict[str, set[str]] = {
    "protocol": set(),
    "client": set(),
    "node": {"node", "embedded"},
    "engine": {"coordinator"},
    "coordinator": {"coordinator"},
    "coordinator/onchain": {"coordinator", "chain"},
    "console": {"coordinator"},
    "chain": {"chain"},
    "devnet": {"coordinator", "node", "embedded", "chain"},
}


class Import(NamedTuple):
    module: str
    line: int
    late: bool
    """Whether it stands inside a function, or is there for the type checker alone."""


def modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@functools.cache
def parsed(source: str) -> ast.Module:
    return ast.parse(source)


@functools.cache
def imports_of(source: str, package: str) -> list[Import]:
    """Every import in `source`, a module of `package`."""

    def walk(node: ast.AST, late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from (Import(alias.name, child.lineno, late) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = ".".join(package.split(".")[: len(package.split(".")) - child.level + 1]) if child.level else ""
                module = ".".join(part for part in (base, child.module) if part)
                yield from (Import(f"{module}.{alias.name}", child.lineno, late) for alias in child.names)
            else:
                yield from walk(child, late or is_late(child))

    return list(walk(parsed(source), False))


def is_late(node: ast.AST) -> bool:
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def package_of(path: str) -> str:
    return ".".join(("parallelix", *path.split("/")[:-1]))


def wrong_direction(path: str, source: str) -> list[str]:
    """What the module at `path`, below src/parallelix, imports of ours although its part must not."""
    part = path.split("/", maxsplit=1)[0]
    allowed = MAY_IMPORT.get(part, set()) if "/" in path else set[str]()
    found: list[str] = []
    for each in imports_of(source, package_of(path)):
        names = each.module.split(".")
        if names[0] != "parallelix" or names[1] not in MAY_IMPORT or names[1] in allowed:
            continue
        if COMMAND_LINE.fullmatch(path) and names[1] in LAZY_FOR_THE_COMMAND_LINE and each.late:
            continue
        found.append(f"{path}:{each.line} imports {each.module}")
    return found


def heavy(path: str, source: str) -> list[str]:
    """What speaks to a chain, loaded by a coordinator that is on none and need not have it installed."""
    if not path.startswith("coordinator/") or path.startswith(ON_CHAIN):
        return []
    return [
        f"{path}:{each.line} imports {each.module}"
        for each in imports_of(source, package_of(path))
        if not each.late and f"{each.module}.".startswith(("parallelix.chain.", "parallelix.coordinator.onchain."))
    ]


def impure(path: str, source: str) -> list[str]:
    """What a pure module reaches for of the world, the clock or chance."""
    if path.split("/", maxsplit=1)[0] not in PURE:
        return []
    forbidden = OUTSIDE_WORLD | CLOCKS_AND_CHANCE
    found = [
        f"{path}:{each.line} imports {each.module}"
        for each in imports_of(source, package_of(path))
        if each.module.split(".")[0] in forbidden
    ]
    return found + [f"{path}:{line} calls {name}" for name, line in calls_in(source) if name in REACHING_OUT]


def guessable(path: str, source: str) -> list[str]:
    """Chance that somebody can guess: Python's default generator, and identifiers made of the time."""
    if path in GUESSABLE_CHANCE_ALLOWED or path.split("/", maxsplit=1)[0] == "devnet":
        return []
    found = [
        f"{path}:{each.line} imports {each.module}"
        for each in imports_of(source, package_of(path))
        if each.module.split(".")[0] == "random" or re.fullmatch(r"numpy\.random.*|uuid\.uuid[136].*", each.module)
    ]
    return found + [f"{path}:{line} calls {name}" for name, line in calls_in(source) if name in {"uuid1", "uuid6"}]


@functools.cache
def calls_in(source: str) -> list[tuple[str, int]]:
    """The last name of everything that is called, and where."""
    calls = [node for node in ast.walk(parsed(source)) if isinstance(node, ast.Call)]
    return [(ast.unparse(call.func).rpartition(".")[2], call.lineno) for call in calls]


@functools.cache
def distributions_of(extras: frozenset[str]) -> set[str]:
    """The distributions that are there with these extras of ours, by their normal name."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    listed: list[str] = [*project["dependencies"]]
    for extra in extras:
        listed += project["optional-dependencies"][extra]
    return {normal(re.split(r"[\[<>=!;~ ]", each)[0]) for each in listed}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@functools.cache
def distributions_by_module() -> dict[str, set[str]]:
    found = importlib.metadata.packages_distributions()
    return {module: {normal(name) for name in names} for module, names in found.items()}


def undeclared(path: str, source: str) -> list[str]:
    """Imports of libraries that this part's users have not installed."""
    part, folder = path.split("/", maxsplit=1)[0], path.rpartition("/")[0]
    there = distributions_of(frozenset(EXTRAS.get(folder, EXTRAS.get(part, set()))))
    found: list[str] = []
    for each in imports_of(source, package_of(path)):
        top = each.module.split(".")[0]
        if top in sys.stdlib_module_names or top == "parallelix":
            continue
        if not distributions_by_module().get(top, {normal(top)}) & there:
            found.append(f"{path}:{each.line} imports {each.module}")
    return found


RULES = {rule.__name__: rule for rule in (wrong_direction, heavy, impure, guessable, undeclared)}


@pytest.mark.parametrize("rule", RULES)
def test_the_house_is_in_order(rule: str) -> None:
    found = [
        violation
        for path in modules()
        for violation in RULES[rule](path.relative_to(PACKAGE).as_posix(), path.read_text())
    ]

    assert found == []


def test_every_part_has_its_rule() -> None:
    parts = {path.relative_to(PACKAGE).parts[0] for path in modules() if path.parent != PACKAGE}

    assert parts <= set(MAY_IMPORT)
    assert {"protocol", "engine", "coordinator", "node"} <= parts


def test_no_module_needs_itself_to_be_imported() -> None:
    names = {module_name(path.relative_to(PACKAGE).as_posix()): path for path in modules()}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        needed: set[str] = set()
        for each in imports_of(path.read_text(), package_of(path.relative_to(PACKAGE).as_posix())):
            target = each.module if each.module in names else each.module.rpartition(".")[0]
            if target in names and not each.late:
                needed.add(target)
        graph[name] = needed - {name}

    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"a cycle of imports: {' <- '.join(error.args[1])}")


def module_name(path: str) -> str:
    return ".".join(("parallelix", *path.removesuffix(".py").split("/"))).removesuffix(".__init__")


@pytest.mark.parametrize(
    ("rule", "path", "source"),
    [
        ("wrong_direction", "protocol/x.py", "from parallelix.engine import core"),
        ("wrong_direction", "protocol/x.py", "from parallelix.node import keys"),
        ("wrong_direction", "protocol/x.py", "from ..engine import core"),
        ("wrong_direction", "engine/x.py", "import parallelix.coordinator.app"),
        ("wrong_direction", "engine/x.py", "def f():\n    from parallelix import coordinator"),
        ("wrong_direction", "engine/x.py", "if TYPE_CHECKING:\n    from parallelix.coordinator import app"),
        ("wrong_direction", "coordinator/http/x.py", "from parallelix.node import keys"),
        ("wrong_direction", "coordinator/x.py", "from parallelix.client import sdk"),
        ("wrong_direction", "coordinator/x.py", "from parallelix.devnet import faults"),
        ("wrong_direction", "coordinator/x.py", "from parallelix.console import views"),
        ("wrong_direction", "coordinator/http/x.py", "from ...node import keys"),
        ("wrong_direction", "node/x.py", "from parallelix.engine import core"),
        ("wrong_direction", "node/runtimes/x.py", "from parallelix.coordinator import app"),
        ("wrong_direction", "node/x.py", "def f():\n    import parallelix.devnet.faults"),
        ("wrong_direction", "client/x.py", "from parallelix.node import keys"),
        ("wrong_direction", "client/sdk.py", "def f():\n    from parallelix.devnet import up"),
        ("wrong_direction", "client/cli.py", "from parallelix.devnet import up"),
        ("wrong_direction", "client/cli.py", "def f():\n    from parallelix.node import keys"),
        ("wrong_direction", "__init__.py", "from parallelix.protocol import ids"),
        ("heavy", "coordinator/x.py", "from parallelix.chain.rpc import Rpc"),
        ("heavy", "coordinator/http/x.py", "from parallelix.coordinator.onchain import running"),
        ("impure", "engine/x.py", "import asyncio"),
        ("impure", "engine/x.py", "import sqlalchemy.sql"),
        ("impure", "engine/x.py", "def f():\n    import sqlite3"),
        ("impure", "engine/x.py", "import time"),
        ("impure", "engine/x.py", "from random import Random"),
        ("impure", "engine/x.py", "from datetime import datetime\ndatetime.now()"),
        ("impure", "protocol/x.py", "import socket"),
        ("impure", "protocol/x.py", "from http import client"),
        ("impure", "protocol/x.py", "import os\nos.urandom(3)"),
        ("impure", "protocol/x.py", "open('x')"),
        ("guessable", "coordinator/x.py", "import random"),
        ("guessable", "node/keys.py", "from random import randbytes"),
        ("guessable", "coordinator/store/x.py", "import uuid\nuuid.uuid1()"),
        ("guessable", "client/x.py", "from uuid import uuid1"),
        ("undeclared", "protocol/x.py", "import litestar"),
        ("undeclared", "node/x.py", "import sqlalchemy"),
        ("undeclared", "client/x.py", "import psutil"),
        ("undeclared", "coordinator/x.py", "import web3"),
        ("undeclared", "devnet/x.py", "import pytest"),
    ],
)
def test_each_rule_notices_what_breaks_it(rule: str, path: str, source: str) -> None:
    assert RULES[rule](path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("client/cli.py", "def up():\n    from parallelix.devnet import up"),
        ("client/cli.py", "def run():\n    from parallelix.coordinator import commands"),
        ("coordinator/x.py", "from parallelix.engine import core\nimport litestar\nimport time"),
        ("node/backoff.py", "import random"),
        ("node/x.py", "from parallelix.protocol import ids\nfrom . import keys\nimport asyncio\nimport secrets"),
        ("devnet/demo.py", "from parallelix.node import keys\nimport random"),
    ],
)
def test_no_rule_complains_of_what_is_allowed(path: str, source: str) -> None:
    assert [violation for rule in RULES.values() for violation in rule(path, source)] == []
