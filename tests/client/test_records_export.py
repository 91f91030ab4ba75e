"""`records export`: all that a coordinator recorded, in a file that `records verify` takes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
import pytest_asyncio
from client_scene import Operating, matches_schema
from http_network import Network, StartNetwork, eventually
from talking_runtime import MODEL, TalkingRuntime

from parallelix.chain.records_audit import audit
from parallelix.client import Client, sdk
from parallelix.client.errors import BadAnswer
from parallelix.protocol.record_export import Header, Section, read_line
from parallelix.protocol.records import ExecutionRecord, record_hash

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "one two"}]}
RECORDS = 7


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def recorded(start_network: StartNetwork) -> AsyncIterator[Network]:
    """Seven records, six of them in batches of two."""
    async with start_network(TalkingRuntime(), batch_seconds=600, batch_records_max=2) as network:
        async with network.customer() as customer:
            for _ in range(RECORDS):
                assert (await customer.post("/v1/chat/completions", json=CHAT)).status_code == 200

        async def is_batched() -> bool:
            async with Client(network.url) as anyone:
                batch = await anyone.batch(2)
                return batch is not None

        await eventually(is_batched)
        yield network


async def test_an_export_needs_no_key_and_holds_every_record(
    recorded: Network, operating: Operating, tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    exported = await operating("records", "export", "--out", str(path), "--url", recorded.url, "--json")
    answer = matches_schema("records-export", exported.out)
    lines = path.read_bytes().splitlines(keepends=True)
    header = read_line(lines[0], first=True)
    records = [each for line in lines[1:] if isinstance(each := read_line(line), ExecutionRecord)]
    batches = [each.batch for line in lines[1:] if isinstance(each := read_line(line), Section) and each.batch]

    assert (exported.code, answer["records"], answer["path"]) == (0, RECORDS, str(path))
    assert isinstance(header, Header) and header.anchor == "local"
    assert [each.sequence for each in records] == [*range(RECORDS)]
    assert len(batches) == answer["batches"] == 3
    assert answer["unbatched"] == 1
    assert audit(lines, []).findings == ()
    assert audit(lines, batches).covered == RECORDS - 1
    async with httpx.AsyncClient(base_url=recorded.url) as anyone:
        assert (await anyone.get("/v1/network")).json()["head_hash"] == record_hash(records[-1])


async def test_audits_are_verified_by_the_word_of_a_coordinator(
    recorded: Network, operating: Operating, tmp_path: Path
) -> None:
    """This one draws nothing, which is told as what it is: rates of 0."""
    path = tmp_path / "records.jsonl"
    await operating("records", "export", "--out", str(path), "--url", recorded.url)
    verifying = ("audit", "verify", str(path), "--coordinator", recorded.url)

    strict, lenient = await operating(*verifying, "--json"), await operating(*verifying, "--floor", "0", "--json")

    answer = matches_schema("audit-verify", strict.out)
    assert (strict.code, answer["told_by"], answer["export_holds"]) == (7, "coordinator", True)
    assert [each["message"] for each in answer["violations"]] == [
        f"records 0 to {RECORDS - 1}: a rate of 0 %, below the floor of 10 %"
    ]
    assert (lenient.code, json.loads(lenient.out)["epochs"][0]["executions"]) == (0, RECORDS)


async def test_an_export_never_takes_the_place_of_another(
    recorded: Network, operating: Operating, tmp_path: Path
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text("what was known before")

    printed = await operating("records", "export", "--out", str(path), "--url", recorded.url)
    nowhere = await operating("records", "export", "--out", str(tmp_path / "no" / "r"), "--url", recorded.url, "--json")

    assert (printed.code, path.read_text()) == (2, "what was known before")
    assert "exists already" in printed.err
    assert nowhere.error["error"] == "client.file_refused"
    assert [*tmp_path.iterdir()] == [path]


async def test_an_export_that_cannot_be_finished_leaves_nothing(
    recorded: Network, operating: Operating, tmp_path: Path
) -> None:
    elsewhere = f"{recorded.url}/nowhere"

    printed = await operating("records", "export", "--out", str(tmp_path / "records.jsonl"), "--url", elsewhere)

    assert printed.code != 0
    assert not [*tmp_path.iterdir()]


async def test_pages_are_joined_from_any_record_on(recorded: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdk, "RECORDS_PAGE", 3)

    async with Client(recorded.url) as anyone:
        assert [each.sequence async for each in anyone.records(first=2)] == [2, 3, 4, 5, 6]
        assert [each async for each in anyone.records(first=RECORDS)] == []


async def test_pages_with_a_gap_are_no_chain(recorded: Network) -> None:
    async with httpx.AsyncClient(base_url=recorded.url) as anyone:
        page = (await anyone.get("/v1/records")).json()["data"]
    skipping = httpx.MockTransport(
        lambda _request: httpx.Response(200, content=msgspec.json.encode({"data": page[1:]}))
    )

    async with Client("http://127.0.0.1:1", transport=skipping) as client:
        with pytest.raises(BadAnswer, match="answered record 1 where 0 was asked for"):
            async for _ in client.records():
                pass


async def test_a_kind_of_record_that_this_client_does_not_know_is_told() -> None:
    newer = httpx.MockTransport(lambda _request: httpx.Response(200, content=b'{"data":[{"kind":"note"}]}'))

    async with Client("http://127.0.0.1:1", transport=newer) as client:
        with pytest.raises(BadAnswer, match="or a newer one than this client"):
            async for _ in client.records():
                pass
