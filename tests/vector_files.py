"""The shared test vectors, and how hard to look for counterexamples."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "tests" / "vectors"

FUZZ = int(os.environ.get("PARALLELIX_FUZZ", "1"))
"""How many times the usual number of random cases; 1 is what every run does, 100 is a night's work."""


def examples(count: int) -> settings:
    return settings(max_examples=count * FUZZ, deadline=None)


@functools.cache
def load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text())


def named(cases: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    assert len({case["name"] for case in cases}) == len(cases) > 0
    return {case["name"]: case for case in cases}


@functools.cache
def maker() -> ModuleType:
    """The script that writes the vectors."""
    spec = importlib.util.spec_from_file_location("make_vectors", REPOSITORY / "scripts" / "make_vectors.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
