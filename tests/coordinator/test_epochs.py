"""Epochs of sampling where there is no chain, and what is public of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from auditing_scene import Auditors, auditors, executed, hand_nodes

from parallelix.coordinator.auditing import CardRefused, load_cards
from parallelix.coordinator.secrets import SecretRefused
from parallelix.protocol import calibration, sampling
from parallelix.protocol.encoding import from_hex
from parallelix.protocol.records import ExecutionRecord, decode_record

SHORT: dict[str, Any] = {"epoch_seconds": 0.1, "batch_records_max": 1}


async def public(scene: Auditors) -> list[dict[str, Any]]:
    answer = await scene.http.get("/v1/epochs")
    assert answer.status_code == 200, answer.text
    assert answer.json()["floor_percent"] == 10
    return answer.json()["data"]


async def test_the_first_commitment_is_public_before_anything_is_asked(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(1)) as scene:
        (epoch,) = await public(scene)
        assert (epoch["epoch"], epoch["secret"], epoch["revealed_at"]) == (0, "", 0)
        assert len(from_hex(epoch["commitment"], name="commitment", length_bytes=32)) == 32


async def test_an_epoch_is_revealed_when_it_is_over_and_its_draws_can_be_recomputed(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(2), **SHORT) as scene:
        _, request_id = await scene.executed()
        await scene.audit(request_id)
        row = await scene.coordinator.readers.record_of_request(request_id)
        assert row is not None
        record = decode_record(row.body)
        assert isinstance(record, ExecutionRecord)
        await scene.until(lambda: record.epoch not in scene.engine.epochs)
        await scene.coordinator.journal.flushed()
        epoch = (await public(scene))[record.epoch]
        secret = from_hex(epoch["secret"], name="secret", length_bytes=32)
        assert sampling.commitment(secret) == from_hex(epoch["commitment"], name="commitment", length_bytes=32)
        assert epoch["began_at"] < epoch["revealed_at"]
        assert sampling.drawn(sampling.draw(secret, record.poe_commitment), record.rate)


async def test_an_epoch_is_not_revealed_and_no_second_begins_while_an_attempt_of_it_is_open(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(2), **SHORT) as scene:
        request_id = await scene.create()
        node, unit = await scene.taken(request_id)
        epoch = scene.engine.requests[request_id].attempts[-1].epoch
        await scene.until(lambda: scene.engine.epoch == epoch + 1)
        due_at = scene.engine.epochs[epoch + 1].began_at + 300
        await scene.until(lambda: scene.coordinator.clock() > due_at)
        assert sorted(scene.engine.epochs) == [epoch, epoch + 1]
        await scene.answer(node, unit, executed())
        await scene.until(lambda: scene.engine.epoch > epoch + 1)
        assert epoch not in scene.engine.epochs


async def test_an_epoch_goes_on_after_a_restart(tmp_path: Path) -> None:
    nodes = hand_nodes(1)
    async with auditors(tmp_path, nodes) as scene:
        before = await public(scene)
    async with auditors(tmp_path, nodes) as scene:
        assert await public(scene) == before
    async with auditors(tmp_path, nodes, **SHORT) as scene:
        await scene.until(lambda: scene.engine.epoch >= 1)


async def test_another_sampling_key_is_refused_with_the_way_out(tmp_path: Path) -> None:
    nodes = hand_nodes(1)
    async with auditors(tmp_path, nodes):
        pass
    (tmp_path / "sampling.key").write_text("ab" * 32 + "\n")
    with pytest.raises(SecretRefused, match=r"epoch 0 .* restore the file .* audits = false"):
        async with auditors(tmp_path, nodes):
            pass
    async with auditors(tmp_path, nodes, audits=False) as scene:
        assert (await scene.http.get("/v1/epochs")).json()["floor_percent"] == 0


@pytest.mark.parametrize("query", ["first=-1", "first=x", "limit=0", "limit=1001", "colour=1"])
async def test_a_page_of_epochs_that_cannot_be_is_refused(tmp_path: Path, query: str) -> None:
    async with auditors(tmp_path, hand_nodes(1)) as scene:
        assert (await scene.http.get(f"/v1/epochs?{query}")).status_code == 400
        assert (await scene.http.get("/v1/epochs?first=1&limit=1")).json()["data"] == []


def test_cards_are_found_by_their_models_digest(tmp_path: Path) -> None:
    assert load_cards(tmp_path) == {}
    (tmp_path / "cards").mkdir()
    cards = [calibration.Card(model_digest=each * 64, model="m") for each in "ab"]
    for number, card in enumerate(cards):
        (tmp_path / "cards" / f"{number}.json").write_bytes(calibration.encode_card(card))
    assert load_cards(tmp_path) == {card.model_digest: card for card in cards}
    (tmp_path / "cards" / "again.json").write_bytes(calibration.encode_card(cards[0]))
    with pytest.raises(CardRefused, match=r"second card for model a{16}"):
        load_cards(tmp_path)


@pytest.mark.parametrize("data", [b"", b"{}x", b'{"version":2}', b'{"unusable_share":2}', b"\xff"])
def test_a_card_that_cannot_be_read_is_refused_by_its_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "cards").mkdir()
    (tmp_path / "cards" / "odd.json").write_bytes(data)
    with pytest.raises(CardRefused, match=r"odd\.json.*models calibrate"):
        load_cards(tmp_path)
