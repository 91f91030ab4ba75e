"""Write the typed bindings of the contracts from their artifacts, one module per contract.

    python scripts/make_bindings.py            write src/parallelix/chain/bindings/
    python scripts/make_bindings.py --check    write nothing; exit 1 and name each module that its contract has outgrown

Names are those of the ABI in snake_case. Docstrings are the first sentences of the sources' @notice.
"""

from __future__ import annotations

import json
import keyword
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
CONTRACTS = REPOSITORY / "contracts" / "src" / "parallelix_contracts"
BINDINGS = REPOSITORY / "src" / "parallelix" / "chain" / "bindings"
MODULES = {
    "PRLX": "prlx",
    "ExecutionAnchor": "execution_anchor",
    "NodeRegistryLocker": "node_registry_locker",
    "OperatorStakeRewardsV2": "operator_stake_rewards",
    "CreditVault": "credit_vault",
}
STRUCTS = {
    ("NodeRegistryLocker", "nodes", ""): "Node",
    ("OperatorStakeRewardsV2", "node", ""): "RewardsNode",
    ("OperatorStakeRewardsV2", "reportLiveness", "changes"): "LivenessChange",
    ("CreditVault", "settle", "entries"): "Spend",
}
"""The ABI gives a struct's fields and not its name."""
ARGUMENTS = {
    "allowance": ("owner", "spender"),
    "balanceOf": ("account",),
    "nonces": ("account",),
}
"""Getters of mappings, whose arguments the compiler calls arg0 and arg1."""
PYTHON_TYPES = {"address": "Address", "bool": "bool", "string": "str"}
OWN_NAMES = {"address", "block", "chain"}
"""Attributes of every binding."""

Item = dict[str, Any]


def module(contract: str) -> str:
    """The text of one contract's module."""
    abi: list[Item] = json.loads((CONTRACTS / "artifacts" / f"{contract}.json").read_text())["abi"]
    notices = notices_of((CONTRACTS / "sources" / f"{contract}.vy").read_text())
    functions = [item for item in abi if item["type"] == "function"]
    views = [item for item in functions if is_view(item)]
    calls = [item for item in functions if not is_view(item)]
    events = [item for item in abi if item["type"] == "event"]
    constructor = next(item for item in abi if item["type"] == "constructor")
    parts = [
        head(contract),
        f'CONTRACT = "{contract}"',
        f"CONSTRUCTOR = {types_of(constructor['inputs'])}",
        *(struct(name, item) for name, item in structs(contract, functions)),
        *(event(each) for each in events),
        f"EVENTS: tuple[type[Event], ...] = ({''.join(each['name'] + ', ' for each in events)})",
        "\n".join(f"_{constant(each)} = {function(each)}" for each in functions),
        f'class {contract}Views(Views):\n    """What {contract} tells anybody."""\n',
        *(view(contract, each, notices) for each in views),
        f'class {contract}Calls(Calls):\n    """What an account can ask {contract} to do."""\n',
        *(call(contract, each, notices) for each in calls),
    ]
    return formatted("\n\n".join(parts))


def head(contract: str) -> str:
    return f'''"""Bindings of {contract}, made by scripts/make_bindings.py: change the contract, then run that again.

Amounts are in wei, times in Unix seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from parallelix.chain.abi import Address, Call, Event, Field, Function, Layout
from parallelix.chain.ports import Calls, Views'''


def structs(contract: str, functions: Iterable[Item]) -> Iterator[tuple[str, Item]]:
    for item in functions:
        for each in (*item["inputs"], *item["outputs"]):
            if each["type"].startswith("tuple"):
                yield STRUCTS[contract, item["name"], each["name"]], each


def struct(name: str, item: Item) -> str:
    fields = "\n".join(f"    {snake(each['name'])}: {python_type(each['type'])}" for each in item["components"])
    return f"class {name}(msgspec.Struct, frozen=True, kw_only=True):\n{fields}\n"


def event(item: Item) -> str:
    fields = "\n".join(f"    {snake(each['name'])}: {python_type(each['type'])}" for each in item["inputs"])
    layout = "".join(f'Field("{each["name"]}", "{each["type"]}", {each["indexed"]}), ' for each in item["inputs"])
    return f"""class {item["name"]}(Event, frozen=True, kw_only=True):
    LAYOUT: ClassVar[Layout] = Layout("{item["name"]}", ({layout}))

{fields}
"""


def function(item: Item) -> str:
    outputs = types_of(item["outputs"])
    return f'Function("{item["name"]}", {types_of(item["inputs"])}{"" if outputs == "()" else ", " + outputs})'


def types_of(items: Iterable[Item]) -> str:
    return repr(tuple(abi_type(each) for each in items))


def abi_type(item: Item) -> str:
    if not item["type"].startswith("tuple"):
        return item["type"]
    return f"({','.join(abi_type(each) for each in item['components'])}){item['type'].removeprefix('tuple')}"


def view(contract: str, item: Item, notices: dict[str, str]) -> str:
    arguments = arguments_of(contract, item)
    result = result_type(contract, item)
    given = "".join(f", {name}" for name, _ in arguments)
    asked = f"await self._{'one' if len(item['outputs']) == 1 else 'all'}(_{constant(item)}{given})"
    if item["outputs"][0]["type"] == "tuple":
        fields = item["outputs"][0]["components"]
        lines = [f"found = {asked}", f"return {result}({named(fields)})"]
    else:
        lines = [f"return {asked}"]
    return method("async def", item, arguments, result, lines, notices)


def named(fields: list[Item]) -> str:
    return "".join(f"{snake(each['name'])}=found[{at}], " for at, each in enumerate(fields))


def call(contract: str, item: Item, notices: dict[str, str]) -> str:
    arguments = arguments_of(contract, item)
    given = "".join(f", {name}" for name, _ in arguments)
    if item["stateMutability"] == "payable":
        arguments.append(("value_wei", "int = 0"))
        given += ", value_wei=value_wei"
    return method("def", item, arguments, "Call", [f"return self._call(_{constant(item)}{given})"], notices)


def method(
    keyword_: str, item: Item, arguments: list[tuple[str, str]], result: str, lines: list[str], notices: dict[str, str]
) -> str:
    assert snake(item["name"]) not in OWN_NAMES, item["name"]
    parameters = "".join(f", {name}: {type_}" for name, type_ in arguments)
    notice = notices.get(item["name"])
    body = [*([f'"""{notice}"""'] if notice else []), *lines]
    header = f"{keyword_} {snake(item['name'])}(self{parameters}) -> {result}:"
    return textwrap.indent("\n".join([header, *(f"    {line}" for line in body)]), "    ")


def arguments_of(contract: str, item: Item) -> list[tuple[str, str]]:
    names = [each["name"] for each in item["inputs"]]
    if any(re.fullmatch(r"arg\d", name) for name in names):
        names = list(ARGUMENTS[item["name"]])
    return [
        (snake(name), argument_type(contract, item, each)) for name, each in zip(names, item["inputs"], strict=True)
    ]


def argument_type(contract: str, item: Item, argument: Item) -> str:
    if argument["type"] == "tuple[]":
        return f"Sequence[{STRUCTS[contract, item['name'], argument['name']]}]"
    if argument["type"].endswith("]"):
        return f"Sequence[{python_type(argument['type'].partition('[')[0])}]"
    return python_type(argument["type"])


def result_type(contract: str, item: Item) -> str:
    found = [
        STRUCTS[contract, item["name"], ""] if each["type"] == "tuple" else python_type(each["type"])
        for each in item["outputs"]
    ]
    return found[0] if len(found) == 1 else f"tuple[{', '.join(found)}]"


def python_type(type_: str) -> str:
    if type_.endswith("]"):
        return f"tuple[{python_type(type_.rpartition('[')[0])}, ...]"
    if type_ in PYTHON_TYPES:
        return PYTHON_TYPES[type_]
    return "bytes" if type_.startswith("bytes") else {"uint": "int", "int": "int"}[type_.rstrip("0123456789")]


def is_view(item: Item) -> bool:
    return item["stateMutability"] in ("view", "pure")


def constant(item: Item) -> str:
    return snake(item["name"]).upper()


def snake(name: str) -> str:
    """`nodeKeyHash` as `node_key_hash`; a word of Python with an underscore behind."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return plain + "_" * keyword.iskeyword(plain)


def notices_of(source: str) -> dict[str, str]:
    """The first sentence of each function's @notice."""
    found: dict[str, str] = {}
    for name, docstring in re.findall(r'^def (\w+)\([^"]*?:\n    """(.*?)"""', source, re.DOTALL | re.MULTILINE):
        notice = re.search(r"@notice (.*?)(?=^\s*@|\Z)", docstring, re.DOTALL | re.MULTILINE)
        if notice is not None:
            text = " ".join(notice.group(1).split())
            found[name] = wrapped(re.split(r"[.](?: |$)", text)[0])
    return found


def wrapped(sentence: str) -> str:
    return "\n        ".join(textwrap.wrap(f"{sentence}.", 100))


def formatted(source: str) -> str:
    """As ruff writes it, without the imports that this contract needs not."""
    for arguments in (["check", "--select", "F401,I", "--fix", "--quiet"], ["format", "--quiet"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--stdin-filename", str(BINDINGS / "made.py"), "-"]
        source = subprocess.run(
            command, input=source, capture_output=True, text=True, check=True, cwd=REPOSITORY
        ).stdout
    return source


def main(arguments: list[str]) -> int:
    stale: list[str] = []
    for contract, name in MODULES.items():
        path = BINDINGS / f"{name}.py"
        text = module(contract)
        if path.exists() and path.read_text() == text:
            continue
        stale.append(str(path.relative_to(REPOSITORY)))
        if "--check" not in arguments:
            path.write_text(text)
    for path in stale:
        print(f"{'stale' if '--check' in arguments else 'wrote'} {path}")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
