"""The demonstration model: where its file lies, and what the catalogue says of it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from parallelix.devnet.network import catalogue_entry

MODEL = "parallelix-demo"
CONTEXT_TOKENS = 1024
TOKENS_MAX = 512
_FILE = f"{MODEL}.gguf"


class ModelFileMissing(Exception):
    """The installation is not whole."""


def demonstration_model() -> Path:
    """In an installed package beside this module, in a clone in `models/`. Raises `ModelFileMissing`."""
    installed, cloned = Path(__file__).parent / _FILE, Path(__file__).parents[3] / "models" / _FILE
    for path in (installed, cloned):
        if path.exists():
            return path
    raise ModelFileMissing(f"{_FILE}: neither at {installed} nor at {cloned}; install parallelix again")


def demonstration_catalogue() -> str:
    """catalogue.toml with that one model."""
    digest = hashlib.sha256(demonstration_model().read_bytes()).hexdigest()
    return catalogue_entry(MODEL, digest, context_tokens=CONTEXT_TOKENS, max_tokens_max=TOKENS_MAX)
