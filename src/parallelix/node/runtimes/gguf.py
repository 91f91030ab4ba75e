"""The few facts of a GGUF file that a manifest needs, read from its head without loading the model."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from parallelix.node.runtimes.base import RuntimeFailed, RuntimeUnsupported

# A file of ours has 30 facts; the largest in circulation near 100, and a vocabulary of 300,000 strings.
_FACTS_MAX = 10_000
_ELEMENTS_MAX = 16_000_000
_STRING_BYTES_MAX = 4 * 1024 * 1024

_STRING, _ARRAY = 8, 9
_NUMBERS: Final[Mapping[int, struct.Struct]] = {
    kind: struct.Struct(f"<{code}")
    for kind, code in {
        0: "B",
        1: "b",
        2: "H",
        3: "h",
        4: "I",
        5: "i",
        6: "f",
        7: "?",
        10: "Q",
        11: "q",
        12: "d",
    }.items()
}


@dataclass(frozen=True, slots=True, kw_only=True)
class GGUF:
    """`chat_template` is empty where the model has none; `pools` tells a model made for embeddings."""

    architecture: str
    context_tokens: int
    chat_template: str
    pools: bool


def read_gguf(path: Path) -> GGUF:
    """Raises RuntimeFailed for a file that is no whole GGUF, RuntimeUnsupported for one part of a split model."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            facts = _Reader(content).facts()
    except (OSError, ValueError, struct.error, IndexError) as error:
        raise RuntimeFailed(f"{path} is not a model file ({error}): give the path of a GGUF file") from error
    return _model(path, facts)


def _model(path: Path, facts: Mapping[str, object]) -> GGUF:
    architecture = str(facts.get("general.architecture", ""))
    context_tokens = facts.get(f"{architecture}.context_length")
    parts = facts.get("split.count", 1)
    if isinstance(parts, int) and parts > 1:
        raise RuntimeUnsupported(f"{path} is one of {parts} parts of a model: join them (`llama-gguf-split --merge`)")
    if not isinstance(context_tokens, int) or context_tokens < 1:
        raise RuntimeFailed(f"{path} names no context length: it is not a language model")
    return GGUF(
        architecture=architecture,
        context_tokens=context_tokens,
        chat_template=str(facts.get("tokenizer.chat_template", "")),
        pools=bool(facts.get(f"{architecture}.pooling_type", 0)),
    )


class _Reader:
    """Walks the head of a GGUF file (version 2 or 3). Lists are passed over: no fact asked for is one."""

    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._position = 0

    def facts(self) -> dict[str, object]:
        if self._content[:4] != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        self._position = 4
        version = self._unsigned(4)
        if version not in (2, 3):
            raise ValueError(f"it is of GGUF version {version}, and 2 and 3 can be read")
        self._unsigned(8)
        count = self._bounded(self._unsigned(8), _FACTS_MAX, "facts")
        facts: dict[str, object] = {}
        for _ in range(count):
            key = self._string()
            facts[key] = self._value(self._unsigned(4))
        return facts

    def _value(self, kind: int) -> object:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._pass_over_list()
        if kind not in _NUMBERS:
            raise ValueError(f"it holds a value of unknown type {kind}")
        number = _NUMBERS[kind]
        (value,) = number.unpack_from(self._content, self._position)
        self._position += number.size
        return value

    def _pass_over_list(self) -> None:
        kind = self._unsigned(4)
        count = self._bounded(self._unsigned(8), _ELEMENTS_MAX, "elements")
        if kind == _STRING:
            for _ in range(count):
                length = self._unsigned(8)
                self._position += length
                self._require_inside()
        elif kind in _NUMBERS:
            self._position += count * _NUMBERS[kind].size
        else:
            raise ValueError(f"it holds a list of unknown type {kind}")
        self._require_inside()

    def _string(self) -> str:
        length = self._bounded(self._unsigned(8), _STRING_BYTES_MAX, "bytes of a string")
        self._position += length
        self._require_inside()
        return self._content[self._position - length : self._position].decode("utf-8", errors="replace")

    def _unsigned(self, size: int) -> int:
        self._position += size
        self._require_inside()
        return int.from_bytes(self._content[self._position - size : self._position], "little")

    def _require_inside(self) -> None:
        if self._position > len(self._content):
            raise ValueError("it ends in the middle of its head")

    @staticmethod
    def _bounded(count: int, most: int, what: str) -> int:
        if count > most:
            raise ValueError(f"it claims {count} {what}, and {most} is the most")
        return count
