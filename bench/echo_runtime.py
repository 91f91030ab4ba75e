"""A runtime whose answer is the prompt, word by word, so that an answer shows whose it is and takes as long as wanted.

The prompt's first word may ask for more: `hold` never comes to an end, `break` fails half-way and quotes the prompt in
its error as real runtimes do, `crash` does so with an error that is none of the runtimes'.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from typing import Any

from parallelix.node.runtimes.base import Finished, Generation, Model, ModelMissing, Probed, RuntimeFailed, TokenEntry

MODEL = "echo"
DIGEST = hashlib.sha256(b"parallelix bench: echo runtime").hexdigest()
CONTEXT_TOKENS = 8192


class EchoRuntime:
    """`pause_seconds` lie between two words."""

    name = "echo"

    def __init__(self, *, pause_seconds: float = 0.0) -> None:
        self._pause_seconds = pause_seconds

    async def version(self) -> str:
        return "1"

    async def models(self) -> list[Model]:
        features = ("chat", "logprobs", "probe", "tools", "grammar", "embeddings")
        return [
            Model(
                name=MODEL, digest=DIGEST, context_tokens=CONTEXT_TOKENS, size_bytes=0, embeds=True, features=features
            )
        ]

    async def generate(self, work: Generation) -> AsyncGenerator[TokenEntry | Finished]:
        if work.model not in (MODEL, DIGEST):
            raise ModelMissing(f"there is no model {work.model!r} here: ask for {MODEL!r}")
        if work.tools:
            yield self._call(work.tools[0]["function"]["name"])
            return
        prompt = prompt_of(work)
        words = prompt.split()[: work.sampling.max_tokens] or ["…"]
        for index, word in enumerate(words):
            if index == len(words) // 2:
                await self._ask(words[0], prompt)
            yield _entry(word if index == 0 else " " + word)
            await asyncio.sleep(self._pause_seconds)
        finish = "length" if len(words) == work.sampling.max_tokens else "stop"
        yield Finished(finish=finish, prompt_tokens=len(prompt.split()), completion_tokens=len(words))

    async def probe(self, work: Generation, text: str, positions: Sequence[int]) -> AsyncGenerator[Probed]:
        """A word of the prompt after as many words of the text."""
        words = prompt_of(work).split()
        for position in positions:
            index = len(text.encode()[:position].decode().split())
            word = words[index] if index < len(words) else "…"
            yield Probed(prompt_tokens=len(words) + index, entry=_entry(word if index == 0 else " " + word))

    async def embed(self, model: str, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        return [[float(len(text)), 0.5] for text in texts], sum(len(text.split()) for text in texts)

    async def aclose(self) -> None:
        """Nothing is held."""

    async def _ask(self, wish: str, prompt: str) -> None:
        if wish == "hold":
            await asyncio.Event().wait()
        elif wish == "break":
            raise RuntimeFailed(f'cannot sample after prompt "{prompt}"')
        elif wish == "crash":
            raise ValueError(prompt)

    def _call(self, name: str) -> Finished:
        call: dict[str, Any] = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": "{}"}}
        return Finished(finish="tool_calls", prompt_tokens=5, completion_tokens=0, tool_calls=(call,))


def _entry(text: str) -> TokenEntry:
    return TokenEntry(text=text, logprob=-0.25, top=((text, -0.25), (" other", -2.0)))


def prompt_of(work: Generation) -> str:
    """The text to say back: the prompt, or the last message's."""
    if work.prompt is not None:
        return work.prompt
    return str((work.messages or [{}])[-1].get("content", ""))
