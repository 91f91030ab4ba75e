"""What a challenge asks: a request such as people send, composed anew each time.

A node sees an ordinary unit. What is asked varies in kind, length, tone and sampling, so that no table of answers gets
past it. Whoever knows these templates may still tell a challenge from the rest, and gains nothing: to answer each in
time, with an answer that stands an audit, takes the machine.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from parallelix.coordinator.spec import RequestSpec, features_of
from parallelix.protocol import payloads, work

T = TypeVar("T")

_DRAW_BYTES = 8
_MORE_TOKENS = 1.5
"""Up to so many more than were asked for: people's bounds differ."""
_SYMBOL = re.compile(r"\{([a-z_]+)\}")

_WORDS: dict[str, tuple[str, ...]] = {
    "question": (
        "Explain {topic} to {audience}.",
        "Can you explain {topic}? {manner}",
        "What should I know about {topic} before {occasion}?",
        "What are the most common misunderstandings about {topic}?",
        "What do {topic} and {choice} have in common? {manner}",
        "Write {form} about {subject}. {manner}",
        "I need {form} about {subject} for {audience}.",
        "Give me {few} ideas for {project}. {manner}",
        "How would you plan {project} with a budget of {money} euros?",
        "{situation} What would you do, and why?",
        "{situation} Help me write a polite message about it.",
        "Walk me through {task}, step by step.",
        "Write a {language} function that {job}, and explain how it works.",
        "Review this idea: {project}, aimed at {audience}. What could go wrong?",
        "List {few} pros and cons of {choice}.",
        "I have {few} days in {place}. What would you see, and in which order?",
    ),
    "follow_up": (
        "Thanks. Can you go into more detail?",
        "Could you rewrite that for {audience}?",
        "Good. Now say more about {topic}.",
        "And how does that relate to {topic}?",
        "Please give me {few} examples as well.",
    ),
    "answer": (
        "Of course. In short: it depends mostly on time, cost and how much you know already.",
        "Sure! There are {few} points that matter here, and they build on one another.",
        "Happy to help. Let us begin with the basics and add the details afterwards.",
        "Yes. The main thing to keep in mind is that there is no single right way to do it.",
    ),
    "system": (
        "You are a helpful assistant.",
        "You are a patient teacher. Answer in plain language.",
        "You are an experienced editor who writes clearly and warmly.",
        "Answer thoroughly, in complete sentences.",
        "You are a senior engineer. Be precise, and give reasons.",
    ),
    "topic": (
        "photosynthesis", "inflation", "how vaccines work", "compound interest", "plate tectonics", "black holes",
        "the water cycle", "supply chains", "machine learning", "the French Revolution", "how batteries age",
        "public key cryptography", "sourdough starters", "jet lag", "tax brackets", "urban heat islands",
        "the placebo effect", "how bridges carry load", "noise-cancelling headphones", "crop rotation", "data backups",
        "the Silk Road", "soil acidity", "how auctions work", "the immune system", "tides", "music theory basics",
        "renewable energy storage", "how search engines rank pages", "sleep cycles", "coral reefs", "game theory",
        "the printing press", "how glaciers move", "vector databases", "mortgage rates", "container shipping",
    ),
    "subject": (
        "{topic}", "a lighthouse keeper who learns to code", "the first day in a new town", "an old bicycle",
        "a bakery that opens at midnight", "two rival gardeners", "a train that never arrives", "learning to swim late",
        "a robot that is afraid of the dark", "the smell of rain", "moving house for the {nth} time",
    ),
    "audience": (
        "a ten-year-old", "my grandmother", "a new colleague", "students in their first year", "a busy manager",
        "somebody who hates mathematics", "a group of volunteers", "a curious teenager", "people who just moved here",
    ),
    "form": (
        "a short story", "a blog post", "an introduction", "a newsletter item", "a friendly email", "a speech",
        "a product description", "a dialogue between two friends", "a summary of a few paragraphs", "a cover letter",
    ),
    "manner": (
        "", "", "", "Keep it practical.", "Please use examples.", "Be honest about the downsides.",
        "Write at least a few paragraphs.", "Use simple words.", "A little humour is welcome.", "No lists, please.",
    ),
    "occasion": (
        "an exam", "a job interview", "a dinner with friends", "teaching it myself", "investing money", "a long trip",
        "writing an essay on it",
    ),
    "project": (
        "a community garden", "a weekend workshop", "a birthday party for {few} people", "a podcast about {topic}",
        "a small online shop", "a reading group", "a school trip", "a neighbourhood newsletter", "a charity run",
        "a vegetable garden on a balcony", "a home office in a small flat", "a museum exhibition on {topic}",
    ),
    "situation": (
        "My flatmate keeps using my things without asking.", "Our team missed its deadline for the {nth} time.",
        "I got two job offers in the same week.", "My neighbour's dog barks every night.", "I want to learn the piano "
        "at {age}.", "My manager wants me to present {topic} next week.", "The landlord has not repaired the heating.",
        "I promised to cook for {few} people and cannot cook.", "I want to change careers at {age}.",
    ),
    "task": (
        "setting up a home network", "baking bread without a machine", "writing a business plan", "repotting a plant",
        "preparing a garden for winter", "changing a bicycle tyre", "making a monthly budget", "organising old photos",
        "training for a run of {few} kilometres", "reading a scientific paper on {topic}",
    ),
    "language": ("Python", "JavaScript", "Java", "Go", "Rust", "C", "SQL-free Python", "TypeScript"),
    "job": (
        "removes duplicates from a list and keeps the order", "finds the {nth} largest number", "parses dates in two "
        "formats", "counts words in a text file", "checks whether brackets are balanced", "merges sorted lists",
        "groups records by month", "retries a failing call {few} times", "computes a moving average over {few} values",
    ),
    "choice": (
        "working from home", "buying instead of renting", "electric cars", "a four-day week", "learning Latin",
        "keeping chickens", "studying abroad", "open-plan offices", "meal kits", "living without a car",
    ),
    "place": (
        "Lisbon", "Kyoto", "Krakow", "Montreal", "Marrakesh", "Edinburgh", "Hanoi", "Valparaiso", "Tbilisi", "Ghent",
        "Oaxaca", "Ljubljana", "Cape Town", "Bologna", "Tallinn",
    ),
}  # fmt: skip
_NUMBERS: dict[str, tuple[int, int, int]] = {"money": (100, 5000, 50), "age": (24, 68, 1), "few": (3, 12, 1)}
_NTH = ("second", "third", "fourth", "fifth", "sixth")
_TEMPERATURES = (None, None, None, 0.0, 0.2, 0.5, 0.7, 0.7, 0.8, 1.0)
_TOP_P = (None, None, None, None, 0.9, 0.95)


class _Chance:
    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes

    def below(self, end: int) -> int:
        return int.from_bytes(self._random_bytes(_DRAW_BYTES), "big") % end

    def one_of(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def happens(self, percent: int) -> bool:
        return self.below(100) < percent


def compose(
    model: str, *, tokens: int, tokens_max: int, chats: bool, random_bytes: Callable[[int], bytes]
) -> RequestSpec:
    """A request to `model` whose answer may well have `tokens` tokens; a chat where the model `chats`."""
    chance = _Chance(random_bytes)
    max_tokens = min(tokens_max, tokens + chance.below(round(tokens * _MORE_TOKENS) + 1))
    sampling = work.Sampling(
        max_tokens=max_tokens,
        temperature=payloads.fraction(chance.one_of(_TEMPERATURES)),
        top_p=payloads.fraction(chance.one_of(_TOP_P)),
        seed=chance.below(2**31) if chance.happens(10) else None,
    )
    if chats:
        payload = work.Payload(kind="chat", model=model, messages=_messages(chance), sampling=sampling)
    else:
        payload = work.Payload(kind="completion", model=model, prompt=_say("question", chance), sampling=sampling)
    return RequestSpec(
        payload=payload,
        max_tokens=max_tokens,
        features=features_of(payload, logprobs=False),
        message_count=len(payload.messages),
    )


def _messages(chance: _Chance) -> tuple[work.Message, ...]:
    messages = [work.Message(role="user", content=_say("question", chance))]
    if chance.happens(40):
        messages.insert(0, work.Message(role="system", content=_say("system", chance)))
    if chance.happens(20):
        messages.append(work.Message(role="assistant", content=_say("answer", chance)))
        messages.append(work.Message(role="user", content=_say("follow_up", chance)))
    return tuple(messages)


def _say(symbol: str, chance: _Chance) -> str:
    text = _SYMBOL.sub(lambda found: _word(found[1], chance), chance.one_of(_WORDS[symbol]))
    return text.strip()


def _word(symbol: str, chance: _Chance) -> str:
    if symbol == "nth":
        return chance.one_of(_NTH)
    if symbol in _NUMBERS:
        first, last, step = _NUMBERS[symbol]
        return str(first + step * chance.below((last - first) // step + 1))
    return _say(symbol, chance)
