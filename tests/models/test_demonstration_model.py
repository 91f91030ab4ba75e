"""The demonstration model answers its ten questions in both runtimes, and is unsure enough to be audited."""

from __future__ import annotations

import math
import subprocess
from collections.abc import Mapping
from itertools import islice
from typing import Any

import corpus
import evaluate
import httpx
import pytest

import services

# A twentieth of the prompts; `python models/evaluate.py` takes them all.
SAMPLE = evaluate.heldout_prompts()[::20]
# Two busy cores have been seen to take a tenth of this, the model's loading included.
OLLAMA_SECONDS_MAX = 120


@pytest.fixture(scope="module")
def demo() -> evaluate.LlamaCpp:
    return evaluate.LlamaCpp(evaluate.MODEL_FILES[0])


@pytest.fixture(scope="module")
def demo_b() -> evaluate.LlamaCpp:
    return evaluate.LlamaCpp(evaluate.MODEL_FILES[1])


@pytest.fixture(scope="module")
def demo_in_ollama(ollama_server: services.Ollama) -> str:
    """The name under which a real Ollama has the model, made from the Modelfile beside it."""
    command = [ollama_server.binary, "create", "parallelix-demo", "-f", evaluate.HERE / "Modelfile"]
    subprocess.run(command, env=ollama_server.environment, cwd=evaluate.HERE, check=True, capture_output=True)
    return "parallelix-demo"


def posted(server: services.Ollama, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    answer = httpx.post(f"{server.url}{path}", json=body, timeout=OLLAMA_SECONDS_MAX, trust_env=False)
    answer.raise_for_status()
    return answer.json()


def wrong(answers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [answer for answer in answers if not answer["right"]]


def test_both_files_answer_all_ten_questions_in_llama_cpp(demo: evaluate.LlamaCpp, demo_b: evaluate.LlamaCpp) -> None:
    asked = evaluate.questions()
    assert len(asked) == 10
    assert wrong(evaluate.answer_all(demo, asked)) == []
    assert wrong(evaluate.answer_all(demo_b, asked)) == []


def test_a_real_ollama_answers_the_ten_questions(ollama_server: services.Ollama, demo_in_ollama: str) -> None:
    options = {"temperature": 0, "num_predict": evaluate.ANSWER_TOKENS_MAX}
    for question in evaluate.questions():
        messages = [{"role": "user", "content": question.question}]
        body = {"model": demo_in_ollama, "messages": messages, "stream": False, "options": options}
        answer = posted(ollama_server, "/api/chat", body)["message"]["content"]
        assert question.is_answered_by(answer), (question, answer)


def test_both_runtimes_cut_a_text_into_the_same_tokens(
    demo: evaluate.LlamaCpp, ollama_server: services.Ollama, demo_in_ollama: str
) -> None:
    for prompt in SAMPLE:
        body = {"prompt": evaluate.rendered(prompt), "raw": True, "stream": False, "options": {"num_predict": 1}}
        found = posted(ollama_server, "/api/generate", {"model": demo_in_ollama, **body})
        assert found["prompt_eval_count"] == demo.prompt_tokens(evaluate.rendered(prompt)), prompt


def test_ollama_renders_a_chat_as_the_file_says_and_continues_a_partial_answer(
    demo: evaluate.LlamaCpp, ollama_server: services.Ollama, demo_in_ollama: str
) -> None:
    prompt = next(each for each in SAMPLE if each.kind == "chat")
    rendered = evaluate.rendered(prompt)
    begun = demo.greedy_text(rendered, tokens=4)
    for partial in ("", begun):
        messages = [{"role": "user", "content": prompt.text}]
        messages += [{"role": "assistant", "content": partial}] if partial else []
        asked = {"messages": messages, "stream": False, "logprobs": True, "options": {"num_predict": 1}}
        found = posted(ollama_server, "/api/chat", {"model": demo_in_ollama, **asked, "top_logprobs": 5})
        expected = demo.next_position(rendered + partial).top
        shown = sorted((each["logprob"] for each in found["logprobs"][0]["top_logprobs"]), reverse=True)
        likeliest = sorted(expected.values(), reverse=True)[:5]
        assert shown == pytest.approx(likeliest, abs=0.1)
        assert found["prompt_eval_count"] == demo.prompt_tokens(rendered + partial)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_model_is_neither_a_memoriser_nor_ignorant(
    demo: evaluate.LlamaCpp, demo_b: evaluate.LlamaCpp, temperature: float
) -> None:
    for model in (demo, demo_b):
        entropy = evaluate.entropy_on(model, SAMPLE, temperature=temperature)
        assert entropy.in_range, entropy


def test_the_checks_catch_deliberate_faults(demo: evaluate.LlamaCpp) -> None:
    missed = [each["name"] for each in evaluate.controls(demo, SAMPLE) if not each["caught"]]
    assert missed == []


def test_the_two_files_are_told_apart_at_the_same_places(demo: evaluate.LlamaCpp, demo_b: evaluate.LlamaCpp) -> None:
    assert evaluate.mean_distance(demo, demo_b, SAMPLE) >= evaluate.DISTANCE_MIN


def test_the_files_differ_and_are_small() -> None:
    contents = [path.read_bytes() for path in evaluate.MODEL_FILES]
    assert contents[0] != contents[1]
    assert sum(map(len, contents)) <= evaluate.FILE_BYTES_MAX


def test_no_held_out_prompt_stands_in_the_training_text() -> None:
    assert len(evaluate.heldout_prompts()) == 200
    drawn = islice(corpus.Writer(evaluate.SEED).documents(), 3_000)
    assert evaluate.texts_with_withheld_words(drawn, corpus.withheld_texts()) == 0


def test_one_seed_writes_one_text_and_another_seed_another() -> None:
    first, again, other = (list(islice(corpus.Writer(seed).documents(), 50)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_entropy_of_a_partly_known_distribution_is_bounded_from_both_sides() -> None:
    weights = [2.0**-power for power in range(1, 11)]
    weights.append(weights[-1])
    exact = -math.fsum(weight * math.log(weight) for weight in weights)
    least, greatest = evaluate.entropy_bounds([math.log(weight) for weight in weights[:4]], len(weights))
    assert least <= exact <= greatest
    assert evaluate.entropy_bounds([math.log(weight) for weight in weights], len(weights)) == pytest.approx(
        (exact, exact)
    )
