"""Opens the runtime that config.toml names, and closes it again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from parallelix.node.errors import RuntimeNotReady

if TYPE_CHECKING:
    from parallelix.node.config import Config
    from parallelix.node.runtimes.base import Runtime


@asynccontextmanager
async def open_runtime(config: Config) -> AsyncGenerator[Runtime]:
    """Raises `RuntimeNotReady` where what it needs is not installed."""
    if config.runtime == "ollama":
        import httpx

        from parallelix.node.runtimes.ollama import Ollama

        # A proxy that the environment names has no business between the node and its own machine.
        async with httpx.AsyncClient(trust_env=False) as http:
            yield Ollama(config.ollama_url, http)
        return
    try:
        from parallelix.node.runtimes.llama_cpp import LlamaCpp
    except ImportError as error:
        raise RuntimeNotReady(
            f"llama_cpp: {error.name} is not installed; run: pip install 'parallelix[embedded]'"
        ) from error
    runtime = LlamaCpp([Path(path) for path in config.gguf], slots=config.slots)
    try:
        yield runtime
    finally:
        await runtime.aclose()
