"""What challenges ask: varied, long enough to be measured, and in no way unlike what people send."""

from __future__ import annotations

import random

import pytest

from parallelix.coordinator.challenging import compose
from parallelix.coordinator.spec import RequestSpec
from parallelix.protocol.canonical import encode

TOKENS = 64
TOKENS_MAX = 4096


def composed(count: int, *, chats: bool = True, seed: int = 1, tokens_max: int = TOKENS_MAX) -> list[RequestSpec]:
    random_bytes = random.Random(seed).randbytes
    return [
        compose("small", tokens=TOKENS, tokens_max=tokens_max, chats=chats, random_bytes=random_bytes)
        for _ in range(count)
    ]


def test_hardly_two_of_a_thousand_are_the_same() -> None:
    specs = composed(1000)
    assert len({encode(spec.payload) for spec in specs}) > 990
    assert len({message.content for spec in specs for message in spec.payload.messages}) > 500


def test_they_differ_in_all_that_requests_of_people_differ_in() -> None:
    specs = composed(1000)
    assert {len(spec.payload.messages) for spec in specs} == {1, 2, 3, 4}
    assert {spec.payload.messages[0].role for spec in specs} == {"system", "user"}
    temperatures = {spec.payload.sampling.temperature for spec in specs}
    assert {None, "0", "0.7", "1"} <= temperatures
    assert len({spec.payload.sampling.max_tokens for spec in specs}) > 50
    assert {spec.payload.sampling.top_p is None for spec in specs} == {True, False}
    assert {spec.payload.sampling.seed is None for spec in specs} == {True, False}


def test_each_asks_for_enough_tokens_and_ends_with_the_users_turn() -> None:
    for spec in composed(1000):
        assert TOKENS <= spec.payload.sampling.max_tokens <= 2.5 * TOKENS
        assert spec.payload.sampling.max_tokens == spec.max_tokens
        assert spec.payload.messages[-1].role == "user"
        assert spec.message_count == len(spec.payload.messages)
        for message in spec.payload.messages:
            assert message.content == message.content.strip() and message.content
            assert not set("{}") & set(message.content), "a word that was not filled in"
            assert "parallelix" not in message.content.lower() and "challenge" not in message.content.lower()


def test_a_model_that_does_not_chat_is_asked_to_complete() -> None:
    for spec in composed(50, chats=False):
        assert (spec.payload.kind, spec.features) == ("completion", ())
        assert spec.payload.prompt and not spec.payload.messages
    assert {(spec.payload.kind, spec.features) for spec in composed(50)} == {("chat", ("chat",))}


@pytest.mark.parametrize("tokens_max", [1, 63, 64, 100])
def test_no_more_is_asked_for_than_the_model_gives(tokens_max: int) -> None:
    assert max(spec.payload.sampling.max_tokens for spec in composed(200, tokens_max=tokens_max)) == tokens_max


def test_whoever_runs_it_pays_and_waits_as_by_default() -> None:
    (spec,) = composed(1)
    assert (spec.hardware_tier, spec.priority, spec.deadline_seconds, spec.queue_seconds) == (1, "standard", None, None)
    assert (spec.requester_public_key, spec.credit_account, spec.payload.model) == ("", "", "small")
