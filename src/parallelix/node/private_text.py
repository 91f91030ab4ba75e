"""Keeps prompts and answers out of what an operator or a coordinator is told about a failure.

A runtime's error may quote what it was given, and its words are worth keeping otherwise ("requires more system memory
(5.6 GiB) than is available"). So a message that shares a stretch of text with the prompt or answer is withheld whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from parallelix.protocol.work import Payload

STRETCH_CHARACTERS = 12
"""About two words: less says little of a prompt, more would let names and numbers through."""
SHORTEST_CHARACTERS = 4
"""A prompt shorter than a stretch is looked for whole, down to one word."""
MESSAGE_CHARACTERS_MAX = 200

WITHHELD = "the runtime's message quotes the request or the answer, so it is withheld"

_UNICODE_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_ESCAPE = re.compile(r"\\[nrtbf\"'/\\]")
_BETWEEN = re.compile(r"[\W_]+")


def without_private_text(message: str, private_texts: Iterable[str]) -> str:
    """The message on one line, cut to its bound; or a sentence instead of it."""
    shown = _flat(_ESCAPE.sub(" ", _UNICODE_ESCAPE.sub(lambda found: chr(int(found[1], 16)), message)))
    stretches = [shown[start : start + STRETCH_CHARACTERS] for start in range(len(shown) - STRETCH_CHARACTERS + 1)]
    for text in private_texts:
        private = _flat(text)
        whole = SHORTEST_CHARACTERS <= len(private) <= STRETCH_CHARACTERS and private in shown
        if whole or any(stretch in private for stretch in stretches):
            return WITHHELD
    return " ".join(message.split())[:MESSAGE_CHARACTERS_MAX]


def private_texts_of(payload: Payload) -> Iterator[str]:
    yield payload.prompt
    yield from payload.inputs
    yield payload.tools
    yield payload.response_format
    yield from payload.sampling.stop
    if payload.probes is not None:
        yield payload.probes.text
    for message in payload.messages:
        yield message.content
        yield message.name
        for call in message.tool_calls:
            yield call.name
            yield call.arguments


def _flat(text: str) -> str:
    """Letters and digits in one case: however a text is quoted or wrapped, these follow each other."""
    return _BETWEEN.sub("", text).casefold()
