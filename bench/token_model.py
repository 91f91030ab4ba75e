"""A language model of 400 words, quick enough for a million audits, that looks to the comparator like a real one.

What comes next depends on the last word and on what the prompt is about. Some words are followed by almost always the
same, others by any of dozens, as with real models. A runtime adds a little noise to every number (other hardware
computes in another order), a more quantised file a little that is always the same, a smaller model more of it, and
another model has opinions of its own. How much of each is measured on real models (docs/audits.md); the comparison is
the real one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

from parallelix.protocol.spot_check import Answer, Claim
from parallelix.protocol.work import ENTRY_TOP, MIN_P_DEFAULT, PROBE_TOP, Entry, FinishReason, Probes, WorkKind

WORDS = 400
FOLLOWERS = 32
END = 0
"""The word that ends an answer and writes nothing."""
END_EVERY = 13
"""Of the words that do not end a prompt, after one in so many an answer may well end."""
PROMPT_ENDS = 40
"""A prompt ends with one of the first so many words, after which there is always more to say."""
TOPICS = 8
DIGEST = "d1" * 32
TEMPLATE_TOKENS = 7

Variant = Literal["model", "quantised", "smaller", "other"]
NOISE_HONEST = 0.02
"""Standard deviation of a logit between two honest runtimes: near 0.004 of total variation."""
NOISE_OF: dict[Variant, float] = {"model": 0.0, "quantised": 0.25, "smaller": 1.6, "other": 0.0}
SHARED_BY_OTHER = 0.5
"""Of the words, how many are followed by the same ones in a model of other training, in another order."""
_LOG_MIN_P = math.log(MIN_P_DEFAULT)
_POOL = 1 << 13
"""Numbers drawn beforehand: a million audits look up hundreds each."""


Row: TypeAlias = tuple[tuple[int, ...], tuple[float, ...]]
Table: TypeAlias = list[Row]
"""For each topic and each last word: what may follow, and its logits."""


def word(token: int) -> str:
    return "" if token == END else f" w{token:03d}"


@dataclass(frozen=True, slots=True)
class Prediction:
    """Tokens with their log-probabilities, the likeliest first."""

    tokens: Sequence[int]
    logprobs: Sequence[float]

    def top(self, count: int) -> tuple[tuple[str, float], ...]:
        return tuple((word(self.tokens[at]), self.logprobs[at]) for at in range(min(count, len(self.tokens))))

    def pick(self, temperature: float, chance: random.Random) -> int:
        """Its place in the list, as runtimes pick: never one far less likely than the likeliest."""
        if not temperature:
            return 0
        lowest = self.logprobs[0] + _LOG_MIN_P
        weights = [math.exp(value / temperature) for value in self.logprobs if value >= lowest]
        return chance.choices(range(len(weights)), weights)[0]


@dataclass(slots=True)
class TokenModel:
    """One file of weights in one runtime. Equal `seed` and `variant` mean equal weights."""

    seed: int
    variant: Variant = "model"
    noise: float = NOISE_HONEST
    chance: random.Random = field(default_factory=lambda: random.Random(0))
    _table: Table = field(init=False)
    _gauss: list[float] = field(init=False)

    def __post_init__(self) -> None:
        self._table = _table_of(self.seed, self.variant)
        self._gauss = [self.chance.gauss(0, self.noise) for _ in range(_POOL)] if self.noise else []

    def predict(self, topic: int, last: int) -> Prediction:
        tokens, logits = self._table[topic * WORDS + last]
        if self._gauss:
            start = self.chance.randrange(_POOL - FOLLOWERS)
            logits = tuple(map(float.__add__, logits, self._gauss[start : start + FOLLOWERS]))
        ordered = sorted(zip(logits, tokens, strict=True), reverse=True)
        whole = math.log(math.fsum(map(math.exp, logits)))
        return Prediction([token for _, token in ordered], [logit - whole for logit, _ in ordered])

    # Executing and auditing ------------------------------------------------------------------------------------------

    def execute(self, prompt: Prompt, chance: random.Random, *, stop_at: int | None = None) -> Claim:
        """Answers. With `stop_at` it breaks off there and says that the answer ended by itself."""
        return claim_of(prompt, *self.generate(prompt, chance, stop_at=stop_at))

    def generate(
        self, prompt: Prompt, chance: random.Random, *, stop_at: int | None = None
    ) -> tuple[list[Entry], FinishReason]:
        entries: list[Entry] = []
        last = prompt.last
        while len(entries) < prompt.tokens_max:
            if len(entries) == stop_at:
                return entries, "stop"
            prediction = self.predict(prompt.topic, last)
            at = prediction.pick(prompt.temperature, chance)
            last = prediction.tokens[at]
            if last == END:
                return entries, "stop"
            entries.append(Entry(word(last), prediction.logprobs[at], prediction.top(ENTRY_TOP)))
        return entries, "length"

    def score(self, prompt: Prompt, tokens: Sequence[int]) -> list[Entry]:
        """Entries for a text that somebody else wrote."""
        entries: list[Entry] = []
        last = prompt.last
        for token in tokens:
            prediction = self.predict(prompt.topic, last)
            known = dict(zip(prediction.tokens, prediction.logprobs, strict=True))
            entries.append(Entry(word(token), known.get(token, -12.0), prediction.top(ENTRY_TOP)))
            last = token
        return entries

    def audit(self, prompt: Prompt, probes: Probes) -> Answer:
        """One token predicted at each position, and what was counted before it."""
        tokens = read(probes.text)
        counts: list[int] = []
        entries: list[Entry] = []
        for position in probes.positions:
            before = position // len(word(1))
            prediction = self.predict(prompt.topic, tokens[before - 1] if before else prompt.last)
            counts.append(prompt.tokens + before)
            entries.append(Entry(word(prediction.tokens[0]), prediction.logprobs[0], prediction.top(PROBE_TOP)))
        return Answer(prompt_tokens=tuple(counts), entries=tuple(entries))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What of a request decides its answer. `last` is its last word, `tokens` how many it has with its template."""

    topic: int
    last: int
    tokens: int
    tokens_max: int
    temperature: float
    kind: WorkKind = "completion"
    """Not a chat, whose first word no space precedes."""


def claim_of(prompt: Prompt, entries: Sequence[Entry], finish: FinishReason) -> Claim:
    text = "".join(entry.text for entry in entries)
    return Claim(
        kind=prompt.kind,
        model_digest=DIGEST,
        prompt_tokens=prompt.tokens,
        completion_tokens=len(entries) + (finish == "stop"),
        text=text,
        finish_reason=finish,
        entries=tuple(entries),
        content=text.encode(),
        temperature=prompt.temperature,
        min_p=MIN_P_DEFAULT,
        tokens_max=prompt.tokens_max,
    )


def read(text: str) -> list[int]:
    """The tokens of a text that this model's words make up."""
    return [int(each[1:]) for each in text.split()]


def any_prompt(chance: random.Random, *, tokens_max: int | None = None) -> Prompt:
    """Short and long ones, greedy and sampled."""
    return Prompt(
        topic=chance.randrange(TOPICS),
        last=chance.randrange(1, PROMPT_ENDS),
        tokens=TEMPLATE_TOKENS + min(2_000, max(3, round(chance.lognormvariate(4.3, 1.0)))),
        tokens_max=tokens_max or min(400, max(8, round(chance.lognormvariate(4.0, 0.9)))),
        temperature=chance.choice((0.0, 0.7, 1.0)),
    )


# Weights ------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=16)
def _table_of(seed: int, variant: Variant) -> Table:
    own = random.Random(f"{seed}/{variant}")
    return [_row(seed, variant, topic, last, own) for topic in range(TOPICS) for last in range(WORDS)]


def _row(seed: int, variant: Variant, topic: int, last: int, own: random.Random) -> Row:
    base = random.Random(f"{seed}/{topic}/{last}")
    steep = base.lognormvariate(0.6, 0.7)
    tokens = base.sample(range(1, WORDS), FOLLOWERS)
    if last >= PROMPT_ENDS and base.random() < 1 / END_EVERY:
        tokens[base.randrange(3)] = END
    logits = [-steep * math.log(1 + rank) + base.gauss(0, 0.4) for rank in range(FOLLOWERS)]
    if variant == "other":
        if own.random() < SHARED_BY_OTHER:
            own.shuffle(tokens)
        else:
            tokens = own.sample(range(1, WORDS), FOLLOWERS)
        own.shuffle(logits)
    elif NOISE_OF[variant]:
        logits = [logit + own.gauss(0, NOISE_OF[variant]) for logit in logits]
    return tuple(tokens), tuple(logits)
