"""Many questions to one endpoint, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

QUESTIONS_AT_ONCE = 8
"""Public endpoints allow some tens a second."""
T = TypeVar("T")


async def answers(questions: Sequence[Callable[[], Awaitable[T]]]) -> list[T]:
    """In the order of the questions. The first error is raised, and nothing is left running then."""
    found: list[T] = []
    for at in range(0, len(questions), QUESTIONS_AT_ONCE):
        some = questions[at : at + QUESTIONS_AT_ONCE]
        for answer in await asyncio.gather(*(ask() for ask in some), return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
            found.append(answer)
    return found
