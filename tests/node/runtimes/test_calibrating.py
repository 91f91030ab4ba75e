"""Measuring honest answers, with real models in llama.cpp and Ollama."""

from __future__ import annotations

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

import services
from parallelix.node import calibrating
from parallelix.node.calibrating import OpenRuntime, built_in, calibrate, milliseconds_per_token
from parallelix.node.runtimes.base import ModelMissing, Runtime, RuntimeUnsupported
from parallelix.node.runtimes.llama_cpp import LlamaCpp
from parallelix.node.runtimes.ollama import Ollama
from parallelix.protocol import calibration


def llama_cpp(*files: Path) -> OpenRuntime:
    """Another of `files` each time it is opened, the last one from then on."""
    rest = list(files)

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Runtime]:
        runtime = LlamaCpp([rest.pop(0) if len(rest) > 1 else rest[0]], 2, threads=1)
        try:
            yield runtime
        finally:
            await runtime.aclose()

    return opened


async def test_a_card_says_what_was_measured(tiny_models: dict[str, Path]) -> None:
    told: list[tuple[str, int, int]] = []

    measured = await calibrate(
        llama_cpp(tiny_models["demo"]),
        "demo",
        prompts=6,
        slots=2,
        hardware="a machine",
        measured_at="2026-01-01T00:00:00Z",
        on_progress=lambda step, done, total: told.append((step, done, total)),
    )

    card = measured.card
    assert calibration.decode_card(calibration.encode_card(card)) == card
    assert (card.model, card.runtime, card.hardware, card.measured_at) == (
        "demo",
        "llama_cpp",
        "a machine",
        "2026-01-01T00:00:00Z",
    )
    assert card.model_digest == (await digest_of(tiny_models["demo"]))
    assert [spread.positions for spread in card.spreads] == [1, 2, 4, 8]
    for spread in card.spreads:
        assert 0 <= spread.median <= spread.q99 <= spread.q999 <= spread.largest < 0.05
    assert card.prefill_ms_per_token > 0
    assert card.decode_ms_per_token > 0
    assert (measured.answers, measured.unauditable, measured.audits) == (6, 0, 6 * calibrating.AUDITS_PER_ANSWER)
    assert (measured.rejected, measured.rejected_by_default) == ({}, 0)
    assert measured.threshold == calibration.threshold(card, 8)
    assert {step for step, _, _ in told} == {"answering", "timing", "auditing"}
    assert ("auditing", 6, 6) in told


async def digest_of(path: Path) -> str:
    runtime = LlamaCpp([path], 1)
    (model,) = await runtime.models()
    return model.digest


async def test_answers_of_another_model_are_seen_to_be_rejected(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    """The file is exchanged between answering and auditing, so that nothing here is honest."""
    other = tmp_path / "demo.gguf"
    shutil.copyfile(services.REPOSITORY / "models" / "parallelix-demo-b.gguf", other)

    measured = await calibrate(llama_cpp(tiny_models["demo"], other), "demo", prompts=4)

    # So wide a spread makes a wide threshold, by which little is rejected: a card is as good as who measures it.
    assert measured.card.spreads[-1].median > 0.05
    assert measured.rejected_by_default > measured.audits / 2


async def test_a_model_whose_tokens_its_tokenizer_would_not_choose_has_few_places_to_compare(
    tiny_models: dict[str, Path],
) -> None:
    measured = await calibrate(llama_cpp(tiny_models["words"]), "words", prompts=4)

    assert measured.card.unusable_share > 0.5
    assert [spread.positions for spread in measured.card.spreads] == [1]


async def test_a_model_that_cannot_be_audited_is_refused(tiny_models: dict[str, Path]) -> None:
    for name, error, words in (
        ("thinks", RuntimeUnsupported, "thinks before it answers"),
        ("pooled", RuntimeUnsupported, "embeddings"),
        ("nope", ModelMissing, "not installed"),
    ):
        with pytest.raises(error, match=words):
            await calibrate(llama_cpp(tiny_models.get(name, tiny_models["demo"])), name)


async def test_ollama_is_measured_alike(ollama_server: services.Ollama, tiny_models: dict[str, Path]) -> None:
    ollama_server.create_model("measured", tiny_models["demo"], num_thread=1)

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Runtime]:
        async with httpx.AsyncClient(trust_env=False) as http:
            yield Ollama(ollama_server.url, http)

    measured = await calibrate(opened, "measured", prompts=4)

    assert measured.card.runtime == "ollama"
    assert measured.card.model == "measured:latest"
    assert measured.rejected == {}
    assert measured.card.spreads[-1].largest < 0.01


def test_the_prompts_are_of_every_kind() -> None:
    works = built_in("m", 48, chat=True)

    asked = {(work.prompt, str(work.messages), work.sampling.temperature, work.sampling.max_tokens) for work in works}
    assert len(asked) == len(works)
    assert {work.prompt is None for work in works} == {True, False}
    assert {work.sampling.temperature for work in works} == {0.0, None, 1.0}
    assert {work.sampling.max_tokens for work in works} == {12, 32, 64, 96, 160}
    assert {len(work.messages) for work in works if work.messages} == {1, 2, 3}
    text = "".join(str(work.messages) + str(work.prompt) for work in works)
    assert "🌊" in text and "日本" in text
    assert all(work.prompt for work in built_in("m", 16, chat=False))


def test_no_prompt_is_asked_twice_in_the_same_way() -> None:
    works = built_in("m", calibrating.PROMPTS_MAX, chat=True)
    asked = {(work.prompt, str(work.messages), work.sampling.temperature, work.sampling.max_tokens) for work in works}
    assert len(asked) == calibrating.PROMPTS_MAX


@pytest.mark.parametrize(
    ("points", "milliseconds"),
    [
        ([(10, 0.5), (20, 0.6), (40, 0.8)], 10.0),
        ([(10, 0.5), (10, 0.7)], 60.0),
        ([(10, 0.6), (20, 0.3)], 30.0),
        ([(0, 0.0)], 0.0),
    ],
    ids=["a line", "one length", "falling", "nothing"],
)
def test_a_token_costs_what_more_of_them_cost_more(points: list[tuple[int, float]], milliseconds: float) -> None:
    assert milliseconds_per_token(points) == pytest.approx(milliseconds)
