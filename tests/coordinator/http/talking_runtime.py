"""A model whose words a test decides: it answers what the prompt asks it to, at once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence

from parallelix.node.runtimes import base

MODEL = "talker"
DIGEST = hashlib.sha256(MODEL.encode()).hexdigest()


class TalkingRuntime:
    """Repeats the prompt. `wait here` stops before its last word until `gate` is set, `fail late` likewise and then
    breaks (`failures` times), and offered tools are called."""

    name = "talking"

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.waiting = asyncio.Event()
        self.stopped = asyncio.Event()
        self.failures = 1
        self.asked: list[base.Generation] = []

    async def version(self) -> str:
        return "1.0"

    async def models(self) -> list[base.Model]:
        features = ("chat", "logprobs", "probe", "tools", "grammar", "embeddings")
        return [
            base.Model(name=MODEL, digest=DIGEST, context_tokens=8192, size_bytes=1, embeds=True, features=features)
        ]

    async def generate(self, work: base.Generation) -> AsyncGenerator[base.TokenEntry | base.Finished]:
        self.asked.append(work)
        prompt = work.prompt if work.prompt is not None else (work.messages or [{}])[-1].get("content", "")
        if work.tools:
            yield self._call(work.tools[0]["function"]["name"])
            return
        words = str(prompt).split()[: work.sampling.max_tokens] or ["…"]
        fails = prompt == "fail late" and self.failures > 0
        self.failures -= fails
        try:
            for index, word in enumerate(words):
                if (prompt == "wait here" or fails) and index == 1:
                    self.waiting.set()
                    await self.gate.wait()
                    if fails:
                        raise base.RuntimeFailed("the model broke")
                yield self._entry(word if index == 0 else " " + word)
        except (asyncio.CancelledError, GeneratorExit):
            self.stopped.set()
            raise
        finish = "length" if len(words) == work.sampling.max_tokens else "stop"
        yield base.Finished(finish=finish, prompt_tokens=5, completion_tokens=len(words))

    async def probe(self, work: base.Generation, text: str, positions: Sequence[int]) -> AsyncGenerator[base.Probed]:
        """A word of the prompt after as many words of the text."""
        self.asked.append(work)
        prompt = work.prompt if work.prompt is not None else (work.messages or [{}])[-1].get("content", "")
        words = str(prompt).split()
        for position in positions:
            index = len(text.encode()[:position].decode().split())
            word = words[index] if index < len(words) else "…"
            yield base.Probed(prompt_tokens=5 + index, entry=self._entry(word if index == 0 else " " + word))

    async def embed(self, model: str, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        return [[float(len(text)), 0.5] for text in texts], sum(len(text.split()) for text in texts)

    async def aclose(self) -> None:
        pass

    def _entry(self, text: str) -> base.TokenEntry:
        return base.TokenEntry(text=text, logprob=-0.25, top=((text, -0.25), (" other", -2.0), (" third", -4.0)))

    def _call(self, name: str) -> base.Finished:
        call = {"id": "call_1", "type": "function", "function": {"name": name, "arguments": '{"city":"Rome"}'}}
        return base.Finished(finish="tool_calls", prompt_tokens=5, completion_tokens=0, tool_calls=(call,))
