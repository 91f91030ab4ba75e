"""The whole path with the operator's own command and a real Ollama, which has the model under a name of its own."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import msgspec
from real_processes import eventually, scene

import services
from parallelix.devnet.model import demonstration_model
from parallelix.devnet.network import NodeCommand, Seat, catalogue_entry
from parallelix.node.config import DEFAULT_OLLAMA
from parallelix.protocol import receipts

CATALOGUE_NAME = "oss-small"


def ollama_node(url: str) -> NodeCommand:
    def command(seat: Seat) -> list[str]:
        config = seat.home / "config.toml"
        config.write_text(config.read_text().replace(DEFAULT_OLLAMA, url))
        start = [sys.executable, "-m", "parallelix.node", "start", "--foreground", "--cpu", "--runtime", "ollama"]
        return [*start, "--node-id", str(seat.node_id), "--coordinator", seat.coordinator_url, "--slots", "2"]

    return command


async def test_a_prompt_is_answered_by_a_real_ollama_and_leaves_a_receipt(
    tmp_path: Path, ollama_server: services.Ollama
) -> None:
    weights = demonstration_model()
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    ollama_server.create_model("somebodys-own-name", weights)
    catalogue = catalogue_entry(CATALOGUE_NAME, digest, context_tokens=1024, max_tokens_max=512)
    async with scene(tmp_path, command=ollama_node(ollama_server.url), catalogue=catalogue) as on:
        asked = await on.client.create("What is a receipt?", model=CATALOGUE_NAME, max_tokens=40, top_logprobs=3)
        await on.client.ended(asked)
        view = await eventually(lambda: on.client.view(asked), lambda view: view.settled)
        receipt = msgspec.convert(await on.client.get(f"/v1/requests/{asked}/receipt"), receipts.Receipt)
    assert (view.state, view.reason) == ("completed", "")
    assert view.result is not None and view.usage is not None
    assert 0 < len(view.result.logprobs) <= view.usage.completion_tokens <= 40
    assert "".join(entry.text for entry in view.result.logprobs) == view.result.text != ""
    assert {name: holds for name, holds, _ in receipts.verify(receipt)} == {
        "record": True,
        "coordinator": True,
        "batch": True,
        "audit": True,
    }
    assert receipt.record.model_digest == digest
