"""`receipt show`, `verify`, `refresh`: what a receipt proves offline, and that nothing in it can be altered."""

from __future__ import annotations

import copy
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import msgspec
import pytest
import pytest_asyncio
from client_scene import Operate, Operating, Script, matches_golden, matches_schema, with_fixed_values
from http_network import Network, eventually
from talking_runtime import MODEL

from parallelix.client import Client, KeptAnswer, chat, kept
from parallelix.protocol import receipts, signing
from parallelix.protocol.errors import Malformed

Path_: TypeAlias = "tuple[str | int, ...]"
STRANGER = signing.NodeKey(b"\x05" * 32)
CHANGED = 7

on_the_shared_network = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def kept_answer(network: Network) -> KeptAnswer:
    """An answer that was kept, with its batch."""
    async with network.customer() as customer, Client(network.url, secret_of(customer)) as client:
        body = chat("one two three", model=MODEL, system="Be brief.")
        answer = await client.ask(body)

        async def is_batched() -> bool:
            return (await client.receipt(answer.request_id)).batch is not None

        await eventually(is_batched)
        return await client.keep(body, answer.request_id)


@pytest.fixture
def kept_file(kept_answer: KeptAnswer, tmp_path: Path) -> Path:
    path = tmp_path / "kept.json"
    path.write_bytes(msgspec.json.encode(kept_answer))
    return path


@pytest_asyncio.fixture(loop_scope="module")
async def request_id(network: Network, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A completed request whose batch is confirmed, and its key in the environment."""
    async with network.customer() as customer, Client(network.url, secret_of(customer)) as client:
        monkeypatch.setenv("PARALLELIX_URL", network.url)
        monkeypatch.setenv("PARALLELIX_API_KEY", secret_of(customer))
        answer = await client.ask(chat("one two three", model=MODEL))

        async def is_settled() -> bool:
            return (await client.get(answer.request_id)).settled

        await eventually(is_settled)
        yield answer.request_id


def secret_of(customer: httpx.AsyncClient) -> str:
    return customer.headers["authorization"].removeprefix("Bearer ")


# Altered


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """The path of every plain value inside."""
    if isinstance(value, dict):
        for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from leaves(inner, (*path, str(key)))  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, list):
        for at, inner in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            yield from leaves(inner, (*path, at))
    else:
        yield path


def altered(old: Any) -> Any:
    if isinstance(old, str):
        return old[:-1] + ("1" if old[-1:] != "1" else "2")
    return old + 1 if isinstance(old, int) else 0


def test_a_file_with_any_value_altered_does_not_verify(operate: Operate, kept_file: Path, tmp_path: Path) -> None:
    whole = json.loads(kept_file.read_bytes())
    paths = [*leaves(whole)]
    assert len(paths) > 30
    assert operate("receipt", "verify", str(kept_file)).code == 0
    for path in paths:
        edited: Any = copy.deepcopy(whole)
        inner: Any = edited
        for step in path[:-1]:
            inner = inner[step]
        nobody_knows = path[-1] in ("version", "kind", "state") or inner[path[-1]] is None
        inner[path[-1]] = altered(inner[path[-1]])
        other = tmp_path / "edited.json"
        other.write_text(json.dumps(edited))
        printed = operate("receipt", "verify", str(other))
        # A version, kind or state that nobody knows, or a number for what is not there, is no receipt at all.
        assert printed.code == (2 if nobody_knows else CHANGED), path
        assert "all that can be checked" not in printed.out


def test_a_file_with_something_added_removed_or_cut_off_is_refused(operate: Operate, kept_file: Path) -> None:
    whole = json.loads(kept_file.read_bytes())
    added = copy.deepcopy(whole)
    added["receipt"]["record"]["audited"] = True
    removed = copy.deepcopy(whole)
    del removed["receipt"]["charge_wei"]
    for text in (json.dumps(added), json.dumps(removed), kept_file.read_text()[:-9], "", "[]", "{}", "\x00"):
        kept_file.write_text(text)
        printed = operate("receipt", "verify", str(kept_file), "--json")
        assert (printed.code, printed.error["error"]) == (2, "client.file_refused"), text[:40]


def test_half_a_proof_does_not_verify_though_its_own_signer_signs_it(kept_answer: KeptAnswer) -> None:
    for missing in ("batch", "proof"):
        half = msgspec.structs.replace(
            kept_answer.receipt, signature="", coordinator=STRANGER.address, **{missing: None}
        )
        found = msgspec.structs.replace(kept_answer, receipt=receipts.sign(half, STRANGER))
        assert [name for name, holds, _ in kept.verify(found) if not holds] == ["batch"]


def test_a_receipt_signed_anew_by_a_stranger_falls_only_to_who_knows_the_coordinator(
    operate: Operate, kept_answer: KeptAnswer, kept_file: Path
) -> None:
    known = kept_answer.receipt.coordinator
    dear = msgspec.structs.replace(
        kept_answer.receipt, charge_wei="1" + kept_answer.receipt.charge_wei, coordinator=STRANGER.address, signature=""
    )
    forged = msgspec.structs.replace(kept_answer, receipt=receipts.sign(dear, STRANGER))
    kept_file.write_bytes(msgspec.json.encode(forged))
    alone = operate("receipt", "verify", str(kept_file), "--json")
    assert alone.code == 0
    assert f"that {STRANGER.address} is the coordinator you dealt with" in " ".join(json.loads(alone.out)["unproven"])
    informed = operate("receipt", "verify", str(kept_file), "--coordinator", known, "--json")
    failed = [check["name"] for check in json.loads(informed.out)["checks"] if not check["passed"]]
    assert (informed.code, failed) == (CHANGED, ["signer"])


# Verified


def test_verify_offline_as_promised(operate: Operate, kept_answer: KeptAnswer, kept_file: Path) -> None:
    known = ("--coordinator", kept_answer.receipt.coordinator)
    printed = operate("receipt", "verify", str(kept_file), *known)
    assert (printed.code, printed.err) == (0, "")
    matches_golden("receipt-verify", with_fixed_values(printed.out))
    answer = matches_schema("receipt-verify", operate("receipt", "verify", str(kept_file), *known, "--json").out)
    assert [check["name"] for check in answer["checks"]] == [
        "record", "coordinator", "signer", "input", "result", "batch", "audit",
    ]  # fmt: skip
    assert answer["passed"] is True
    assert any("on Ethereum" in each for each in answer["unproven"])
    assert any("honestly" in each for each in answer["unproven"])


def test_verify_shows_what_does_not_hold(operate: Operate, kept_answer: KeptAnswer, kept_file: Path) -> None:
    lied = msgspec.structs.replace(kept_answer, result=kept_answer.result.replace("three", "four"))
    kept_file.write_bytes(msgspec.json.encode(lied))
    printed = operate("receipt", "verify", str(kept_file))
    assert printed.code == CHANGED
    matches_golden("receipt-verify-altered", with_fixed_values(printed.out))


def test_a_receipt_alone_is_compared_with_the_files_that_are_given(
    operate: Operate, kept_answer: KeptAnswer, tmp_path: Path
) -> None:
    alone, payload, result = (tmp_path / name for name in ("receipt.json", "payload.json", "result.json"))
    alone.write_bytes(msgspec.json.format(msgspec.json.encode(kept_answer.receipt), indent=2))
    payload.write_text(kept_answer.payload)
    result.write_text(kept_answer.result)
    given = ("--payload", str(payload), "--result", str(result))
    assert operate("receipt", "verify", str(alone), *given).code == 0
    assert "not compared with a prompt" in operate("receipt", "verify", str(alone)).out
    assert operate("receipt", "verify", "-", *given, stdin=alone.read_text()).code == 0
    payload.write_text(kept_answer.payload + "\n")
    assert operate("receipt", "verify", str(alone), *given).code == CHANGED
    assert (
        operate("receipt", "verify", str(tmp_path / "nowhere.json"), "--json").error["error"] == "client.file_refused"
    )


@on_the_shared_network
async def test_show_and_verify_by_id_as_promised(network: Network, request_id: str, operating: Operating) -> None:
    shown, as_json = (
        await operating("receipt", "show", request_id),
        await operating("receipt", "show", request_id, "--json"),
    )
    assert (shown.code, as_json.code, as_json.err) == (0, 0, "")
    matches_golden("receipt-show", with_fixed_values(shown.out))
    assert matches_schema("receipt-show", as_json.out)["record"]["request_id"] == request_id
    verified = await operating("receipt", "verify", request_id, "--json")
    checks = {check["name"]: check["passed"] for check in json.loads(verified.out)["checks"]}
    assert verified.code == 0
    assert checks == dict.fromkeys(
        ["record", "coordinator", "batch", "audit", "request", "record shown", "batch shown"], True
    )


# Refreshed


@on_the_shared_network
async def test_an_answer_saved_at_once_gets_the_proof_of_its_batch_later(
    network: Network, request_id: str, operating: Operating, tmp_path: Path
) -> None:
    path = tmp_path / "answer.json"
    asked = await operating("ask", "one two", "--save", str(path))
    assert f"parallelix receipt verify {path}" in asked.err
    assert path.stat().st_mode & 0o777 == 0o600
    assert "exists already" in (await operating("ask", "one two", "--save", str(path))).err
    early = json.loads(path.read_bytes())
    early["receipt"] = early["receipt"] | {"batch": None, "proof": None}
    path.write_text(json.dumps(early))

    async def is_refreshed() -> bool:
        answer = matches_schema("receipt-refresh", (await operating("receipt", "refresh", str(path), "--json")).out)
        return answer["batch"] is not None

    await eventually(is_refreshed)
    again = await operating("receipt", "refresh", str(path))
    assert with_fixed_values(again.out) == "✓ it has the proof of batch 3\n"
    verified = await operating("receipt", "verify", str(path), "--json")
    assert (verified.code, [check["name"] for check in json.loads(verified.out)["checks"]][-2:]) == (
        0, ["batch", "audit"],
    )  # fmt: skip


@on_the_shared_network
async def test_a_coordinator_that_now_tells_it_otherwise_does_not_get_the_file(
    kept_answer: KeptAnswer, kept_file: Path, operating: Operating, request_id: str
) -> None:
    other = kept_answer.receipt.record.request_id
    whole = json.loads(kept_file.read_bytes())
    whole["receipt"]["record"]["request_id"] = request_id
    kept_file.write_text(json.dumps(whole))
    before = kept_file.read_bytes()
    printed = await operating("receipt", "refresh", str(kept_file), "--json")
    assert (printed.code, printed.error["error"]) == (2, "client.file_refused")
    assert kept_file.read_bytes() == before
    assert other != request_id


async def test_what_the_coordinator_does_not_show_to_anyone_is_noticed(kept_answer: KeptAnswer) -> None:
    def refused() -> httpx.Response:
        return httpx.Response(404, json={"error": "unknown_record", "message": "not in the chain"})

    async with Client("http://127.0.0.1:1", transport=Script(refused(), refused())) as client:
        assert [holds for _, holds, _ in await client.published(kept_answer.receipt)] == [False, False]


def test_what_is_no_receipt_is_never_read_as_one() -> None:
    for data in (b"", b"null", b"5", b'{"receipt":{}}', b'{"receipt":null,"payload":"","result":""}', b"[" * 100_000):
        with pytest.raises(Malformed):
            kept.read(data)
