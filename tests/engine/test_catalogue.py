"""What `catalogue.toml` may say, and what a request costs by it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from parallelix.engine.catalogue import (
    Catalogue,
    CatalogueError,
    Factors,
    ModelEntry,
    Price,
    Priority,
    parse,
    price_of,
)

MODEL = f"""
name = "small"
digests = ["{"d1" * 32}"]
prompt_wei_per_1000 = "1000"
completion_wei_per_1000 = "3000"
context_tokens = 4096
"""


def file_of(*changes: tuple[str, str], more: str = "") -> str:
    text = MODEL
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return f"{more}\n[[models]]\n{text}"


def test_a_model_has_its_defaults() -> None:
    (model,) = parse(file_of()).models
    assert (model.max_tokens_default, model.max_tokens_max, model.template_tokens) == (256, 4096, 32)
    assert model.speed_floors == {}
    assert parse(file_of()).factors == Factors(expedited=15_000, urgent=20_000)


def test_floors_are_tokens_per_second_by_tier() -> None:
    (model,) = parse(file_of(("4096", '4096\nspeed_floors = {"2" = 12, "4" = 60.5}'))).models
    assert model.speed_floors == {"2": 12.0, "4": 60.5}


def test_the_table_may_be_called_model_as_well() -> None:
    assert parse(file_of().replace("[[models]]", "[[model]]")).models == parse(file_of()).models


def test_an_empty_catalogue_offers_nothing() -> None:
    assert parse("") == Catalogue() and Catalogue().find("small") is None


def test_a_model_is_found_by_its_whole_name() -> None:
    catalogue = parse(file_of() + "\n[[models]]" + MODEL.replace("small", "large"))
    assert [each.name for each in catalogue.models] == ["small", "large"]
    for name in ("small", "large"):
        found = catalogue.find(name)
        assert found is not None and found.name == name
    assert catalogue.find("smal") is None and catalogue.find("SMALL") is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ([('"small"', '""')], "name"),
        ([('"small"', '"' + "x" * 129 + '"')], "name"),
        ([("d1" * 32, "d1" * 31)], "digests"),
        ([("d1" * 32, "D1" * 32)], "digests"),
        ([('["' + "d1" * 32 + '"]', "[]")], "digests"),
        ([('"1000"', '"-1"')], "prompt_wei_per_1000"),
        ([('"1000"', '"1.5"')], "prompt_wei_per_1000"),
        ([('"1000"', '"1e3"')], "prompt_wei_per_1000"),
        ([('"1000"', '""')], "prompt_wei_per_1000"),
        ([('"1000"', "1000")], "prompt_wei_per_1000"),
        ([('"3000"', '"' + "9" * 31 + '"')], "completion_wei_per_1000"),
        ([("4096", "0")], "context_tokens"),
        ([("4096", str(2**31 + 1))], "context_tokens"),
        ([("4096", "4096\nmax_tokens_default = 0")], "max_tokens_default"),
        ([("4096", '4096\nspeed_floors = {"5" = 12.0}')], "speed_floors"),
        ([("4096", '4096\nspeed_floors = {"tier_1" = 12.0}')], "speed_floors"),
        ([("4096", '4096\nspeed_floors = {"1" = 0.0}')], "speed_floors"),
        ([("4096", '4096\nspeed_floors = {"1" = -3.0}')], "speed_floors"),
        ([("4096", "4096\nmax_tokens_max = 1048577")], "max_tokens_max"),
        ([("4096", "4096\nmax_tokens_default = 300\nmax_tokens_max = 299")], "above"),
        ([("4096", "4096\ntemplate_tokens = 4097")], "template_tokens"),
        ([("4096", "4096\ntemplate_tokens = -1")], "template_tokens"),
        ([("4096", "4096\nprice = 1")], "price"),
        ([("name", "nam")], "nam"),
    ],
)
def test_what_a_model_may_not_be_is_said_by_name(changes: list[tuple[str, str]], said: str) -> None:
    with pytest.raises(CatalogueError, match=said):
        parse(file_of(*changes))


@pytest.mark.parametrize(
    "more", ["[factors]\ntier_1 = 0", "[factors]\nurgent = 1000001", "[factors]\ntier_5 = 10000", "x = 1", "= ", "[["]
)
def test_what_a_file_may_not_say_is_refused(more: str) -> None:
    with pytest.raises(CatalogueError, match="catalogue: "):
        parse(file_of(more=more))


def test_a_model_listed_twice_is_refused() -> None:
    with pytest.raises(CatalogueError, match="'small' is listed twice"):
        parse(file_of() + file_of())


def test_bounds_are_inside() -> None:
    text = file_of(("4096", f"{2**31}\nmax_tokens_default = 300\nmax_tokens_max = 300\ntemplate_tokens = 4096"))
    (model,) = parse(text).models
    assert (model.context_tokens, model.max_tokens_max) == (2**31, 300)


def entry(prompt: int, completion: int) -> ModelEntry:
    return ModelEntry(
        name="m",
        digests=("d1" * 32,),
        prompt_wei_per_1000=str(prompt),
        completion_wei_per_1000=str(completion),
        context_tokens=1,
    )


FACTORS = Factors(tier_2=12_500, tier_3=1, tier_4=40_000, expedited=15_000, urgent=30_000)


@pytest.mark.parametrize(
    ("tier", "priority", "prompt_wei", "completion_wei"),
    [
        (1, "standard", 1000, 7),
        (1, "expedited", 1500, 11),
        (1, "urgent", 3000, 21),
        (2, "standard", 1250, 9),
        (2, "urgent", 3750, 27),
        (3, "standard", 1, 1),
        (4, "expedited", 6000, 42),
    ],
)
def test_a_price_is_model_times_tier_times_priority_rounded_up(
    tier: int, priority: Priority, prompt_wei: int, completion_wei: int
) -> None:
    price = price_of(Catalogue(factors=FACTORS), entry(1000, 7), tier=tier, priority=priority)
    assert (price.prompt_wei, price.completion_wei) == (prompt_wei, completion_wei)


def test_a_free_model_costs_nothing() -> None:
    price = price_of(Catalogue(factors=FACTORS), entry(0, 0), tier=3, priority="urgent")
    assert price.cost_wei(prompt_tokens=10**6, completion_tokens=10**6) == 0


@pytest.mark.parametrize(
    ("prompt_tokens", "completion_tokens", "cost_wei"),
    [
        (0, 0, 0),
        (1, 0, 1),
        (1000, 0, 10),
        (1001, 0, 11),
        (0, 1, 1),
        (0, 1000, 7),
        (100, 0, 1),
        (101, 0, 2),
        (50, 72, 2),
    ],
)
def test_a_cost_is_rounded_up_once_for_both_parts(prompt_tokens: int, completion_tokens: int, cost_wei: int) -> None:
    price = Price(prompt_wei=10, completion_wei=7)
    assert price.cost_wei(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens) == cost_wei


@pytest.mark.parametrize(("prompt_tokens", "completion_tokens"), [(-1, 5), (5, -1)])
def test_a_negative_count_costs_nobody_anything_because_it_is_our_bug(
    prompt_tokens: int, completion_tokens: int
) -> None:
    with pytest.raises(AssertionError):
        Price(prompt_wei=1, completion_wei=1).cost_wei(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)


@pytest.mark.parametrize(("tier", "priority"), [(0, "urgent"), (5, "urgent"), (1, "hasty")])
def test_a_price_is_asked_for_a_tier_and_priority_that_exist(tier: int, priority: Any) -> None:
    with pytest.raises(AssertionError):
        price_of(Catalogue(), entry(1, 1), tier=tier, priority=priority)


counts = st.integers(0, 2**31)


@vectors.examples(200)
@given(counts, counts, counts, counts, st.integers(0, 10**24), st.integers(0, 10**24))
def test_who_uses_no_more_than_was_held_for_pays_no_more(
    prompt: int, completion: int, less_prompt: int, less_completion: int, prompt_wei: int, completion_wei: int
) -> None:
    price = Price(prompt_wei=prompt_wei, completion_wei=completion_wei)
    held = price.cost_wei(prompt_tokens=prompt, completion_tokens=completion)
    charged = price.cost_wei(prompt_tokens=min(prompt, less_prompt), completion_tokens=min(completion, less_completion))
    assert 0 <= charged <= held
    assert held * 1000 >= prompt * prompt_wei + completion * completion_wei > (held - 1) * 1000
