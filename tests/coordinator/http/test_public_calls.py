"""What anyone may read without a key: health, metrics, the document and its page, and the chain of records."""

from __future__ import annotations

import hashlib
from typing import Any

import httpx
import msgspec
import pytest
from http_network import Network, StartNetwork, eventually
from talking_runtime import MODEL, TalkingRuntime

from parallelix.coordinator.http.endpoints import Endpoint, endpoints
from parallelix.protocol import canonical, merkle
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.records import Batch

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHAT: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "one two"}]}


@pytest.fixture
def table(network: Network) -> tuple[Endpoint, ...]:
    return endpoints(network.coordinator)


async def test_health_is_told_without_a_key_and_readiness_ends_when_it_stops(start_network: StartNetwork) -> None:
    async with start_network(TalkingRuntime(), nodes=0) as network, httpx.AsyncClient(base_url=network.url) as anyone:
        for path in ("/healthz", "/readyz", "/api/readyz"):
            response = await anyone.get(path)
            assert (response.status_code, response.json()["status"]) == (200, "ok")
        network.coordinator.stop()
        assert (await anyone.get("/healthz")).status_code == 200
        stopping = await anyone.get("/readyz")
        assert (stopping.status_code, stopping.json()) == (503, {"status": "no", "reason": "stopping"})
        async with network.customer() as customer:
            refused = await customer.post("/v1/requests", json=CHAT)
    assert (refused.status_code, refused.json()["error"]) == (503, "stopping")
    assert int(refused.headers["retry-after"]) >= 1


async def test_metrics_count_what_was_served_and_what_was_refused(network: Network, client: httpx.AsyncClient) -> None:
    before = await metrics_of(network)
    assert (await client.post("/v1/chat/completions", json=CHAT)).status_code == 200
    assert (await client.post("/v1/chat/completions", json={**CHAT, "model": "no"})).status_code == 404
    after = await metrics_of(network)
    grown = {name for name, value in after.items() if value > before.get(name, 0)}
    assert any("unknown_model" in name for name in grown)
    assert any("completed" in name for name in grown)
    assert not any("_created" in name for name in after)
    # Nothing of a request, an account or a node is a label.
    text = "\n".join(after)
    assert not any(word in text for word in (*network.identities, "req_", "account0", "prlx_"))


async def metrics_of(network: Network) -> dict[str, float]:
    async with httpx.AsyncClient(base_url=network.url) as anyone:
        response = await anyone.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = [line for line in response.text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def test_the_document_has_every_route_with_its_codes(network: Network, table: tuple[Endpoint, ...]) -> None:
    async with httpx.AsyncClient(base_url=network.url) as anyone:
        document = (await anyone.get("/schema/openapi.json")).json()
    assert document["openapi"] == "3.1.0"
    for endpoint in table:
        operation = document["paths"][endpoint.path][endpoint.method.lower()]
        described = {code for each in operation["responses"].values() for code in each["description"].split(", ")}
        assert {kind.codes[0] for kind in endpoint.errors} <= described, endpoint.path
        assert bool(operation.get("security")) == endpoint.needs_key
    operations = {each["operationId"] for path in document["paths"].values() for each in path.values()}
    links = document["paths"]["/v1/requests"]["post"]["responses"]["201"]["links"]
    assert {link["operationId"] for link in links.values()} <= operations


async def test_the_page_of_the_document_needs_nothing_from_elsewhere(network: Network) -> None:
    async with httpx.AsyncClient(base_url=network.url) as anyone:
        page = await anyone.get("/schema")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "POST /v1/chat/completions" in page.text and "<code>/api</code>" in page.text
    assert not any(word in page.text for word in ("<script", "http://", "https://"))


async def test_every_call_that_needs_a_key_refuses_without_one(network: Network, table: tuple[Endpoint, ...]) -> None:
    keyed = [endpoint for endpoint in table if endpoint.needs_key]
    assert len(keyed) > 12
    async with httpx.AsyncClient(base_url=network.url) as anyone:
        for endpoint in keyed:
            path = endpoint.path.replace("{id}", "req_" + "0" * 64).replace("{model}", MODEL)
            response = await anyone.request(endpoint.method, path)
            error = response.json()["error"]
            code = error["code"] if endpoint.in_openai_shape else error
            assert (response.status_code, code) == (401, "missing_api_key"), path
            assert response.headers["www-authenticate"].startswith("Bearer")


async def test_anyone_can_follow_the_chain_from_a_receipt_to_its_batch(start_network: StartNetwork) -> None:
    async with start_network(TalkingRuntime(), batch_seconds=0.05) as network, network.customer() as customer:
        path = (await customer.post("/v1/chat/completions", json=CHAT)).json()["parallelix"]["receipt"]

        async def is_confirmed() -> bool:
            return (await customer.get(path)).json()["batch"] is not None

        await eventually(is_confirmed)
        receipt = (await customer.get(path)).json()
        async with httpx.AsyncClient(base_url=network.url) as anyone:
            number = receipt["batch"]["number"]
            batch = canonical.decode((await anyone.get(f"/v1/batches/{number}")).content, Batch)
            record = (await anyone.get(f"/v1/records/{receipt['record_hash']}")).content
            totals = (await anyone.get("/v1/network")).json()
    assert to_hex(hashlib.sha256(record).digest()) == receipt["record_hash"]
    assert msgspec.to_builtins(batch) == receipt["batch"]
    leaf = from_hex(receipt["record_hash"], name="record_hash", length_bytes=32)
    assert to_hex(merkle.Tree([leaf]).root) == batch.merkle_root
    assert (totals["records"], totals["batches_confirmed"], totals["head_hash"]) == (1, 1, receipt["record_hash"])


async def test_what_allow_names_is_what_a_path_takes(network: Network, table: tuple[Endpoint, ...]) -> None:
    async with httpx.AsyncClient(base_url=network.url) as anyone:
        for path in ("/v1/requests", "/v1/requests/x", "/healthz", "/v1/quote"):
            template = path.replace("/x", "/{id}")
            methods = {endpoint.method for endpoint in table if endpoint.path == template}
            options, other = await anyone.options(path), await anyone.patch(path)
            assert {*options.headers["allow"].split(", ")} == {*methods, "OPTIONS"}
            assert {*other.headers["allow"].split(", ")} == {*methods, "OPTIONS"}
            assert (options.status_code, other.status_code) == (204, 405)
