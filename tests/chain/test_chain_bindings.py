"""The bindings are those of the artifacts: nothing of a contract is missing, nothing is left over."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

import msgspec
import pytest
from eth_utils.abi import event_abi_to_log_topic

from parallelix.chain.abi import Address, Call, Event, Function, Layout, Log, events_of, read_log, table_of
from parallelix.chain.bindings import credit_vault, node_registry_locker
from parallelix.chain.bindings.credit_vault import CreditVaultCalls, Spend
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorCalls
from parallelix.chain.bindings.node_registry_locker import NodeRegistered, NodeRegistryLockerCalls
from parallelix.chain.bindings.prlx import PRLXCalls
from parallelix.chain.errors import BadArgument, BadResult
from parallelix.chain.ports import Calls, Views
from parallelix_contracts import CONTRACTS, artifact

REPOSITORY = Path(__file__).resolve().parents[2]
BINDINGS = REPOSITORY / "src" / "parallelix" / "chain" / "bindings"
MODULES = {
    module.CONTRACT: module
    for path in sorted(BINDINGS.glob("[a-z]*.py"))
    for module in [importlib.import_module(f"parallelix.chain.bindings.{path.stem}")]
}
REQUIRED_EVENTS = {
    "NodeRegistered", "UnstakeRequested", "StakeWithdrawn", "NodeOnline", "NodeOffline", "RewardsFunded",
    "RewardsClaimed", "Deposited", "WithdrawalRequested", "Withdrawn", "SpendSettled", "SettlementShort",
    "BatchAnchored", "SamplingCommitted", "SamplingRevealed",
}  # fmt: skip
ADDRESS = "0x" + "11" * 20
Item = dict[str, Any]


def abi_type(item: Item) -> str:
    if not item["type"].startswith("tuple"):
        return item["type"]
    return f"({','.join(abi_type(each) for each in item['components'])}){item['type'].removeprefix('tuple')}"


def of_kind(contract: str, kind: str) -> list[Item]:
    return [dict(item) for item in artifact(contract).abi if item["type"] == kind]


def classes(module: ModuleType, base: type) -> list[type]:
    return [
        each for each in vars(module).values() if inspect.isclass(each) and issubclass(each, base) and each is not base
    ]


def python_name(name: str) -> str:
    return re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def methods(binding: type) -> dict[str, Any]:
    return {name: each for name, each in vars(binding).items() if inspect.isfunction(each)}


def test_each_contract_has_one_module_of_bindings() -> None:
    assert set(MODULES) == set(CONTRACTS)


@pytest.mark.parametrize("contract", CONTRACTS)
def test_each_function_has_a_binding_of_the_same_types_and_none_is_left_over(contract: str) -> None:
    functions = [each for each in vars(MODULES[contract]).values() if isinstance(each, Function)]
    wanted = {
        f"{item['name']}({','.join(map(abi_type, item['inputs']))})": tuple(map(abi_type, item["outputs"]))
        for item in of_kind(contract, "function")
    }

    assert {each.signature: each.outputs for each in functions} == wanted


@pytest.mark.parametrize("contract", CONTRACTS)
def test_views_read_and_calls_send_and_each_takes_the_functions_own_parameters(contract: str) -> None:
    module = MODULES[contract]
    (views,), (calls,) = classes(module, Views), classes(module, Calls)
    functions = of_kind(contract, "function")
    reading = {python_name(each["name"]): each for each in functions if each["stateMutability"] in ("view", "pure")}
    sending = {python_name(each["name"]): each for each in functions if python_name(each["name"]) not in reading}

    assert set(methods(views)) == set(reading)
    assert set(methods(calls)) == set(sending)
    assert all(inspect.iscoroutinefunction(each) for each in methods(views).values())
    assert not any(inspect.iscoroutinefunction(each) for each in methods(calls).values())
    for name, method in {**methods(views), **methods(calls)}.items():
        item = (reading | sending)[name]
        parameters = [each for each in inspect.signature(method).parameters if each not in ("self", "value_wei")]
        given = [each["name"] for each in item["inputs"]]
        assert len(parameters) == len(given), name
        if not any(each.startswith("arg") for each in given):
            assert parameters == [python_name(each) for each in given], name
        assert ("value_wei" in inspect.signature(method).parameters) == (item["stateMutability"] == "payable"), name
        hints = get_type_hints(method, vars(module))
        for parameter, argument in zip(parameters, item["inputs"], strict=True):
            assert accepts(hints[parameter], argument), (name, parameter)


def accepts(hint: Any, argument: Item) -> bool:
    if argument["type"] == "tuple[]":
        (struct,) = hint.__args__
        fields = [each["name"] for each in argument["components"]]
        return hint.__origin__ is Sequence and list(struct.__struct_fields__) == list(map(python_name, fields))
    if argument["type"].endswith("]"):
        return hint.__origin__ is Sequence and hint.__args__ == (plain_type(argument["type"].partition("[")[0]),)
    return hint is plain_type(argument["type"])


def plain_type(type_: str) -> type:
    kinds = {"address": str, "string": str, "bool": bool, "bytes": bytes, "uint": int, "int": int}
    return kinds[type_.rstrip("0123456789")]


@pytest.mark.parametrize("contract", CONTRACTS)
def test_each_event_has_a_frozen_class_of_the_same_fields_and_none_is_left_over(contract: str) -> None:
    module = MODULES[contract]
    wanted = {item["name"]: item for item in of_kind(contract, "event")}
    bound = {each.LAYOUT.name: each for each in module.EVENTS}

    assert set(bound) == set(wanted)
    assert set(module.EVENTS) == set(classes(module, Event))
    for name, item in wanted.items():
        layout: Layout = bound[name].LAYOUT
        assert layout.topic == event_abi_to_log_topic(item)  # pyright: ignore[reportArgumentType]
        assert [(each.name, each.indexed) for each in layout.fields] == [
            (each["name"], each["indexed"]) for each in item["inputs"]
        ]
        hints = get_type_hints(bound[name], vars(module))
        assert [hints[each] for each in bound[name].__struct_fields__] == [
            plain_type(each["type"]) for each in item["inputs"]
        ]
        assert bound[name].__struct_config__.frozen


def test_all_events_that_were_promised_are_bound() -> None:
    assert {each.LAYOUT.name for module in MODULES.values() for each in module.EVENTS} >= REQUIRED_EVENTS


@pytest.mark.parametrize("contract", CONTRACTS)
def test_constructors_are_known_by_their_types(contract: str) -> None:
    (constructor,) = of_kind(contract, "constructor")

    assert tuple(map(abi_type, constructor["inputs"])) == MODULES[contract].CONSTRUCTOR


def test_the_modules_are_what_the_script_makes_of_the_artifacts() -> None:
    command = [sys.executable, str(REPOSITORY / "scripts" / "make_bindings.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (0, ""), "run: python scripts/make_bindings.py"


def test_events_are_read_from_logs_as_contracts_write_them() -> None:
    log = registered_log()

    event = read_log(log, table_of(node_registry_locker.EVENTS))

    assert event == NodeRegistered(
        node_id=7,
        owner="0x1111111111111111111111111111111111111111",
        node_key_hash=b"\x22" * 32,
        stake=50_000,
        hardware_tier=3,
        total_principal=90_000,
    )
    assert events_of([log], NodeRegistered) == [event]
    assert events_of([log], NodeRegistered, address="0x" + "99" * 20) == []


def registered_log(**changes: Any) -> Log:
    numbers = [(7).to_bytes(32, "big"), bytes(12) + b"\x11" * 20, b"\x22" * 32]
    log = Log(
        address=ADDRESS,
        topics=(NodeRegistered.LAYOUT.topic, *numbers),
        data=b"".join(each.to_bytes(32, "big") for each in (50_000, 3, 90_000)),
        block_number=1,
        transaction_hash="0x" + "00" * 32,
        log_index=0,
    )
    return msgspec.structs.replace(log, **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"data": b"\x00" * 64},
        {"topics": (NodeRegistered.LAYOUT.topic,)},
        {"topics": (NodeRegistered.LAYOUT.topic, *[b"\xff" * 32] * 3)},
    ],
)
def test_a_log_that_is_no_such_event_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(BadResult, match="NodeRegistered"):
        read_log(registered_log(**changes), table_of(node_registry_locker.EVENTS))


def test_logs_of_others_are_no_events_of_ours() -> None:
    table = table_of(credit_vault.EVENTS)

    assert read_log(registered_log(), table) is None
    assert read_log(registered_log(topics=()), table) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: NodeRegistryLockerCalls(ADDRESS).register_node(-1, 1, b"\x00" * 32),
        lambda: NodeRegistryLockerCalls(ADDRESS).register_node(2**256, 1, b"\x00" * 32),
        lambda: NodeRegistryLockerCalls(ADDRESS).register_node(1, 1, b"\x00" * 33),
        lambda: NodeRegistryLockerCalls(ADDRESS).register_node(1, 1, "text"),  # pyright: ignore[reportArgumentType]
        lambda: PRLXCalls(ADDRESS).transfer("nobody", 1),
        lambda: PRLXCalls(ADDRESS).transfer(ADDRESS, 1.5),  # pyright: ignore[reportArgumentType]
        lambda: ExecutionAnchorCalls(ADDRESS).commit_sampling(2**64, b"\x00" * 32),
    ],
)
def test_what_a_type_cannot_hold_is_refused_before_anything_is_sent(make: Any) -> None:
    call: Call = make()

    with pytest.raises(BadArgument):
        _ = call.data


def test_structs_are_sent_as_what_they_are_to_the_contract() -> None:
    spends = [Spend(account=ADDRESS, cumulative_spent=5), Spend(account=ADDRESS, cumulative_spent=6)]

    call = CreditVaultCalls(ADDRESS).settle(spends)

    assert call.data[4:] == call.function.encode([[(ADDRESS, 5), (ADDRESS, 6)]])[4:]
    assert call.data[-32:] == (6).to_bytes(32, "big")


def test_addresses_come_back_with_their_checksum() -> None:
    owner: Address = Function("owner", (), ("address",)).decode(bytes(12) + bytes.fromhex("ab" * 20))[0]

    assert owner == "0xABaBaBaBABabABabAbAbABAbABabababaBaBABaB"


def test_abis_are_json_that_others_can_use() -> None:
    for contract in CONTRACTS:
        assert json.loads(json.dumps(artifact(contract).abi))
