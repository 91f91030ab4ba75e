from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tiny_gguf import (
    CALL_PIECES,
    CALL_TEMPLATE,
    CALL_TEMPLATE_FOR_OLLAMA,
    TEMPLATE_FOR_OLLAMA,
    THINKING_PIECES,
    THINKING_TEMPLATE,
    WORDS,
    write_scripted_model,
    write_tiny_model,
)

import services


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`words` writes words, `bytes` writes bytes that mostly make no character, `long` has a long context, `pooled`
    makes embeddings, `calls` always calls a tool, `thinks` always thinks first. `demo` is trained: of these, it alone
    writes the tokens that its own tokenizer would choose, most of the time."""
    folder = tmp_path_factory.mktemp("models")
    demo = folder / "demo.gguf"
    shutil.copyfile(services.REPOSITORY / "models" / "parallelix-demo.gguf", demo)
    return {
        "words": write_tiny_model(folder / "words.gguf", seed=2, words=WORDS),
        "bytes": write_tiny_model(folder / "bytes.gguf", seed=1),
        "long": write_tiny_model(folder / "long.gguf", seed=3, words=WORDS, context_tokens=65_536),
        "pooled": write_tiny_model(folder / "pooled.gguf", seed=4, words=WORDS, pools=True),
        "calls": write_scripted_model(folder / "calls.gguf", CALL_PIECES, chat_template=CALL_TEMPLATE),
        "thinks": write_scripted_model(folder / "thinks.gguf", THINKING_PIECES, chat_template=THINKING_TEMPLATE),
        "demo": demo,
    }


@pytest.fixture(scope="session")
def ollama_templates() -> dict[str, str]:
    plain = dict.fromkeys(("words", "bytes", "long"), TEMPLATE_FOR_OLLAMA)
    return plain | {"calls": CALL_TEMPLATE_FOR_OLLAMA}
