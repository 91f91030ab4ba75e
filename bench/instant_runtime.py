"""A runtime that answers at once, so that a measurement shows what the network adds and not how fast a model is."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import AsyncGenerator, Sequence

from parallelix.node.runtimes.base import Finished, Generation, Model, ModelMissing, Probed, TokenEntry

MODEL = "instant"
DIGEST = hashlib.sha256(b"parallelix bench: instant runtime").hexdigest()
TOKENS_DEFAULT = 16
_EMBEDDING = [0.6, 0.8]
_WORDS = (" many", " people", "'s", " machines", ",", " one", " service")


def answer_text(tokens: int = TOKENS_DEFAULT) -> str:
    """The text of every answer."""
    return "".join(_words(tokens))


def _words(tokens: int) -> list[str]:
    return [_WORDS[index % len(_WORDS)] for index in range(tokens)]


class InstantRuntime:
    """Every answer is the same `tokens` tokens, each with five alternatives, as many as a node asks for."""

    name = "instant"

    def __init__(self, *, tokens: int = TOKENS_DEFAULT) -> None:
        top = tuple((word, -0.7 - index) for index, word in enumerate(_WORDS[:5]))
        self._entries = [TokenEntry(text=word, logprob=-0.7, top=top) for word in _words(tokens)]

    async def version(self) -> str:
        return "1"

    async def models(self) -> list[Model]:
        return [
            Model(
                name=MODEL,
                digest=DIGEST,
                context_tokens=8192,
                size_bytes=0,
                embeds=True,
                features=("chat", "logprobs", "probe", "tools", "grammar", "embeddings"),
            )
        ]

    async def generate(self, work: Generation) -> AsyncGenerator[TokenEntry | Finished]:
        if work.model not in (MODEL, DIGEST):
            raise ModelMissing(f"there is no model {work.model!r} here: ask for {MODEL!r}")
        entries = self._entries[: work.sampling.max_tokens]
        for entry in entries:
            yield entry
        cut = len(entries) < len(self._entries)
        yield Finished(finish="length" if cut else "stop", prompt_tokens=8, completion_tokens=len(entries))

    async def probe(self, work: Generation, text: str, positions: Sequence[int]) -> AsyncGenerator[Probed]:
        if work.model not in (MODEL, DIGEST):
            raise ModelMissing(f"there is no model {work.model!r} here: ask for {MODEL!r}")
        ends = itertools.accumulate(len(entry.text.encode()) for entry in self._entries)
        starts = {end: index for index, end in enumerate([0, *ends][:-1])}
        for position in positions:
            index = starts.get(position, len(self._entries))
            entry = self._entries[index] if position in starts else TokenEntry(text="")
            yield Probed(prompt_tokens=8 + index, entry=entry)

    async def embed(self, model: str, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        if model not in (MODEL, DIGEST):
            raise ModelMissing(f"there is no model {model!r} here: ask for {MODEL!r}")
        return [list(_EMBEDDING) for _ in texts], len(texts)

    async def aclose(self) -> None:
        """Nothing is held."""
