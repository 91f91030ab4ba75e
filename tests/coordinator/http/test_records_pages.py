"""`GET /v1/records`: the whole chain of records, page by page, for anyone."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest
from http_network import Network
from talking_runtime import MODEL

from parallelix.coordinator.http.public import RECORDS_PAGE_MAX
from parallelix.protocol.records import RecordPage, decode_record, record_hash, verify_chain

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "one two"}]}


async def test_pages_joined_are_the_chain(network: Network) -> None:
    async with network.customer() as customer, httpx.AsyncClient(base_url=network.url) as anyone:
        for _ in range(5):
            assert (await customer.post("/v1/chat/completions", json=CHAT)).status_code == 200
        totals = (await anyone.get("/v1/network")).json()
        pages: list[RecordPage] = []
        while not pages or pages[-1].data:
            first = sum(len(page.data) for page in pages)
            response = await anyone.get("/v1/records", params={"first": first, "limit": 2})
            pages.append(msgspec.json.decode(response.content, type=RecordPage))
        default = msgspec.json.decode((await anyone.get("/v1/records")).content, type=RecordPage)

    records = [decode_record(bytes(record)) for page in pages for record in page.data]
    assert all(len(page.data) <= 2 for page in pages)
    assert len(records) == totals["records"] >= 5
    assert verify_chain(records) == record_hash(records[-1]) == totals["head_hash"]
    assert [decode_record(bytes(record)) for record in default.data] == records[:100]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("limit=0", "limit"),
        (f"limit={RECORDS_PAGE_MAX + 1}", "limit"),
        ("first=-1", "first"),
        ("first=1e3", "first"),
        ("first=", "first"),
        ("first=1&first=2", "first"),
        ("from=1", "from"),
    ],
)
async def test_a_page_that_there_cannot_be_is_refused(network: Network, query: str, param: str) -> None:
    async with httpx.AsyncClient(base_url=network.url) as anyone:
        response = await anyone.get(f"/v1/records?{query}")
    assert (response.status_code, response.json()["error"]) == (400, "invalid_request")
    assert response.json()["message"].startswith((f"{param}:", "query:"))
