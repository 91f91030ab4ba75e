"""The catalogue: which models are offered, at which price, with which defaults.

Prices are wei per 1,000 tokens. What a request costs is the model's price × its tier's and its priority's factor, in
basis points; holds and charges round up, for the network's good.
"""

from __future__ import annotations

import tomllib
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

Priority: TypeAlias = Literal["standard", "expedited", "urgent"]
PRIORITIES: tuple[Priority, ...] = ("standard", "expedited", "urgent")
TIERS = (1, 2, 3, 4)
WORKLOAD_CLASSES = ("ai.inference",)
BASIS_POINTS = 10_000

Wei: TypeAlias = Annotated[str, Meta(pattern="^[0-9]{1,30}$")]
Factor: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000)]


class CatalogueError(Exception):
    """The catalogue file cannot be used; the message names the entry and the bound."""


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One model on offer. `digests` are the SHA-256 of the weights files that count as this model.

    `template_tokens` is what the chat template may add to a message; the hold includes it.
    """

    name: Annotated[str, Meta(min_length=1, max_length=128)]
    digests: Annotated[tuple[Annotated[str, Meta(pattern="^[0-9a-f]{64}$")], ...], Meta(min_length=1, max_length=64)]
    prompt_wei_per_1000: Wei
    completion_wei_per_1000: Wei
    context_tokens: Annotated[int, Meta(ge=1, le=2**31)]
    max_tokens_default: Annotated[int, Meta(ge=1, le=2**20)] = 256
    max_tokens_max: Annotated[int, Meta(ge=1, le=2**20)] = 4096
    template_tokens: Annotated[int, Meta(ge=0, le=4096)] = 32
    speed_floors: dict[Annotated[str, Meta(pattern="^[1-4]$")], Annotated[float, Meta(gt=0, le=1_000_000)]] = {}
    """Tokens per second that a node registered for a tier must reach, by tier ("1" to "4"), from its acknowledgement of
    a request to the result; no entry, no floor (docs/audits.md)."""


class Factors(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tier_1: Factor = 10_000
    tier_2: Factor = 10_000
    tier_3: Factor = 10_000
    tier_4: Factor = 10_000
    standard: Factor = 10_000
    expedited: Factor = 15_000
    urgent: Factor = 20_000


class Catalogue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    models: tuple[ModelEntry, ...] = ()
    factors: Factors = Factors()

    def find(self, name: str) -> ModelEntry | None:
        return next((model for model in self.models if model.name == name), None)


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """Wei per 1,000 tokens, tier and priority included."""

    prompt_wei: int
    completion_wei: int

    def cost_wei(self, *, prompt_tokens: int, completion_tokens: int) -> int:
        """Rounded up: the network never works for less than its price."""
        assert prompt_tokens >= 0 and completion_tokens >= 0, (prompt_tokens, completion_tokens)
        return _round_up(prompt_tokens * self.prompt_wei + completion_tokens * self.completion_wei, 1000)


def parse(text: str, *, source: str = "catalogue") -> Catalogue:
    """Reads `catalogue.toml`. Raises `CatalogueError` naming `source`, the entry and what it may be."""
    try:
        raw = tomllib.loads(text)
        raw["models"] = raw.get("models", raw.pop("model", []))
        catalogue = msgspec.convert(raw, Catalogue)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise CatalogueError(f"{source}: {error}") from error
    names = [model.name for model in catalogue.models]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise CatalogueError(f"{source}: model {min(twice)!r} is listed twice; give each model one entry")
    for model in catalogue.models:
        if model.max_tokens_default > model.max_tokens_max:
            raise CatalogueError(
                f"{source}: model {model.name!r}: max_tokens_default {model.max_tokens_default} is above "
                f"max_tokens_max {model.max_tokens_max}"
            )
    return catalogue


def price_of(catalogue: Catalogue, model: ModelEntry, *, tier: int, priority: Priority) -> Price:
    assert tier in TIERS and priority in PRIORITIES, (tier, priority)
    factors = catalogue.factors
    tier_factor: int = getattr(factors, f"tier_{tier}")
    priority_factor: int = getattr(factors, priority)
    scale = tier_factor * priority_factor
    return Price(
        prompt_wei=_round_up(int(model.prompt_wei_per_1000) * scale, BASIS_POINTS**2),
        completion_wei=_round_up(int(model.completion_wei_per_1000) * scale, BASIS_POINTS**2),
    )


def _round_up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
