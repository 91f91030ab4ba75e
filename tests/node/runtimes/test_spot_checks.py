"""Answers that are hard to audit, from models made for it, in both runtimes and across them: an honest node is never
contradicted, and what cannot be compared is said to be so."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

import services
from parallelix.node import sealing
from parallelix.node.runtimes.base import Finished, Generation, Runtime, RuntimeUnsupported, Sampling
from parallelix.node.runtimes.llama_cpp import LlamaCpp
from parallelix.node.runtimes.ollama import Ollama
from parallelix.protocol import spot_check
from parallelix.protocol.calibration import DEFAULT_CARD
from parallelix.protocol.spot_check import Answer, Claim, Finding, choose_probes
from parallelix.protocol.work import ENTRY_TOP, MIN_P_DEFAULT, PROBE_TOP, TEMPERATURE_DEFAULT, Entry, Probes

HELLO = {"role": "user", "content": "hello"}
ADD: dict[str, Any] = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
PAIRS = [(one, other) for one in ("llama_cpp", "ollama") for other in ("llama_cpp", "ollama")]


@pytest.fixture(scope="module")
def hard_models(tiny_models: dict[str, Path]) -> dict[str, Path]:
    return {name: tiny_models[name] for name in ("words", "bytes", "calls", "thinks")}


@pytest.fixture(scope="module")
def ollama_with_them(
    ollama_server: services.Ollama, hard_models: dict[str, Path], ollama_templates: dict[str, str]
) -> services.Ollama:
    for name, path in hard_models.items():
        ollama_server.create_model(name, path, template=ollama_templates.get(name), num_thread=1)
    return ollama_server


@pytest.fixture
async def runtimes(
    ollama_with_them: services.Ollama, hard_models: dict[str, Path]
) -> AsyncIterator[Mapping[str, Runtime]]:
    llama_cpp = LlamaCpp(list(hard_models.values()), 1, threads=1)
    async with httpx.AsyncClient(trust_env=False, timeout=None) as http:
        yield {"llama_cpp": llama_cpp, "ollama": Ollama(ollama_with_them.url, http)}
    await llama_cpp.aclose()


def work(model: str, *, chat: bool = False, tools: bool = False, json: bool = False, **options: Any) -> Generation:
    values: dict[str, Any] = {"max_tokens": 24, "seed": 3, "top_logprobs": ENTRY_TOP}
    return Generation(
        model=model,
        prompt=None if chat else "hello",
        messages=[HELLO] if chat else None,
        tools=[ADD] if tools else None,
        response_format={"type": "json_object"} if json else None,
        sampling=Sampling(**(values | options)),
    )


async def claimed(runtime: Runtime, asked: Generation) -> Claim:
    entries: list[Entry] = []
    finished: Finished | None = None
    async for item in runtime.generate(asked):
        if isinstance(item, Finished):
            finished = item
        else:
            entries.append(sealing.entry_of(item))
    assert finished is not None
    sampling = asked.sampling
    return Claim(
        kind="completion" if asked.messages is None else "chat",
        model_digest="",
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=finished.completion_tokens,
        text="".join(entry.text for entry in entries),
        finish_reason=finished.finish,
        entries=tuple(entries),
        temperature=TEMPERATURE_DEFAULT if sampling.temperature is None else sampling.temperature,
        min_p=MIN_P_DEFAULT if sampling.min_p is None else sampling.min_p,
        tokens_max=sampling.max_tokens,
        stops=bool(sampling.stop),
        constrained=bool(asked.tools or asked.response_format),
    )


async def audit(claim: Claim, auditor: Runtime, asked: Generation) -> Finding | None:
    """None where nothing can be asked of an auditor."""
    probes = choose_probes(claim, random.Random(2).randbytes)
    if probes is None:
        return None
    counts: list[int] = []
    entries: list[Entry] = []
    again = replace(asked, sampling=Sampling(max_tokens=1, top_logprobs=PROBE_TOP))
    async for probed in auditor.probe(again, probes.text, probes.positions):
        counts.append(probed.prompt_tokens)
        entries.append(sealing.entry_of(probed.entry))
    answer = Answer(prompt_tokens=tuple(counts), entries=tuple(entries))
    return spot_check.compare(claim, probes, answer, DEFAULT_CARD)


@pytest.mark.parametrize(("executor", "auditor"), PAIRS)
async def test_words_agree_stopped_or_not(runtimes: Mapping[str, Runtime], executor: str, auditor: str) -> None:
    whole = await claimed(runtimes[executor], work("words", temperature=0.0))
    for asked in (
        work("words"),
        work("words", temperature=0.0),
        work("words", temperature=0.0, max_tokens=1),
        work("words", temperature=0.0, stop=(whole.text[18:24],)),
    ):
        finding = await audit(await claimed(runtimes[executor], asked), runtimes[auditor], asked)

        assert finding is not None
        assert (finding.outcome, finding.reason) == ("agree", "")


@pytest.mark.parametrize(("executor", "auditor"), PAIRS)
async def test_bytes_that_make_no_character_are_never_held_against_a_node(
    runtimes: Mapping[str, Runtime], executor: str, auditor: str
) -> None:
    for seed in range(4):
        asked = work("bytes", seed=seed)
        finding = await audit(await claimed(runtimes[executor], asked), runtimes[auditor], asked)

        assert finding is None or finding.outcome != "disagree"


@pytest.mark.parametrize(("executor", "auditor"), PAIRS)
async def test_an_answer_held_to_a_grammar_agrees_by_its_distances(
    runtimes: Mapping[str, Runtime], executor: str, auditor: str
) -> None:
    asked = work("words", chat=True, json=True, max_tokens=8, temperature=0.0)
    claim = await claimed(runtimes[executor], asked)

    finding = await audit(claim, runtimes[auditor], asked)

    assert claim.entries
    assert finding is None or finding.outcome != "disagree"


@pytest.mark.parametrize("runtime", ["llama_cpp", "ollama"])
async def test_a_tool_call_is_compared_at_the_empty_prefix(runtimes: Mapping[str, Runtime], runtime: str) -> None:
    asked = work("calls", chat=True, tools=True, max_tokens=64, temperature=0.0)
    claim = await claimed(runtimes[runtime], asked)
    assert claim.finish_reason == "tool_calls"

    finding = await audit(claim, runtimes[runtime], asked)

    assert finding is not None
    assert finding.outcome != "disagree"
    no = Entry("no", -0.01, (("no", -0.01), *((text, -6.0) for text in "abcd")))
    probes, answer = Probes(text="", positions=(0,)), Answer(prompt_tokens=(claim.prompt_tokens,), entries=(no,))
    assert spot_check.compare(claim, probes, answer, DEFAULT_CARD).outcome == "disagree"


@pytest.mark.parametrize("runtime", ["llama_cpp", "ollama"])
async def test_thoughts_are_audited_by_nobody_and_convict_nobody(runtimes: Mapping[str, Runtime], runtime: str) -> None:
    asked = work("thinks", chat=True, max_tokens=64, temperature=0.0)

    try:
        claim = await claimed(runtimes[runtime], asked)
        finding = await audit(claim, runtimes[runtime], asked)
    except RuntimeUnsupported:
        return

    assert finding is None or finding.outcome != "disagree"
