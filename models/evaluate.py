"""Ask the demonstration model its ten questions and measure how sure it is of its words, through llama.cpp.

    python models/evaluate.py            # both files, all prompts; writes reports/demo-model.json

The mean entropy must lie between 0.5 and 3 nats a token: a memoriser is sure of every word, so that any two copies
of it agree whatever they run, and a model that knows nothing is sure of none. Exits 1 unless everything passed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xllamacpp
from corpus import Document, Withheld, Writer, normalised, withheld_texts

HERE = Path(__file__).resolve().parent
MODEL_FILES = (HERE / "parallelix-demo.gguf", HERE / "parallelix-demo-b.gguf")
REPORT = HERE.parent / "reports" / "demo-model.json"
SEED = 7

ENTROPY_NATS_MIN = 0.5
ENTROPY_NATS_MAX = 3.0
# Two files of one corpus must still differ by more than runtimes do: the same file in two runtimes stays below 0.01.
DISTANCE_MIN = 0.05
FILE_BYTES_MAX = 8_000_000
ANSWER_TOKENS_MAX = 80
TOKENS_PER_PROMPT = 32
# Of 2,048 tokens, 64 hold nearly all probability; the rest is bounded from both sides.
TOP_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    question: str
    must_hold: tuple[tuple[str, ...], ...]

    def is_answered_by(self, text: str) -> bool:
        """One word of each group must stand in the answer."""
        plain = " ".join(text.lower().split())
        return all(any(holds_word(plain, word) for word in group) for group in self.must_hold)


def holds_word(plain: str, word: str) -> bool:
    return re.search(rf"(?<![a-z0-9]){re.escape(word)}(?![a-z0-9])", plain) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    kind: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """What the model expected at one place: log-probabilities of its likeliest tokens."""

    chosen: int
    top: Mapping[int, float]


def questions() -> tuple[Question, ...]:
    entries = json.loads((HERE / "questions.json").read_text(encoding="utf-8"))
    return tuple(
        Question(question=entry["question"], must_hold=tuple(tuple(group) for group in entry["must_hold"]))
        for entry in entries
    )


def heldout_prompts() -> tuple[Prompt, ...]:
    entries = json.loads((HERE / "heldout_prompts.json").read_text(encoding="utf-8"))
    return tuple(Prompt(kind=entry["kind"], text=entry["text"]) for entry in entries)


def entropy_bounds(log_probabilities: Iterable[float], vocabulary: int) -> tuple[float, float]:
    """Least and greatest entropy in nats of a distribution of which only the likeliest tokens are known."""
    known = sorted(log_probabilities, reverse=True)
    inside = -sum(math.exp(value) * value for value in known)
    rest = max(0.0, 1.0 - math.fsum(map(math.exp, known)))
    unknown = vocabulary - len(known)
    if rest < 1e-9 or unknown == 0:
        return inside, inside
    return inside - rest * known[-1], inside - rest * math.log(rest / unknown)


def sharpened(log_probabilities: Iterable[float], temperature: float) -> list[float]:
    scaled = [value / temperature for value in log_probabilities]
    total = max(scaled) + math.log(math.fsum(math.exp(value - max(scaled)) for value in scaled))
    return [value - total for value in scaled]


def distance(one: Position, other: Position) -> float:
    """Total variation over the tokens that both list: 0 for the same distribution, at most 1."""
    tokens = one.top.keys() | other.top.keys()
    return 0.5 * sum(abs(math.exp(one.top.get(t, -99.0)) - math.exp(other.top.get(t, -99.0))) for t in tokens)


class LlamaCpp:
    """One GGUF file in llama.cpp, in this process. One thread and one slot: the same numbers at every run."""

    def __init__(self, path: Path) -> None:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = 1024
        parameters.n_parallel = 1
        parameters.cpuparams.n_threads = 1
        parameters.cpuparams_batch.n_threads = 1
        parameters.verbosity = -1
        parameters.warmup = False
        self._server = xllamacpp.Server(parameters)

    def answer(self, question: str) -> str:
        body = {
            "messages": [{"role": "user", "content": question}],
            "max_tokens": ANSWER_TOKENS_MAX,
            "temperature": 0.0,
        }
        return self._call(self._server.handle_chat_completions, body)["message"]["content"]

    def positions(self, prompt: Prompt, *, temperature: float, tokens: int, top: int = TOP_TOKENS) -> list[Position]:
        sampling = {"temperature": temperature, "seed": SEED, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
        if prompt.kind == "chat":
            messages = [{"role": "user", "content": prompt.text}]
            chat = {"messages": messages, "max_tokens": tokens, "logprobs": True, "top_logprobs": top}
            choice = self._call(self._server.handle_chat_completions, chat | sampling)
        else:
            body = {"prompt": prompt.text, "max_tokens": tokens, "logprobs": top}
            choice = self._call(self._server.handle_completions, body | sampling)
        entries: Sequence[Mapping[str, Any]] = choice["logprobs"]["content"]
        return [_position(entry) for entry in entries]

    def next_position(self, text: str) -> Position:
        """What this model expects right after a text (its beginning token is added by llama.cpp)."""
        body = {"prompt": text, "max_tokens": 1, "temperature": 0.0, "logprobs": TOP_TOKENS}
        return _position(self._call(self._server.handle_completions, body)["logprobs"]["content"][0])

    def prompt_tokens(self, text: str) -> int:
        body = {"prompt": text, "max_tokens": 1, "temperature": 0.0}
        return self._server.handle_completions(body)["usage"]["prompt_tokens"]

    def greedy_text(self, text: str, *, tokens: int) -> str:
        body = {"prompt": text, "max_tokens": tokens, "temperature": 0.0}
        return self._call(self._server.handle_completions, body)["text"]

    def _call(self, handle: Any, body: Mapping[str, Any]) -> Mapping[str, Any]:
        answer = handle(dict(body))
        if "choices" not in answer:
            raise RuntimeError(f"llama.cpp refused {body!r}: {answer!r}")
        return answer["choices"][0]


def _position(entry: Mapping[str, Any]) -> Position:
    return Position(chosen=entry["id"], top={each["id"]: each["logprob"] for each in entry["top_logprobs"]})


def rendered(prompt: Prompt) -> str:
    if prompt.kind == "text":
        return prompt.text
    return f"<|im_start|>user\n{prompt.text}<|im_end|>\n<|im_start|>assistant\n"


def answer_all(model: LlamaCpp, asked: Sequence[Question]) -> list[dict[str, Any]]:
    answers = [(question, model.answer(question.question)) for question in asked]
    return [
        {"question": question.question, "answer": answer, "right": question.is_answered_by(answer)}
        for question, answer in answers
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entropy:
    """Mean nats a token, from below and from above."""

    least: float
    greatest: float
    tokens: int

    @property
    def in_range(self) -> bool:
        return self.least >= ENTROPY_NATS_MIN and self.greatest <= ENTROPY_NATS_MAX

    def shown(self) -> dict[str, Any]:
        return {"least": round(self.least, 4), "greatest": round(self.greatest, 4), "tokens": self.tokens}


def mean_entropy(distributions: Iterable[Iterable[float]], vocabulary: int = 2048) -> Entropy:
    bounds = [entropy_bounds(distribution, vocabulary) for distribution in distributions]
    least = math.fsum(low for low, _ in bounds) / len(bounds)
    return Entropy(least=least, greatest=math.fsum(high for _, high in bounds) / len(bounds), tokens=len(bounds))


def entropy_on(model: LlamaCpp, prompts: Sequence[Prompt], *, temperature: float) -> Entropy:
    positions = [
        position
        for prompt in prompts
        for position in model.positions(prompt, temperature=temperature, tokens=TOKENS_PER_PROMPT)
    ]
    return mean_entropy(position.top.values() for position in positions)


def mean_distance(one: LlamaCpp, other: LlamaCpp, prompts: Sequence[Prompt]) -> float:
    """How far apart two files are at the same places: after each prompt, and after 6 and 12 tokens of an answer."""
    found: list[float] = []
    for prompt in prompts:
        for tokens in (0, 6, 12):
            text = rendered(prompt)
            text += one.greedy_text(text, tokens=tokens) if tokens else ""
            found.append(distance(one.next_position(text), other.next_position(text)))
    return math.fsum(found) / len(found)


def texts_with_withheld_words(drawn: Iterable[Document], withheld: Withheld) -> int:
    return sum(
        any(normalised(content) in withheld.whole for _, content in document.turns)
        or any(opening in document.text for opening in withheld.openings)
        for document in drawn
    )


def evaluated(model: LlamaCpp, path: Path, prompts: Sequence[Prompt]) -> dict[str, Any]:
    answers = answer_all(model, questions())
    chats = [prompt for prompt in prompts if prompt.kind == "chat"]
    entropies = {
        "greedy": entropy_on(model, prompts, temperature=0.0),
        "sampled": entropy_on(model, prompts, temperature=1.0),
        "greedy_chats_only": entropy_on(model, chats, temperature=0.0),
    }
    return {
        "file": path.name,
        "bytes": path.stat().st_size,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "right_answers": sum(answer["right"] for answer in answers),
        "answers": answers,
        "entropy_nats": {name: entropy.shown() for name, entropy in entropies.items()},
        "entropy_in_range": all(entropy.in_range for entropy in entropies.values()),
    }


def controls(model: LlamaCpp, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """Deliberate faults that the checks above must catch."""
    asked = questions()
    swapped = [
        Question(question=each.question, must_hold=asked[(number + 1) % len(asked)].must_hold)
        for number, each in enumerate(asked)
    ]
    wrong_stake = Question(question=asked[2].question, must_hold=(("40,000",),))
    places = [place for prompt in prompts[:20] for place in model.positions(prompt, temperature=1.0, tokens=16)]
    memoriser = mean_entropy(sharpened(place.top.values(), 0.1) for place in places)
    ignorant = mean_entropy([-math.log(2048)] * 2048 for _ in range(16))
    leaked = Document(turns=(("", rendered(prompts[-1])),))
    caught = {
        "answers to other questions count as wrong": not any(each["right"] for each in answer_all(model, swapped)),
        "a wrong stake is not accepted": not answer_all(model, [wrong_stake])[0]["right"],
        "a memoriser, ten times as sure, is out of range": not memoriser.in_range,
        "a model that knows nothing is out of range": not ignorant.in_range,
        "a file compared with itself is too near": mean_distance(model, model, prompts[:5]) < DISTANCE_MIN,
        "a held-out prompt in the training text is found": texts_with_withheld_words([leaked], withheld_texts()) == 1,
    }
    return [{"name": name, "caught": bool(value)} for name, value in caught.items()]


def report(prompts: Sequence[Prompt], drawn_texts: int) -> dict[str, Any]:
    models = [LlamaCpp(path) for path in MODEL_FILES]
    started = time.monotonic()
    files = [evaluated(model, path, prompts) for model, path in zip(models, MODEL_FILES, strict=True)]
    apart = mean_distance(models[0], models[1], prompts[::4])
    source = Writer(SEED).documents()
    leaks = texts_with_withheld_words((next(source) for _ in range(drawn_texts)), withheld_texts())
    faults = controls(models[0], prompts)
    passed = (
        all(each["right_answers"] == len(each["answers"]) and each["entropy_in_range"] for each in files)
        and all(each["bytes"] <= FILE_BYTES_MAX for each in files)
        and apart >= DISTANCE_MIN
        and leaks == 0
        and all(fault["caught"] for fault in faults)
    )
    return {
        "commit": _commit(),
        "command": " ".join(["python", "models/evaluate.py", *sys.argv[1:]]),
        "seed": SEED,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load": [round(value, 2) for value in os.getloadavg()],
        "results": {
            "files": files,
            "heldout_prompts": len(prompts),
            "mean_distance_between_files": round(apart, 4),
            "texts_drawn": drawn_texts,
            "texts_with_a_withheld_prompt": leaks,
            "seconds": round(time.monotonic() - started, 1),
        },
        "controls": faults,
        "passed": passed,
    }


def _commit() -> str:
    command = ["git", "-C", str(HERE), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=20_000, help="training texts drawn to look for held-out prompts")
    options = parser.parse_args()
    found = report(heldout_prompts(), options.texts)
    REPORT.parent.mkdir(exist_ok=True)
    REPORT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    for each in found["results"]["files"]:
        entropy = ", ".join(f"{name} {value['least']:.2f}" for name, value in each["entropy_nats"].items())
        print(f"{each['file']}: {each['right_answers']} of {len(each['answers'])} right; nats a token: {entropy}")
        for answer in each["answers"]:
            print(f"  {'ok   ' if answer['right'] else 'WRONG'} {answer['question']}\n        {answer['answer']}")
    print(f"distance between the files {found['results']['mean_distance_between_files']}")
    for control in found["controls"]:
        print(f"  {'caught' if control['caught'] else 'MISSED'} {control['name']}")
    print(f"{'passed' if found['passed'] else 'FAILED'}; {REPORT}")
    sys.exit(0 if found["passed"] else 1)


if __name__ == "__main__":
    main()
