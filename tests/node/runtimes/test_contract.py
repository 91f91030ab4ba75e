"""What the daemon relies on, of every runtime: the same tests, the same weights."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
from tiny_gguf import CALL_PIECES

import services
from parallelix.node.runtimes.base import (
    Finished,
    Generation,
    ModelMissing,
    Probed,
    Runtime,
    RuntimeUnsupported,
    Sampling,
    TokenEntry,
)
from parallelix.node.runtimes.llama_cpp import LlamaCpp
from parallelix.node.runtimes.ollama import Ollama

SLOTS = 2
HELLO = {"role": "user", "content": "hello"}
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "adds two numbers",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}},
    },
}
COLOUR = {"type": "object", "properties": {"colour": {"enum": ["red", "blue"]}}, "required": ["colour"]}
COLOUR_FORMAT = {
    "type": "json_schema",
    "json_schema": {"schema": COLOUR | {"additionalProperties": False}},
}


@pytest.fixture(scope="module")
def stocked_ollama(
    ollama_server: services.Ollama, tiny_models: dict[str, Path], ollama_templates: dict[str, str]
) -> services.Ollama:
    for name, path in tiny_models.items():
        # One thread each: two that wait for one another are a hundred times slower where a core is taken.
        ollama_server.create_model(name, path, template=ollama_templates.get(name), num_thread=1)
    return ollama_server


@pytest.fixture(params=["llama_cpp", pytest.param("ollama", marks=pytest.mark.service)])
async def runtime(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> AsyncIterator[Runtime]:
    if request.param == "ollama":
        server = cast("services.Ollama", request.getfixturevalue("stocked_ollama"))
        async with httpx.AsyncClient(trust_env=False) as http:
            yield Ollama(server.url, http)
        return
    llama_cpp = LlamaCpp(list(tiny_models.values()), SLOTS, threads=1)
    yield llama_cpp
    await llama_cpp.aclose()


async def run(runtime: Runtime, work: Generation) -> tuple[list[TokenEntry], Finished]:
    entries: list[TokenEntry] = []
    finished: list[Finished] = []
    async for item in runtime.generate(work):
        if isinstance(item, Finished):
            finished.append(item)
        else:
            assert not finished, "an entry came after the end"
            entries.append(item)
    assert len(finished) == 1
    return entries, finished[0]


def sampling(options: dict[str, Any]) -> Sampling:
    defaults: dict[str, Any] = {"max_tokens": 16, "seed": 1}
    return Sampling(**(defaults | options))


def completion(prompt: str = "hello", *, model: str = "words", **options: Any) -> Generation:
    return Generation(model=model, prompt=prompt, sampling=sampling(options))


def chat(*messages: dict[str, Any], model: str = "words", **options: Any) -> Generation:
    return Generation(model=model, messages=messages or (HELLO,), sampling=sampling(options))


def text_of(entries: list[TokenEntry]) -> str:
    return "".join(entry.text for entry in entries)


async def test_a_completion_has_an_entry_a_token_up_to_the_bound(runtime: Runtime) -> None:
    entries, finished = await run(runtime, completion(max_tokens=12))

    assert finished == Finished(finish="length", prompt_tokens=6, completion_tokens=12)
    assert len(entries) == 12
    assert all(entry.text for entry in entries)


async def test_one_token_can_be_asked_for(runtime: Runtime) -> None:
    entries, finished = await run(runtime, completion(max_tokens=1))

    assert len(entries) == finished.completion_tokens == 1


async def test_log_probabilities_are_never_positive_and_alternatives_come_in_order(runtime: Runtime) -> None:
    entries, _ = await run(runtime, completion(top_logprobs=7))

    for entry in entries:
        numbers = [logprob for _, logprob in entry.top]
        assert entry.logprob is not None
        assert entry.logprob <= 0
        assert len(numbers) == 7
        assert numbers == sorted(numbers, reverse=True)
        assert numbers[0] <= 0


async def test_without_alternatives_the_token_s_own_log_probability_still_comes(runtime: Runtime) -> None:
    entries, _ = await run(runtime, completion(top_logprobs=0))

    assert all(entry.logprob is not None and entry.top == () for entry in entries)


async def test_greedy_picks_are_the_most_likely(runtime: Runtime) -> None:
    entries, _ = await run(runtime, completion(temperature=0.0, top_logprobs=1))

    assert all(entry.top == ((entry.text, entry.logprob),) for entry in entries)


async def test_an_equal_seed_gives_the_same_answer_and_another_seed_another(runtime: Runtime) -> None:
    first, _ = await run(runtime, completion(seed=5))
    again, _ = await run(runtime, completion(seed=5))
    other, _ = await run(runtime, completion(seed=6))

    assert text_of(first) == text_of(again)
    assert text_of(first) != text_of(other)


async def test_huge_and_negative_seeds_are_seeds_too(runtime: Runtime) -> None:
    for seed in (-1, 2**32 - 1, 2**63):
        first, _ = await run(runtime, completion(seed=seed))
        again, _ = await run(runtime, completion(seed=seed))
        assert text_of(first) == text_of(again)


async def test_a_stop_sequence_ends_the_text_and_is_not_part_of_it(runtime: Runtime) -> None:
    whole = text_of((await run(runtime, completion()))[0])
    # From the middle of one token to the middle of another.
    stop = whole[18:24]

    entries, finished = await run(runtime, completion(stop=("never", stop)))

    assert text_of(entries) == whole[: whole.index(stop)]
    assert finished.finish == "stop"
    assert len(entries) <= finished.completion_tokens


async def test_what_only_begins_like_a_stop_sequence_is_kept_token_by_token(runtime: Runtime) -> None:
    without, _ = await run(runtime, completion())
    texts = [entry.text for entry in without]
    begins = (texts[3] + texts[4] + "never", text_of(without) + "never")

    entries, finished = await run(runtime, completion(stop=begins))

    assert [entry.text for entry in entries] == texts
    assert [entry.logprob for entry in entries] == pytest.approx([entry.logprob for entry in without], abs=1e-3)
    assert finished.finish == "length"


async def test_a_chat_is_the_completion_of_its_rendered_template(runtime: Runtime) -> None:
    conversation = (
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]},
    )
    rendered = "<|system|>be brief\n<|user|>hello\n<|assistant|>"

    chatted = await run(runtime, chat(*conversation, temperature=0.0))
    completed = await run(runtime, completion(rendered, temperature=0.0))

    assert text_of(chatted[0]) == text_of(completed[0])
    assert chatted[1] == completed[1]


async def test_both_runtimes_see_the_same_numbers_in_the_same_weights(
    stocked_ollama: services.Ollama, tiny_models: dict[str, Path]
) -> None:
    llama_cpp = LlamaCpp([tiny_models["words"]], 1, threads=1)
    async with httpx.AsyncClient(trust_env=False) as http:
        ollama = Ollama(stocked_ollama.url, http)
        answers = [await run(each, completion(temperature=0.0, top_logprobs=5)) for each in (llama_cpp, ollama)]
    await llama_cpp.aclose()

    (one, one_finished), (two, two_finished) = answers
    assert text_of(one) == text_of(two)
    assert [entry.logprob for entry in one] == pytest.approx([entry.logprob for entry in two], abs=0.02)
    assert one_finished == two_finished


async def test_the_demonstration_model_says_the_same_in_both_runtimes(ollama_server: services.Ollama) -> None:
    weights = services.REPOSITORY / "models" / "parallelix-demo.gguf"
    template = (weights.parent / "Modelfile").read_text().split('TEMPLATE """')[1].split('"""')[0]
    ollama_server.create_model("parallelix-demo", weights, template=template, num_thread=1)
    question = {"role": "user", "content": "What is ParalleliX?"}
    work = Generation(model="parallelix-demo", messages=[question], sampling=Sampling(max_tokens=40, temperature=0.0))
    llama_cpp = LlamaCpp([weights], 1, threads=1)
    async with httpx.AsyncClient(trust_env=False) as http:
        (one, one_finished), (two, two_finished) = [
            await run(each, work) for each in (llama_cpp, Ollama(ollama_server.url, http))
        ]
    await llama_cpp.aclose()

    assert text_of(one) == text_of(two) != ""
    assert one_finished == two_finished


async def test_a_schema_is_obeyed(runtime: Runtime) -> None:
    work = Generation(
        model="words", prompt="hello", response_format=COLOUR_FORMAT, sampling=Sampling(max_tokens=400, seed=1)
    )

    entries, finished = await run(runtime, work)

    assert finished.finish == "stop"
    assert json.loads(text_of(entries))["colour"] in ("red", "blue")


async def test_a_schema_that_cannot_be_kept_is_refused_before_any_text(runtime: Runtime) -> None:
    impossible = {"type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}
    shown: list[object] = []

    with pytest.raises(RuntimeUnsupported):
        async for item in runtime.generate(Generation(model="words", prompt="hello", response_format=impossible)):
            shown.append(item)
    assert shown == []


async def test_broken_characters_never_break_the_text(runtime: Runtime) -> None:
    for seed in range(4):
        entries, finished = await run(runtime, completion(model="bytes", max_tokens=60, seed=seed))

        text = text_of(entries)
        assert text.encode("utf-8").decode("utf-8") == text
        assert 0 < len(entries) <= finished.completion_tokens == 60


async def test_as_many_as_there_are_slots_run_at_once_and_more_wait(runtime: Runtime) -> None:
    alone = [await run(runtime, completion(f"say {number}", temperature=0.0)) for number in range(5)]

    together = await asyncio.gather(
        *(run(runtime, completion(f"say {number}", temperature=0.0)) for number in range(5))
    )

    assert [finished for _, finished in together] == [finished for _, finished in alone]
    assert all(len(entries) == 16 for entries, _ in together)


async def test_what_is_cancelled_makes_room_for_the_next(runtime: Runtime) -> None:
    for _ in range(SLOTS + 1):
        async with aclosing(cast("Any", runtime.generate(completion(model="long", max_tokens=8000)))) as items:
            assert isinstance(await anext(items), TokenEntry)

    _, finished = await run(runtime, completion(model="long", max_tokens=3))
    assert finished.completion_tokens == 3


async def test_cancelling_the_task_that_waits_ends_it_too(runtime: Runtime) -> None:
    task = asyncio.create_task(run(runtime, completion(model="long", max_tokens=8000)))
    await asyncio.sleep(0.05)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await run(runtime, completion(model="long", max_tokens=3))


async def test_a_tool_call_comes_at_the_end_and_its_tokens_have_no_text(runtime: Runtime) -> None:
    work = Generation(model="calls", messages=[HELLO], tools=[ADD], sampling=Sampling(max_tokens=40))

    entries, finished = await run(runtime, work)

    assert text_of(entries) == ""
    assert 0 < len(entries) <= finished.completion_tokens
    assert finished.finish == "tool_calls"
    (call,) = finished.tool_calls
    assert call["id"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "add"
    assert json.loads(call["function"]["arguments"]) == {"a": 1, "b": 2}


async def test_a_tool_s_answer_goes_back_to_the_model(runtime: Runtime) -> None:
    call = {"id": "call_7", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": 2}'}}
    conversation = [
        HELLO,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_7", "content": "3"},
    ]
    work = Generation(model="calls", messages=conversation, sampling=Sampling(max_tokens=40))
    alone = Generation(model="calls", messages=[HELLO], sampling=Sampling(max_tokens=40))

    _, finished = await run(runtime, work)
    _, finished_alone = await run(runtime, alone)

    assert finished.prompt_tokens > finished_alone.prompt_tokens + len('{"a": 1, "b": 2}')


async def test_without_tools_what_looks_like_a_call_is_text(runtime: Runtime) -> None:
    entries, finished = await run(runtime, chat(model="calls", max_tokens=40))

    assert text_of(entries) == "".join(CALL_PIECES)
    assert finished.finish == "stop"
    assert finished.tool_calls == ()


async def test_an_answer_that_was_begun_is_gone_on_with(runtime: Runtime) -> None:
    begun = {"role": "assistant", "content": "I am"}

    _, continued = await run(runtime, chat(HELLO, begun, model="calls", max_tokens=40))
    _, rendered = await run(runtime, completion("<|user|>hello\n<|assistant|>I am", model="calls", max_tokens=40))

    assert continued == rendered


async def probe(runtime: Runtime, work: Generation, text: str, *positions: int) -> list[Probed]:
    return [probed async for probed in runtime.probe(work, text, positions)]


def starts(entries: list[TokenEntry]) -> list[int]:
    """Where each entry begins, in UTF-8 bytes of the text."""
    lengths = [len(entry.text.encode()) for entry in entries]
    return [sum(lengths[:index]) for index in range(len(lengths))]


def close_to(predicted: TokenEntry, generated: TokenEntry) -> None:
    """The same numbers. Two alternatives may have one text, and the last of twenty may be another."""
    assert [number for _, number in predicted.top] == pytest.approx([number for _, number in generated.top], abs=1e-3)
    assert predicted.top[0][0] == generated.top[0][0]


@pytest.mark.parametrize(
    "work",
    [
        completion("ParalleliX is", model="demo", temperature=0.0, top_logprobs=20),
        completion("Once upon", model="demo", temperature=1.0, top_logprobs=20, seed=3),
        chat(HELLO, model="demo", temperature=0.0, top_logprobs=20),
        chat(HELLO, {"role": "assistant", "content": "Hi."}, HELLO, model="demo", top_logprobs=20, stop=("never",)),
    ],
    ids=["greedy completion", "sampled completion", "greedy chat", "sampled chat"],
)
async def test_a_probe_sees_what_the_model_saw_when_it_generated(runtime: Runtime, work: Generation) -> None:
    entries, finished = await run(runtime, work)

    probed = await probe(runtime, work, text_of(entries), *starts(entries))

    assert probed[0].prompt_tokens == finished.prompt_tokens
    same = [
        (entry, each.entry)
        for index, (entry, each) in enumerate(zip(entries, probed, strict=True))
        if each.prompt_tokens == finished.prompt_tokens + index
    ]
    assert len(same) >= len(entries) - 3
    for entry, predicted in same:
        assert len(predicted.top) == 20
        assert (predicted.text, predicted.logprob) == predicted.top[0]
        close_to(predicted, entry)


async def test_counts_rise_by_the_tokens_between_the_positions(runtime: Runtime) -> None:
    probed = await probe(runtime, completion(), "x<0x41>yz", 0, 1, 7, 9)

    assert [each.prompt_tokens for each in probed] == [6, 7, 13, 15]


async def test_a_prefix_that_is_tokenised_otherwise_shows_in_the_count(runtime: Runtime) -> None:
    """This model's words are tokens that its tokenizer never chooses: it spells them."""
    work = completion(temperature=0.0, top_logprobs=20)
    entries, finished = await run(runtime, work)

    first, second = await probe(runtime, work, text_of(entries), *starts(entries)[:2])

    assert first.prompt_tokens == finished.prompt_tokens
    spelled = len(entries[0].text.replace(" ", "▁").encode())
    assert second.prompt_tokens == finished.prompt_tokens + spelled > finished.prompt_tokens + 1
    close_to(first.entry, entries[0])


@pytest.mark.parametrize("text", ["漢字かな", "👍🏽yes", "naïveΩ"], ids=["CJK", "emoji", "accents"])
async def test_a_prefix_may_hold_any_character(runtime: Runtime, text: str) -> None:
    positions = [len(text[:end].encode()) for end in range(len(text) + 1)]

    probed = await probe(runtime, completion(model="bytes"), text, *positions)

    assert [each.prompt_tokens - 6 for each in probed] == positions
    assert all(len(each.entry.top) == 20 for each in probed)


async def test_the_end_of_an_answer_is_predicted_too(runtime: Runtime) -> None:
    work = chat({"role": "user", "content": "What is ParalleliX?"}, model="demo", temperature=0.0, max_tokens=200)
    entries, finished = await run(runtime, work)
    text = text_of(entries)
    assert finished.finish == "stop"

    _, last = await probe(runtime, work, text, 0, len(text.encode()))

    # What ends a sequence has a name in one runtime and none in the other.
    assert last.entry.text in ("", "<|im_end|>")
    assert len(last.entry.top) == 20


async def test_a_chat_with_tools_is_probed_in_the_prompt_that_shows_them(runtime: Runtime) -> None:
    work = Generation(model="calls", messages=[HELLO], tools=[ADD], sampling=Sampling(max_tokens=40))
    _, finished = await run(runtime, work)

    first, second = await probe(runtime, work, "xy", 0, 2)

    assert first.prompt_tokens == finished.prompt_tokens
    assert second.prompt_tokens == finished.prompt_tokens + 2
    assert first.entry.text == second.entry.text == CALL_PIECES[0]


async def test_a_grammar_does_not_enter_a_probe(runtime: Runtime) -> None:
    free = await probe(runtime, completion(), " w1", 0, 3)
    held = await probe(runtime, Generation(model="words", prompt="hello", response_format=COLOUR_FORMAT), " w1", 0, 3)

    for one, other in zip(held, free, strict=True):
        assert one.prompt_tokens == other.prompt_tokens
        close_to(one.entry, other.entry)


async def test_a_position_beyond_the_context_has_no_prediction(runtime: Runtime) -> None:
    first, last = await probe(runtime, completion("x" * 2000), "y" * 200, 0, 200)

    assert first.prompt_tokens == last.prompt_tokens == 2001
    assert len(first.entry.top) == 20
    assert last.entry == TokenEntry(text="")


async def test_a_prompt_beyond_the_context_is_not_probed(runtime: Runtime) -> None:
    with pytest.raises(RuntimeUnsupported):
        await probe(runtime, completion("x" * 3000), "y", 0, 1)


@pytest.mark.parametrize(
    "positions", [(-1,), (0, 6), (3, 2), (2, 2), (0, 1)], ids=["before", "after", "falling", "twice", "in a character"]
)
async def test_positions_that_are_none_are_refused(runtime: Runtime, positions: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeUnsupported, match="position"):
        await probe(runtime, completion(), "ñabc", *positions)


async def test_what_cannot_generate_cannot_be_probed(runtime: Runtime) -> None:
    for model, error in (("pooled", RuntimeUnsupported), ("no-such-model", ModelMissing)):
        with pytest.raises(error):
            await probe(runtime, completion(model=model), "", 0)
    features = {model.name.partition(":")[0]: model.features for model in await runtime.models()}
    assert "probe" in features["words"]
    assert "probe" not in features["pooled"]


async def test_a_model_s_digest_is_that_of_its_file_and_finds_it(
    runtime: Runtime, tiny_models: dict[str, Path]
) -> None:
    digest = hashlib.sha256(tiny_models["words"].read_bytes()).hexdigest()

    models = {model.digest: model for model in await runtime.models()}

    assert models[digest].name.partition(":")[0] == "words"
    assert models[digest].context_tokens == 2048
    assert not models[digest].embeds
    assert {"chat", "logprobs", "grammar"} <= set(models[digest].features)
    entries, _ = await run(runtime, completion(model=digest, max_tokens=2))
    assert len(entries) == 2


async def test_an_unknown_model_is_missing(runtime: Runtime) -> None:
    with pytest.raises(ModelMissing, match="no-such-model"):
        await run(runtime, completion(model="no-such-model"))
    with pytest.raises(ModelMissing):
        await runtime.embed("no-such-model", ["hello"])


async def test_a_prompt_beyond_the_context_is_refused_not_cut(runtime: Runtime) -> None:
    with pytest.raises(RuntimeUnsupported):
        await run(runtime, completion("x" * 3000))


async def test_a_prompt_that_leaves_little_room_ends_at_the_context_s_bound(runtime: Runtime) -> None:
    entries, finished = await run(runtime, completion("x" * 2030, max_tokens=200))

    assert finished.finish == "length"
    assert 0 < len(entries) < 20


@pytest.mark.parametrize(
    "work",
    [
        Generation(model="words"),
        Generation(model="words", prompt="one", messages=[{"role": "user", "content": "two"}]),
        Generation(model="words", prompt=""),
        Generation(model="words", messages=[]),
        Generation(model="words", prompt="hello", sampling=Sampling(max_tokens=0)),
        Generation(model="words", prompt="hello", sampling=Sampling(max_tokens=1, top_logprobs=21)),
        Generation(model="words", prompt="hello", response_format={"type": "grammar"}),
        Generation(model="words", messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        Generation(model="words", messages=[{"role": "user", "content": "hi"}], tools=[{"type": "function"}]),
        Generation(model="calls", messages=[HELLO], tools=[{"type": "function"}]),
        Generation(model="words", messages=[{"content": "canary"}]),
        Generation(model="words", messages=[HELLO | {"tool_calls": [{"function": {"name": "add"}}]}]),
        Generation(model="words", messages=[HELLO | {"content": 7}]),
        Generation(model="pooled", prompt="hello"),
    ],
    ids=[
        "neither",
        "both",
        "empty prompt",
        "no messages",
        "no tokens",
        "too many alternatives",
        "unknown format",
        "image",
        "tools without template",
        "tool without name",
        "message without role",
        "call without arguments",
        "content that is a number",
        "embedding model",
    ],
)
async def test_what_cannot_be_done_is_refused(runtime: Runtime, work: Generation) -> None:
    with pytest.raises(RuntimeUnsupported) as caught:
        await run(runtime, work)
    assert "canary" not in str(caught.value)


async def test_a_model_made_for_it_embeds_texts_in_order(runtime: Runtime) -> None:
    together, tokens = await runtime.embed("pooled", ["hello", "the node", "hello"])
    alone, alone_tokens = await runtime.embed("pooled", ["the node"])

    assert len(together) == 3
    assert together[0] == pytest.approx(together[2], abs=1e-4)
    assert together[1] == pytest.approx(alone[0], abs=1e-4)
    assert together[0] != pytest.approx(together[1], abs=1e-2)
    assert sum(number * number for number in together[0]) == pytest.approx(1, abs=1e-3)
    assert tokens > alone_tokens > 0


async def test_no_texts_have_no_embeddings(runtime: Runtime) -> None:
    assert await runtime.embed("pooled", []) == ([], 0)


async def test_a_generating_model_makes_no_embeddings(runtime: Runtime) -> None:
    with pytest.raises(RuntimeUnsupported):
        await runtime.embed("words", ["hello"])


async def test_the_version_is_told(runtime: Runtime) -> None:
    assert (await runtime.version())[0].isdigit()
