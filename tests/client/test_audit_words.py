"""What a requester reads of an audit: in a receipt, and in a request."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import httpx
import pytest
from client_scene import Operate, Script, matches_schema

import vector_files as vectors
from parallelix.client import Client, audits
from parallelix.engine import verdicts
from parallelix.protocol.requests import AuditState

CASES = vectors.named(vectors.load("receipts")["receipts"])


@pytest.fixture
def receipt_file(tmp_path: Path) -> Path:
    return tmp_path / "receipt.json"


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("case", "said"),
    [
        ("with its batch", ["! audit: this receipt is from before receipts told of audits; refresh it"]),
        (
            "drawn, no verdict yet",
            [
                "! audit: drawn; no verdict yet",
                "not proven: that it was drawn by the draw: the secret of epoch 3 is not out; later: receipt refresh",
                "not proven: that it is audited at all: no verdict yet; later: receipt refresh",
            ],
        ),
        (
            "with an audit that disagreed",
            [
                "! audit: drawn and overturned: other nodes say that the model does not answer so; 0.00125 PRLX given",
                "not proven: that the secret of epoch 3 was fixed before the answer: no chain keeps it",
                "not proven: what the model would have answered instead",
            ],
        ),
        (
            "not drawn",
            ["! audit: not drawn", "✓ draw by the secret of epoch 3, this record was not drawn at a rate of"],
        ),
    ],
)
def test_receipt_verify_says_what_became_of_the_audit(
    operate: Operate, receipt_file: Path, case: str, said: list[str]
) -> None:
    receipt_file.write_text(json.dumps(CASES[case]["receipt"]))
    printed = operate("receipt", "verify", str(receipt_file))
    answer = matches_schema("receipt-verify", operate("receipt", "verify", str(receipt_file), "--json").out)

    assert printed.code == 0
    assert [each for each in said if each not in words(printed.out)] == []
    assert max(map(len, printed.out.splitlines())) <= 80
    state = CASES[case]["receipt"].get("audit", {}).get("state", "")
    assert (answer["audit"], answer["passed"]) == (state, True)


def test_every_state_has_words_and_an_unknown_reason_is_shown_as_it_is() -> None:
    said = {audits.said(state, "no_second_node") for state in get_args(AuditState)}

    assert len(said) == len(get_args(AuditState))
    assert audits.said("unaudited", "no_second_node") == "drawn, and not audited: no second node could do it in time"
    assert audits.said("inconclusive", "a_new_one") == "drawn; inconclusive: a_new_one"


def test_every_reason_that_leaves_something_open_has_words() -> None:
    reasons = {
        each.reason
        for (stage, _, _), each in verdicts.TABLE.items()
        if isinstance(each, verdicts.Ends) and stage != "prepared" and each.verdict in ("inconclusive", "unaudited")
    }

    assert reasons | {"too_many_open"} == set(audits.REASONS)
    assert audits.said("agree", "auditor_overruled") != audits.said("agree", "within")


async def test_epochs_are_joined_from_all_pages() -> None:
    def page(*epochs: int) -> httpx.Response:
        data = [{"epoch": each, "commitment": "0x", "secret": "", "began_at": 1, "revealed_at": 0} for each in epochs]
        return httpx.Response(200, json={"data": data, "floor_percent": 20})

    script = Script(page(0, 1), page(2), page())
    async with Client("http://127.0.0.1:1", transport=script) as client:
        found = await client.epochs()

    assert ([each.epoch for each in found.data], found.floor_percent) == ([0, 1, 2], 20)
    assert [call.url.params["first"] for call in script.calls] == ["0", "2", "3"]
