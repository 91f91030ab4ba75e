"""How nodes behave in a population: what each answers when it executes, and when it audits.

Executing cheats give another answer than the model's, or another's numbers. Auditing cheats spare themselves the model.
A cheat now and then cheats on a share of its units and is honest on the others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from bench.token_model import END, NOISE_HONEST, PROBE_TOP, WORDS, Prompt, TokenModel, Variant, claim_of, read, word
from parallelix.protocol.spot_check import Answer, Claim
from parallelix.protocol.work import ENTRY_TOP, Entry, Probes

WEIGHTS_SEED = 1
TRUNCATED_TO = 4
"""Tokens that a truncating node writes at most."""
LIBRARY_MAX = 64


@dataclass(slots=True)
class Models:
    """What one machine may run. Each machine has noise of its own."""

    chance: random.Random
    noise: float = NOISE_HONEST
    _loaded: dict[Variant, TokenModel] = field(default_factory=dict[Variant, TokenModel])

    def __getitem__(self, variant: Variant) -> TokenModel:
        if variant not in self._loaded:
            self._loaded[variant] = TokenModel(WEIGHTS_SEED, variant, self.noise, self.chance)
        return self._loaded[variant]


@dataclass(slots=True)
class Actor:
    """One node's runtime and its intentions. `share` is of the units that it cheats on."""

    name: str
    models: Models
    chance: random.Random
    share: float = 1.0
    partners: frozenset[int] = frozenset()
    """Nodes whose claims it repeats when it audits them."""
    library: list[Claim] = field(default_factory=list[Claim])

    def execute(self, prompt: Prompt, *, honestly: bool = False) -> tuple[Claim, bool]:
        """The answer, and whether it is a cheat's."""
        cheat = EXECUTING.get(self.name)
        if honestly or cheat is None or self.chance.random() >= self.share:
            return self.models["model"].execute(prompt, self.chance), False
        return cheat(self, prompt), True

    def audit(self, prompt: Prompt, probes: Probes, executor: int, claim: Claim) -> Answer:
        """`claim` is what only a partner of the executor could know."""
        if executor in self.partners:
            return repeated(claim, probes, prompt)
        cheat = AUDITING.get(self.name)
        if cheat is None or self.chance.random() >= self.share:
            return self.models["model"].audit(prompt, probes)
        return cheat(self, prompt, probes)


# Cheats in executing ------------------------------------------------------------------------------------------------


def _by(variant: Variant) -> Callable[[Actor, Prompt], Claim]:
    def execute(actor: Actor, prompt: Prompt) -> Claim:
        return actor.models[variant].execute(prompt, actor.chance)

    return execute


def _truncated(actor: Actor, prompt: Prompt) -> Claim:
    """Stops after a few tokens and says that the answer was over."""
    return actor.models["model"].execute(prompt, actor.chance, stop_at=TRUNCATED_TO)


def _replayed(actor: Actor, prompt: Prompt) -> Claim:
    """Some earlier answer of its own, numbers and all, cut to what was asked for."""
    if len(actor.library) < LIBRARY_MAX:
        actor.library.append(actor.models["model"].execute(prompt, actor.chance))
        if len(actor.library) == 1:
            return actor.library[0]
    old = actor.chance.choice(actor.library[: LIBRARY_MAX - 1])
    return _with_entries(prompt, old.entries[: prompt.tokens_max])


def _canned(actor: Actor, prompt: Prompt) -> Claim:
    """One and the same sentence for everybody."""
    if not actor.library:
        fixed = Prompt(topic=0, last=1, tokens=prompt.tokens, tokens_max=24, temperature=0.0)
        actor.library.append(actor.models["model"].execute(fixed, actor.chance))
    return _with_entries(prompt, actor.library[0].entries[: prompt.tokens_max])


def _noise(actor: Actor, prompt: Prompt) -> Claim:
    """Words by chance, with numbers that look like a model's."""
    length = actor.chance.randint(1, prompt.tokens_max)
    tokens = [actor.chance.randrange(1, WORDS) for _ in range(length)]
    entries: list[Entry] = []
    for token in tokens:
        shown = actor.models["model"].predict(prompt.topic, actor.chance.randrange(1, WORDS))
        values = [value for _, value in shown.top(ENTRY_TOP)]
        others = actor.chance.sample(range(1, WORDS), ENTRY_TOP - 1)
        names = [word(token), *(word(each) for each in others if each != token)]
        top = tuple(zip(names, values, strict=False))
        entries.append(Entry(word(token), values[0], top))
    return _with_entries(prompt, tuple(entries))


def _written_by_smaller(actor: Actor, prompt: Prompt) -> Claim:
    """The small model writes, quickly, and the model that was asked for gives the numbers in one prefill."""
    draft = actor.models["smaller"].execute(prompt, actor.chance)
    scored = actor.models["model"].score(prompt, read(draft.text))
    return claim_of(prompt, scored, draft.finish_reason)


def _miscounted(actor: Actor, prompt: Prompt) -> Claim:
    """Another model, and a count of prompt tokens that no auditor will have, so that nothing should be comparable."""
    claim = actor.models["other"].execute(prompt, actor.chance)
    return claim_of(replace(prompt, tokens=prompt.tokens + 1), claim.entries, claim.finish_reason)


def _silent(actor: Actor, prompt: Prompt) -> Claim:
    """Says nothing, and that this was the whole answer: there is nothing to compare."""
    return claim_of(prompt, (), "stop")


def _with_entries(prompt: Prompt, entries: tuple[Entry, ...]) -> Claim:
    return claim_of(prompt, entries, "stop" if len(entries) < prompt.tokens_max else "length")


EXECUTING: Mapping[str, Callable[[Actor, Prompt], Claim]] = {
    "smaller_model": _by("smaller"),
    "other_model": _by("other"),
    "quantised": _by("quantised"),
    "truncated": _truncated,
    "replayed": _replayed,
    "canned": _canned,
    "noise": _noise,
    "written_by_smaller": _written_by_smaller,
    "miscounted": _miscounted,
    "silent": _silent,
    "colluding": _by("other"),
}

# Cheats in auditing -------------------------------------------------------------------------------------------------


def repeated(claim: Claim, probes: Probes, prompt: Prompt) -> Answer:
    """What a partner says who was told the claim: the executor's own numbers, and the counts that it needs."""
    starts: dict[int, Entry] = {}
    at = 0
    for entry in claim.entries:
        starts[at] = entry
        at += len(entry.text.encode())
    entries: list[Entry] = []
    counts: list[int] = []
    for position in probes.positions:
        entry = starts.get(position, Entry(word(1), -0.01, ((word(1), -0.01),)))
        entries.append(entry)
        counts.append(claim.prompt_tokens + position // len(word(1)))
    return Answer(prompt_tokens=tuple(counts), entries=tuple(entries))


def _lazy(actor: Actor, prompt: Prompt, probes: Probes) -> Answer:
    """Reads the next word off the text that it was sent, and is certain of it."""
    tokens = read(probes.text)
    entries: list[Entry] = []
    for position in probes.positions:
        before = position // len(word(1))
        token = tokens[before] if before < len(tokens) else 1 + actor.chance.randrange(WORDS - 1)
        others = [each for each in actor.chance.sample(range(1, WORDS), PROBE_TOP) if each != token]
        rest = [(word(each), -5.0 - 0.3 * at) for at, each in enumerate(others[: PROBE_TOP - 1])]
        entries.append(Entry(word(token), -0.05, ((word(token), -0.05), *rest)))
    return _counted(prompt, probes, entries)


def _lazy_small(actor: Actor, prompt: Prompt, probes: Probes) -> Answer:
    """Audits with the small model."""
    return actor.models["smaller"].audit(prompt, probes)


def _counted(prompt: Prompt, probes: Probes, entries: list[Entry]) -> Answer:
    counts = (prompt.tokens + position // len(word(1)) for position in probes.positions)
    return Answer(prompt_tokens=tuple(counts), entries=tuple(entries))


AUDITING: Mapping[str, Callable[[Actor, Prompt, Probes], Answer]] = {
    "lazy_auditor": _lazy,
    "lazy_small_auditor": _lazy_small,
}

assert END == 0, "word() and every range above leave it out"
