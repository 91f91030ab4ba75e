"""Executors and auditors with real models: answers as an honest node gives them, and as each cheat known to us does.

Nothing here is made up but what a cheat makes up: every number comes from llama.cpp or from a real Ollama.
"""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from parallelix.node import sealing
from parallelix.node.runtimes.base import MIN_P_DEFAULT as RUNTIMES_MIN_P_DEFAULT
from parallelix.node.runtimes.base import TEMPERATURE_DEFAULT as RUNTIMES_TEMPERATURE_DEFAULT
from parallelix.node.runtimes.base import Finished, Generation, Runtime, Sampling
from parallelix.protocol.spot_check import Answer, Claim
from parallelix.protocol.work import ENTRY_TOP, MIN_P_DEFAULT, PROBE_TOP, TEMPERATURE_DEFAULT, Entry, Probes

MODELS = Path(__file__).resolve().parent.parent / "models"
HONEST_FILE = MODELS / "parallelix-demo.gguf"
OTHER_FILE = MODELS / "parallelix-demo-b.gguf"
FOUR_BITS, FIVE_BITS = "four-bits", "five-bits"
TOKENS_MAX = 48
NEVER = -20.0
"""Log-probability of a token that is among nobody's twenty likeliest."""

assert (TEMPERATURE_DEFAULT, MIN_P_DEFAULT) == (RUNTIMES_TEMPERATURE_DEFAULT, RUNTIMES_MIN_P_DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One runtime with models by their names there."""

    runtime: Runtime
    honest: str = HONEST_FILE.stem
    other: str = OTHER_FILE.stem
    fewer_bits: str = FOUR_BITS

    @property
    def name(self) -> str:
        return self.runtime.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a requester may ask of sampling besides; None is the default of all runtimes."""

    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()
    json: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    kind: Literal["chat", "completion"]
    prompt: str
    temperature: float | None
    """None is the default of all runtimes."""
    seed: int
    tokens_max: int = TOKENS_MAX
    sampling: Asked = Asked()


def tasks(count: int, seed: int, *, temperatures: Sequence[float | None] = (0.0, None, 1.0)) -> list[Task]:
    """Prompts that no model was trained on, in turns over the temperatures."""
    chance = random.Random(seed)
    return [
        Task(
            kind="chat" if prompt["kind"] == "chat" else "completion",
            prompt=prompt["text"],
            temperature=temperatures[number % len(temperatures)],
            seed=chance.randrange(1 << 30),
            tokens_max=chance.choice((8, 24, TOKENS_MAX, TOKENS_MAX)),
        )
        for number, prompt in enumerate(chance.choices(_prompts(), k=count))
    ]


@functools.cache
def _prompts() -> Sequence[dict[str, str]]:
    return json.loads((MODELS / "heldout_prompts.json").read_text(encoding="utf-8"))


def generation(task: Task, model: str) -> Generation:
    chat = task.kind == "chat"
    return Generation(
        model=model,
        prompt=None if chat else task.prompt,
        messages=[{"role": "user", "content": task.prompt}] if chat else None,
        response_format={"type": "json_object"} if task.sampling.json else None,
        sampling=Sampling(
            max_tokens=task.tokens_max,
            temperature=task.temperature,
            top_k=task.sampling.top_k,
            top_p=task.sampling.top_p,
            min_p=task.sampling.min_p,
            presence_penalty=task.sampling.presence_penalty,
            frequency_penalty=task.sampling.frequency_penalty,
            stop=task.sampling.stop,
            seed=task.seed,
            top_logprobs=ENTRY_TOP,
        ),
    )


async def answered(place: Place, task: Task, model: str) -> Claim:
    """What the node of this place would return, as the coordinator knows it."""
    entries: list[Entry] = []
    finished: Finished | None = None
    async for item in place.runtime.generate(generation(task, model)):
        if isinstance(item, Finished):
            finished = item
        else:
            entries.append(sealing.entry_of(item))
    assert finished is not None
    text = "".join(entry.text for entry in entries)
    extra = task.sampling
    return Claim(
        kind=task.kind,
        model_digest="",
        prompt_tokens=finished.prompt_tokens,
        completion_tokens=finished.completion_tokens,
        text=text,
        finish_reason=finished.finish,
        entries=tuple(entries),
        content=text.encode(),
        temperature=TEMPERATURE_DEFAULT if task.temperature is None else task.temperature,
        min_p=MIN_P_DEFAULT if extra.min_p is None else extra.min_p,
        tokens_max=task.tokens_max,
        stops=bool(extra.stop),
        constrained=extra.json or bool(extra.presence_penalty or extra.frequency_penalty),
    )


async def audited(place: Place, task: Task, probes: Probes, *, model: str | None = None) -> Answer:
    counts: list[int] = []
    entries: list[Entry] = []
    work = replace(generation(task, model or place.honest), sampling=Sampling(max_tokens=1, top_logprobs=PROBE_TOP))
    async for probed in place.runtime.probe(work, probes.text, probes.positions):
        counts.append(probed.prompt_tokens)
        entries.append(sealing.entry_of(probed.entry))
    return Answer(prompt_tokens=tuple(counts), entries=tuple(entries))


async def prompt_tokens(place: Place, task: Task) -> int:
    answer = await audited(place, task, Probes(text="", positions=(0,)))
    return answer.prompt_tokens[0]


# Cheats: each gives what a node returns that does not run the model on the prompt ------------------------------------

Cheat: TypeAlias = Callable[[Place, Task, random.Random], Awaitable[Claim]]


async def honest(place: Place, task: Task, chance: random.Random) -> Claim:
    return await answered(place, task, place.honest)


async def other_model(place: Place, task: Task, chance: random.Random) -> Claim:
    """Another file of the same size and vocabulary: the nearest that a substitute can come."""
    return await answered(place, task, place.other)


async def fewer_bits(place: Place, task: Task, chance: random.Random) -> Claim:
    """The same model at four bits a weight instead of eight."""
    return await answered(place, task, place.fewer_bits)


async def rescored(place: Place, task: Task, chance: random.Random) -> Claim:
    """Text of the other model, with the numbers that the right model gives it in one cheap pass."""
    return await scored(place, task, await answered(place, task, place.other))


async def scored(place: Place, task: Task, written: Claim) -> Claim:
    """The claim with every number replaced by what the right model says of the same text."""
    starts: dict[int, int] = {}
    offset = 0
    for index, entry in enumerate(written.entries):
        starts.setdefault(offset, index)
        offset += len(entry.text.encode())
    if not starts:
        return written
    numbers = await audited(place, task, Probes(text=written.text[: len(written.text)], positions=tuple(starts)))
    entries = list(written.entries)
    for index, predicted in zip(starts.values(), numbers.entries, strict=True):
        listed = dict(predicted.top)
        own = listed.get(entries[index].text, min((*listed.values(), NEVER)))
        entries[index] = Entry(entries[index].text, own, predicted.top[:ENTRY_TOP])
    return msgspec.structs.replace(written, entries=tuple(entries))


async def shortened_prompt(place: Place, task: Task, chance: random.Random) -> Claim:
    """Half of the prompt is read, and the whole of it counted."""
    words = task.prompt.split(" ")
    cut = replace(task, prompt=" ".join(words[len(words) // 2 :]))
    claim = await answered(place, cut, place.honest)
    return msgspec.structs.replace(claim, prompt_tokens=await prompt_tokens(place, task))


async def cut_short(place: Place, task: Task, chance: random.Random) -> Claim:
    """The answer breaks off after a part, and is said to have ended there."""
    claim = await answered(place, task, place.honest)
    kept = claim.entries[: chance.randrange(1, max(2, len(claim.entries) - 1))]
    text = "".join(entry.text for entry in kept)
    return msgspec.structs.replace(
        claim,
        entries=kept,
        text=text,
        content=text.encode(),
        completion_tokens=len(kept) + 1,
        finish_reason="stop",
    )


async def replayed(place: Place, task: Task, chance: random.Random) -> Claim:
    """An old answer of the right model, to somebody else's prompt."""
    another = chance.choice(tasks(50, chance.randrange(1 << 30)))
    old = await answered(place, replace(another, kind=task.kind, temperature=task.temperature), place.honest)
    return msgspec.structs.replace(old, prompt_tokens=await prompt_tokens(place, task), tokens_max=old.tokens_max)


async def noise(place: Place, task: Task, chance: random.Random) -> Claim:
    """Words and numbers out of thin air, each in itself possible."""
    words = [f" {word}" for each in tasks(20, chance.randrange(1 << 30)) for word in each.prompt.split()]
    entries: list[Entry] = []
    for _ in range(task.tokens_max):
        named = chance.sample(sorted(set(words)), ENTRY_TOP)
        weights = sorted((chance.expovariate(1.0) for _ in range(ENTRY_TOP + 1)), reverse=True)
        top = tuple((word, math.log(weight / sum(weights))) for word, weight in zip(named, weights, strict=False))
        entries.append(Entry(named[0], top[0][1], top))
    text = "".join(entry.text for entry in entries)
    return Claim(
        kind=task.kind,
        model_digest="",
        prompt_tokens=await prompt_tokens(place, task),
        completion_tokens=task.tokens_max,
        text=text,
        finish_reason="length",
        entries=tuple(entries),
        content=text.encode(),
        temperature=TEMPERATURE_DEFAULT if task.temperature is None else task.temperature,
        min_p=MIN_P_DEFAULT,
        tokens_max=task.tokens_max,
    )


CHEATS: dict[str, Cheat] = {
    "other model": other_model,
    "four bits": fewer_bits,
    "rescored text": rescored,
    "shortened prompt": shortened_prompt,
    "cut short": cut_short,
    "replayed": replayed,
    "noise": noise,
}
