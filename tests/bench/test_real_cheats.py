"""Audits with real models, in llama.cpp and in a real Ollama: no honest node is convicted, whatever is asked of it, and
each cheat shows. `make audit-report` does the same at length."""

from __future__ import annotations

import random
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from bench import real_cheats, real_models
from bench.real_cheats import HONEST, SAME_FILE, TEMPERATURES, Audit, audit_all
from bench.real_models import Asked, Place, Task
from parallelix.protocol import spot_check
from parallelix.protocol.calibration import DEFAULT_CARD
from parallelix.protocol.spot_check import Finding

pytestmark = [pytest.mark.service, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def both(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[tuple[Place, Place]]:
    async with real_cheats.places(tmp_path_factory.mktemp("models")) as found:
        yield found


async def run(arm: str, both: Sequence[Place], *, answers: int) -> list[Audit]:
    asked = real_models.tasks(answers, 5, temperatures=TEMPERATURES)
    return await audit_all(arm, both, both, asked, seed=5)


def disagreed(audits: Sequence[Audit]) -> float:
    return sum(each.finding.outcome == "disagree" for each in audits) / len(audits)


@pytest.mark.parametrize("arm", HONEST)
async def test_no_honest_node_is_contradicted(both: tuple[Place, Place], arm: str) -> None:
    audits = await run(arm, both, answers=8)

    assert {(each.executor, each.auditor) for each in audits} == {
        (one, other) for one in ("llama_cpp", "ollama") for other in ("llama_cpp", "ollama")
    }
    assert [each for each in audits if each.finding.outcome == "disagree"] == []
    assert sum(each.finding.usable for each in audits) > 200


async def test_the_same_file_in_the_same_runtime_gives_the_same_numbers(both: tuple[Place, Place]) -> None:
    audits = await run(SAME_FILE, both, answers=3)

    apart = {each.finding.distance for each in audits if each.executor == each.auditor}
    assert max(apart) < 0.001


@pytest.mark.parametrize(
    ("cheat", "share"),
    [
        ("other model", 0.7),
        ("four bits", 0.3),
        ("rescored text", 0.2),
        ("shortened prompt", 0.7),
        ("cut short", 0.7),
        ("replayed", 0.9),
        ("noise", 1.0),
    ],
)
async def test_a_cheat_shows(both: tuple[Place, Place], cheat: str, share: float) -> None:
    audits = await run(cheat, both, answers=5)

    assert disagreed(audits) >= share
    assert {each.auditor for each in audits if each.finding.outcome == "disagree"} == {"llama_cpp", "ollama"}


async def test_a_cheat_that_owns_up_to_its_shorter_prompt_is_convicted_by_the_count(both: tuple[Place, Place]) -> None:
    task = real_models.tasks(1, 3)[0]
    cut = replace(task, prompt=task.prompt.rpartition(" ")[0])
    claim = await real_models.answered(both[0], cut, both[0].honest)
    probes = spot_check.choose_probes(claim, random.Random(1).randbytes)
    assert probes is not None

    finding = spot_check.compare(claim, probes, await real_models.audited(both[1], task, probes), DEFAULT_CARD)

    assert (finding.outcome, finding.reason) == ("disagree", "base_tokens")


def asked(prompt: str, **options: object) -> Task:
    """A chat, unless `kind` says otherwise."""
    values: dict[str, object] = {"kind": "chat", "temperature": None, "seed": 3, "tokens_max": 24}
    return Task(**(values | {"prompt": prompt} | options))  # pyright: ignore[reportArgumentType]


QUESTION = "What is a receipt good for?"
UNCUT = Asked(top_k=0, top_p=1.0, min_p=0.0)
HOSTILE = {
    "sampled far out": asked(QUESTION, temperature=2.0, sampling=UNCUT),
    "sampled without a cut": asked(QUESTION, temperature=1.0, sampling=UNCUT),
    "one token": asked(QUESTION, tokens_max=1, temperature=2.0, sampling=UNCUT),
    "a huge seed": asked(QUESTION, seed=2**62),
    "a negative seed": asked(QUESTION, seed=-(2**60)),
    "almost greedy": asked(QUESTION, temperature=0.02),
    "stopped at a letter": asked(QUESTION, sampling=Asked(stop=("e",))),
    "stopped anywhere": asked(QUESTION, sampling=Asked(stop=("a", "th", " ", "."))),
    "penalties": asked(QUESTION, sampling=Asked(presence_penalty=1.9, frequency_penalty=1.5)),
    "rewards for repeating": asked(QUESTION, sampling=Asked(presence_penalty=-2.0, frequency_penalty=-2.0)),
    "a grammar": asked(QUESTION, sampling=Asked(json=True)),
    "white space": asked(" \n\n \n", kind="completion"),
    "one word again and again": asked("the " * 60, kind="completion"),
    "a long run of letters": asked("a" * 90, kind="completion"),
    "the middle of a word": asked("Tell me about Paralle", kind="completion", temperature=1.0),
    "Chinese": asked("请用中文回答：什么是网络？你好世界，今天天气很好。"),
    "emoji": asked("🦜🦜🦜 🙂🙂🙂 only emoji please 🦜", temperature=1.2),
    "markers": asked("<|im_start|>assistant\n<|im_end|>"),
    "near the end of the context": asked(f"{QUESTION} " * 105, tokens_max=48),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_no_request_makes_an_honest_node_look_like_a_cheat(both: tuple[Place, Place], name: str) -> None:
    findings: list[Finding] = []
    for executor, auditor in (both, both[::-1]):
        claim = await real_models.answered(executor, HOSTILE[name], executor.honest)
        probes = spot_check.choose_probes(claim, random.Random(7).randbytes)
        if probes is not None:
            answer = await real_models.audited(auditor, HOSTILE[name], probes)
            findings.append(spot_check.compare(claim, probes, answer, DEFAULT_CARD))

    assert [finding for finding in findings if finding.outcome == "disagree"] == []


async def test_the_committed_figures_and_plots_are_of_the_present_arms() -> None:
    folder = Path(real_cheats.DATA)
    table = (folder / "real-roc.csv").read_text(encoding="utf-8")

    assert all(f"\n{arm}," in table for arm in real_models.CHEATS)
    assert real_cheats.ROC_PLOT.read_text(encoding="utf-8").startswith("<svg")
