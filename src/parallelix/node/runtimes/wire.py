"""Reading another program's HTTP answers: bounded, and with its failures turned into ours once, here."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager

import httpx

from parallelix.node.runtimes.base import RuntimeFailed

# One token with 20 alternatives takes 4 KiB; a page of held-back text fits 200 times.
LINE_BYTES_MAX = 1024 * 1024
# How much of a foreign error is repeated in ours.
TOLD_CHARACTERS_MAX = 200
_QUOTATION = re.compile(r"""[{\["'`<«“]""")
# The caller's deadline ends a generation that hangs: a model may take minutes to load before its first byte.
GENERATION_TIMEOUT = httpx.Timeout(connect=5, read=None, write=30, pool=None)
QUESTION_TIMEOUT = httpx.Timeout(connect=5, read=30, write=30, pool=None)


@contextmanager
def foreign_errors(runtime: str, *, way_out: str) -> Generator[None]:
    """Raise RuntimeFailed where HTTP fails."""
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise RuntimeFailed(f"{runtime} cannot be reached ({error}): {way_out}") from error
    except httpx.TimeoutException as error:
        raise RuntimeFailed(f"{runtime} did not answer in time: {way_out}") from error
    except (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL) as error:
        raise RuntimeFailed(f"{runtime} broke off its answer ({error or type(error).__name__}): {way_out}") from error


async def lines(response: httpx.Response, *, bytes_max: int = LINE_BYTES_MAX) -> AsyncGenerator[bytes]:
    """The answer's lines that are not empty. Raises RuntimeFailed at a line longer than `bytes_max`."""
    pending = b""
    async for chunk in response.aiter_bytes():
        *whole, pending = (pending + chunk).split(b"\n")
        for line in whole:
            if len(line) > bytes_max:
                raise _too_long(bytes_max)
            if line.strip():
                yield line
        if len(pending) > bytes_max:
            raise _too_long(bytes_max)
    if pending.strip():
        yield pending


def _too_long(bytes_max: int) -> RuntimeFailed:
    return RuntimeFailed(
        f"the runtime sent a line above {bytes_max} bytes: it is at fault, or not the runtime it seems"
    )


async def body(response: httpx.Response, *, bytes_max: int) -> bytes:
    """The whole answer. Raises RuntimeFailed above `bytes_max`."""
    read = bytearray()
    async for chunk in response.aiter_bytes():
        read += chunk
        if len(read) > bytes_max:
            raise RuntimeFailed(f"the runtime's answer is above {bytes_max} bytes: it is at fault")
    return bytes(read)


def told(message: str) -> str:
    """What may be repeated of a foreign error: the words before any quotation, which may be of the request itself and
    would end in a log."""
    words = " ".join(_QUOTATION.split(message, maxsplit=1)[0].split()).rstrip(" :=(,;")
    return words[:TOLD_CHARACTERS_MAX] or "it does not say why in words that may be repeated"
