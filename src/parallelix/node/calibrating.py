"""How far honest answers of a model are apart on this machine: what `models calibrate` measures.

generate   answers to prompts of our own, short and long, greedy and sampled, as requests would have them
probe      each answer as an auditor would, in a runtime that remembers none of them
compare    with the arithmetic that audits are judged by; many audits are drawn from one answer's positions, since
           an auditor sees a few of them that nobody foresees
time       reading a prompt and writing an answer, each by a line through several lengths
"""

from __future__ import annotations

import asyncio
import secrets
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field

import msgspec

from parallelix.node import sealing
from parallelix.node.runtimes.base import (
    MIN_P_DEFAULT,
    TEMPERATURE_DEFAULT,
    Finished,
    Generation,
    Model,
    ModelMissing,
    Runtime,
    RuntimeFailed,
    RuntimeUnsupported,
    Sampling,
    TokenEntry,
)
from parallelix.protocol import calibration, spot_check
from parallelix.protocol.calibration import DEFAULT_CARD, Card, SpreadAt
from parallelix.protocol.spot_check import PROBES_DEFAULT, Answer, Claim
from parallelix.protocol.work import ENTRY_TOP, Entry, Probes

PROMPTS_MIN = 4
PROMPTS_MAX = 240
"""So many pairs of a prompt and a way to sample differ."""
PROMPTS_DEFAULT = 48
POSITIONS_MAX = 32
"""In one answer. More of them lie closer together, and are the less each for itself."""
AUDITS_PER_ANSWER = 10
PROMPT_CHARACTERS_MAX = 2048
PROMPT_SHARES = (0.125, 0.25, 0.5, 1.0)
TIMED_REPEATS = 2

_TEXTS = (
    "Explain in a few sentences how a rainbow comes about.",
    "Write a short story about a lighthouse keeper who finds a letter.",
    "List five things to pack for a week in the mountains, with a reason for each.",
    "What is the difference between a stack and a queue? Give an example in Python.",
    "日本の四季について、短く説明してください。",
    "用三句话介绍一下长城的历史。",
    "Reply with emoji only: a day at the sea 🌊🐚☀️",
    "Résumez en deux phrases l'histoire de Montréal.",
    "Опиши коротко, як печуть хліб.",
    "Translate into German: The train leaves at half past seven, and we are late.",
    "Continue this list of numbers and say why: 2, 3, 5, 8, 13,",
    "Say hello.",
    "A recipe for pancakes for four people, step by step, please.",
    "Write a SQL query that counts the orders of each customer in 2024.",
    "Why does ice float on water?",
    "Once upon a time, in a village between two rivers, there lived a clockmaker who",
)
_SYSTEM = "You are a patient teacher. Answer briefly."
_EARLIER = ("Can you help me with two questions?", "Of course. What is the first one?")
_TEMPERATURES = (0.0, None, 1.0)
_TOKENS = (12, 160, 32, 96, 64)

OpenRuntime = Callable[[], AbstractAsyncContextManager[Runtime]]
Progress = Callable[[str, int, int], None]


class NotMeasurable(Exception):
    """The model gives nothing that could be compared; the message says what is missing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A card and what stands behind it. `audits` were drawn from `answers`, those of each half judged by a card made
    from the other half: `rejected` of them, by reason, would have been held against an honest node."""

    card: Card
    answers: int
    unauditable: int
    """Answers of which no position can be compared."""
    audits: int
    rejected: dict[str, int]
    rejected_by_default: int
    """How many would have been without any card of this model."""

    @property
    def threshold(self) -> float:
        return calibration.threshold(self.card, PROBES_DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answered:
    work: Generation
    claim: Claim
    writing: tuple[int, float]
    """Tokens after the first, and the seconds that they took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probed:
    claim: Claim
    probes: Probes
    answer: Answer


@dataclass(slots=True)
class _Audits:
    count: int = 0
    usable: int = 0
    unusable: int = 0
    rejected: Counter[str] = field(default_factory=Counter[str])


async def calibrate(
    open_runtime: OpenRuntime,
    name: str,
    *,
    prompts: int = PROMPTS_DEFAULT,
    slots: int = 1,
    hardware: str = "",
    measured_at: str = "",
    on_progress: Progress = lambda step, done, total: None,
) -> Measured:
    """`open_runtime` is entered twice, so that the second runtime begins anew where it is a process of ours. It is
    audited with as many at once as it has `slots`, since what is computed together is computed a little otherwise.

    Raises RuntimeFailed or one of its kinds, and `NotMeasurable`.
    """
    async with open_runtime() as runtime:
        model = await _find(runtime, name)
        facts = (runtime.name, await runtime.version())
        answered = await _generate(runtime, model, prompts, on_progress)
        reading = await _time_reading(runtime, model, on_progress)
    chance = secrets.SystemRandom()
    async with open_runtime() as runtime:
        probed = await _probe(runtime, answered, slots, chance, on_progress)
    if not probed:
        raise NotMeasurable(f"{name}: none of {len(answered)} answers has a position that can be compared")
    spreads = _spreads(probed, chance)
    if not spreads:
        raise NotMeasurable(f"{name}: none of {len(probed)} answers is tokenised again as it was written")
    card = Card(
        model_digest=model.digest,
        model=model.name[:128],
        runtime=facts[0],
        runtime_version=facts[1][:128],
        hardware=hardware[:128],
        measured_at=measured_at,
        spreads=spreads,
        prefill_ms_per_token=milliseconds_per_token(reading),
        decode_ms_per_token=milliseconds_per_token([each.writing for each in answered]),
    )
    audits = _Audits()
    for half, other in ((probed[::2], probed[1::2]), (probed[1::2], probed[::2])):
        _audit(half, msgspec.structs.replace(card, spreads=_spreads(other, chance)), audits, chance)
    by_default = _Audits()
    _audit(probed, DEFAULT_CARD, by_default, chance)
    unauditable = len(answered) - len(probed)
    unusable = audits.unusable + unauditable * AUDITS_PER_ANSWER * PROBES_DEFAULT
    share = unusable / max(1, audits.usable + unusable)
    return Measured(
        card=msgspec.structs.replace(card, unusable_share=round(share, 6)),
        answers=len(answered),
        unauditable=unauditable,
        audits=audits.count,
        rejected=dict(audits.rejected),
        rejected_by_default=by_default.rejected.total(),
    )


def built_in(model: str, count: int, *, chat: bool) -> list[Generation]:
    """`count` prompts, each with its own way to sample. Without `chat` all are plain completions."""
    return [_generation(model, index, chat=chat) for index in range(count)]


def milliseconds_per_token(points: Sequence[tuple[int, float]]) -> float:
    """The slope of a line through (tokens, seconds): what a token costs beyond what every call costs. Where all have
    one length, or what each call costs hides it, the share of the whole."""
    tokens, seconds = [float(count) for count, _ in points], [each for _, each in points]
    if len(set(tokens)) > 1:
        slope = statistics.linear_regression(tokens, seconds).slope
        if slope > 0:
            return 1000 * slope
    return 1000 * sum(seconds) / max(1.0, sum(tokens))


async def _find(runtime: Runtime, name: str) -> Model:
    names = {name, name if ":" in name.rpartition("/")[2] else f"{name}:latest"}
    for model in await runtime.models():
        if model.name in names or model.digest == name:
            if "probe" not in model.features:
                raise RuntimeUnsupported(
                    f"{model.name} cannot be audited with {runtime.name}: it gives no log-probabilities, makes "
                    "embeddings, or thinks before it answers; calibrate another model"
                )
            return model
    raise ModelMissing(f"{name}: not installed in {runtime.name}; see `parallelix-node models`")


def _generation(model: str, index: int, *, chat: bool) -> Generation:
    text, kind = _TEXTS[index % len(_TEXTS)], index % 4
    temperature = _TEMPERATURES[index % len(_TEMPERATURES)]
    sampling = Sampling(
        max_tokens=_TOKENS[index % len(_TOKENS)],
        temperature=temperature,
        # So that two runs measure the same answers. The greedy ones need none, and are computed as most requests are.
        seed=None if temperature == 0 else index,
        top_logprobs=ENTRY_TOP,
    )
    if not chat or kind == 3:
        return Generation(model=model, prompt=text, sampling=sampling)
    asked = [{"role": "user", "content": text}]
    if kind == 1:
        asked = [{"role": "system", "content": _SYSTEM}, *asked]
    if kind == 2:
        earlier = zip(("user", "assistant"), _EARLIER, strict=True)
        asked = [*({"role": role, "content": said} for role, said in earlier), *asked]
    return Generation(model=model, messages=asked, sampling=sampling)


async def _generate(runtime: Runtime, model: Model, count: int, on_progress: Progress) -> list[_Answered]:
    answered: list[_Answered] = []
    for index, work in enumerate(built_in(model.name, count, chat="chat" in model.features)):
        on_progress("answering", index, count)
        answered.append(await _answer(runtime, work, model.digest))
    return answered


async def _answer(runtime: Runtime, work: Generation, digest: str) -> _Answered:
    entries: list[Entry] = []
    finished: Finished | None = None
    first_at = last_at = time.perf_counter()
    async for item in runtime.generate(work):
        if isinstance(item, Finished):
            finished = item
        else:
            last_at = time.perf_counter()
            first_at = first_at if entries else last_at
            entries.append(sealing.entry_of(item))
    if finished is None:
        raise RuntimeFailed("the runtime ended without saying how")
    sampling = work.sampling
    claim = Claim(
        kind="completion" if work.messages is None else "chat",
        model_digest=digest,
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=finished.completion_tokens,
        text="".join(entry.text for entry in entries),
        finish_reason=finished.finish,
        entries=tuple(entries),
        temperature=TEMPERATURE_DEFAULT if sampling.temperature is None else sampling.temperature,
        min_p=MIN_P_DEFAULT,
        tokens_max=sampling.max_tokens,
    )
    return _Answered(work=work, claim=claim, writing=(max(0, len(entries) - 1), last_at - first_at))


async def _time_reading(runtime: Runtime, model: Model, on_progress: Progress) -> list[tuple[int, float]]:
    """Prompt tokens and the seconds to the first token, for prompts that no cache holds the beginning of."""
    longest = min(PROMPT_CHARACTERS_MAX, model.context_tokens // 2)
    lengths = [round(share * longest) for share in PROMPT_SHARES for _ in range(TIMED_REPEATS)]
    points: list[tuple[int, float]] = []
    for index, length in enumerate(lengths):
        on_progress("timing", index, len(lengths))
        text = f"{index}{' '.join(_TEXTS[index % 3 :]) * 3}"[:length]
        work = Generation(model=model.name, prompt=text, sampling=Sampling(max_tokens=1, temperature=0.0, seed=1))
        started_at = time.perf_counter()
        async for item in runtime.generate(work):
            if isinstance(item, TokenEntry):
                continue
            points.append((item.prompt_tokens, time.perf_counter() - started_at))
    return points


async def _probe(
    runtime: Runtime, answered: Sequence[_Answered], slots: int, chance: secrets.SystemRandom, on_progress: Progress
) -> list[_Probed]:
    asked = [
        (each, probes)
        for each in answered
        if (probes := spot_check.choose_probes(each.claim, chance.randbytes, count=POSITIONS_MAX)) is not None
    ]
    free, done = asyncio.Semaphore(slots), 0

    async def probe(each: _Answered, probes: Probes) -> _Probed:
        nonlocal done
        async with free:
            given = [given async for given in runtime.probe(each.work, probes.text, probes.positions)]
        done += 1
        on_progress("auditing", done, len(asked))
        answer = Answer(
            prompt_tokens=tuple(item.prompt_tokens for item in given),
            entries=tuple(sealing.entry_of(item.entry) for item in given),
        )
        return _Probed(claim=each.claim, probes=probes, answer=answer)

    tasks = [asyncio.create_task(probe(each, probes)) for each, probes in asked]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _spreads(probed: Iterable[_Probed], chance: secrets.SystemRandom) -> tuple[SpreadAt, ...]:
    """Without audits that tell of a token which is read again as others, and not of the numbers."""
    drawn = [_drawn(each, chance) for each in probed for _ in range(AUDITS_PER_ANSWER)]
    return calibration.spreads_of(
        [
            spot_check.distances(each.claim, each.probes, each.answer)
            for each in drawn
            if spot_check.compare(each.claim, each.probes, each.answer, DEFAULT_CARD).reason != "outliers"
        ]
    )


def _audit(probed: Iterable[_Probed], card: Card, audits: _Audits, chance: secrets.SystemRandom) -> None:
    for each in probed:
        for _ in range(AUDITS_PER_ANSWER):
            drawn = _drawn(each, chance)
            finding = spot_check.compare(drawn.claim, drawn.probes, drawn.answer, card)
            audits.count += 1
            audits.usable += finding.usable
            audits.unusable += finding.unusable
            if finding.outcome == "disagree":
                audits.rejected[finding.reason] += 1


def _drawn(each: _Probed, chance: secrets.SystemRandom) -> _Probed:
    """One audit's positions among those that were probed: the empty prefix, some within, and the end where it is one of
    them."""
    positions, encoded = each.probes.positions, each.claim.text.encode()
    ends = [index for index, at in enumerate(positions) if index and at == len(encoded)]
    within = [index for index in range(1, len(positions)) if index not in ends]
    kept = sorted({0, *chance.sample(within, min(PROBES_DEFAULT, len(within))), *ends})
    chosen = tuple(positions[index] for index in kept)
    return _Probed(
        claim=each.claim,
        probes=Probes(text=encoded[: chosen[-1]].decode(), positions=chosen),
        answer=Answer(
            prompt_tokens=tuple(each.answer.prompt_tokens[index] for index in kept),
            entries=tuple(each.answer.entries[index] for index in kept),
        ),
    )
