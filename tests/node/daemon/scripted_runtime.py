"""A runtime whose words and moments a test decides: the world on the other side of the daemon."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from parallelix.node.runtimes import base

DIGEST = "ab" * 32
MODEL = "scripted"


@dataclass(kw_only=True)
class Script:
    """What one generation gives. It waits for `gate` before entry number `gate_at`, and for ever if nobody opens it."""

    entries: Sequence[base.TokenEntry]
    finished: base.Finished | None = None
    gate_at: int | None = None
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    pause_seconds: float = 0.0
    error: Exception | None = None
    """Raised after the entries."""
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the gate is reached."""
    stopped: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the daemon stopped it, or it ended."""


def words(text: str) -> list[base.TokenEntry]:
    """An entry a word, each with its probability and an alternative."""
    parts = [part if index == 0 else " " + part for index, part in enumerate(text.split(" "))]
    return [base.TokenEntry(text=part, logprob=-0.5, top=((part, -0.5), ("other", -1.5))) for part in parts]


class ScriptedRuntime:
    """Takes the next script for each generation; without one it answers the prompt's length in words."""

    name = "scripted"

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.asked: list[base.Generation] = []
        self.under_way = 0
        self.most_under_way = 0
        self.vectors: list[list[float]] = []
        self.installed = [
            base.Model(
                name=MODEL,
                digest=DIGEST,
                context_tokens=4096,
                size_bytes=1,
                embeds=True,
                features=("chat", "logprobs", "probe", "embeddings"),
            )
        ]

    def will_say(self, text: str, **fields: object) -> Script:
        script = Script(entries=words(text), **fields)  # pyright: ignore[reportArgumentType]
        self.scripts.append(script)
        return script

    async def version(self) -> str:
        return "1.0"

    async def models(self) -> list[base.Model]:
        return list(self.installed)

    async def generate(self, work: base.Generation) -> AsyncGenerator[base.TokenEntry | base.Finished]:
        self.asked.append(work)
        script = self.scripts.pop(0) if self.scripts else Script(entries=words("a plain answer"))
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            for index, entry in enumerate(script.entries):
                if index == script.gate_at:
                    script.reached.set()
                    await script.gate.wait()
                if script.pause_seconds:
                    await asyncio.sleep(script.pause_seconds)
                yield entry
            if script.gate_at == len(script.entries):
                script.reached.set()
                await script.gate.wait()
            if script.error is not None:
                raise script.error
            yield script.finished or base.Finished(
                finish="stop", prompt_tokens=7, completion_tokens=len(script.entries)
            )
        finally:
            self.under_way -= 1
            script.stopped.set()

    async def probe(self, work: base.Generation, text: str, positions: Sequence[int]) -> AsyncGenerator[base.Probed]:
        """Predicts the entries of the next script, and counts seven tokens for the prompt and one a byte."""
        entries = [item async for item in self.generate(work) if isinstance(item, base.TokenEntry)]
        for position, entry in zip(positions, entries, strict=False):
            yield base.Probed(prompt_tokens=7 + position, entry=entry)

    async def embed(self, model: str, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        self.vectors = [[float(len(text)), 0.5] for text in texts]
        return self.vectors, sum(len(text.split()) for text in texts)

    async def aclose(self) -> None:
        pass
