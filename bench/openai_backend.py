"""`python -m bench.openai_backend PORT`: an OpenAI-shaped server that answers at once, always the same.

It is what a proxy stands in front of when the proxy's own cost is to be seen. The model `broken` gets an error.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import uvicorn

BROKEN = "broken"
TEXT = "many people's machines, one service many people's machines, one service many"
_ANSWER = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "instant",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 8, "completion_tokens": 16, "total_tokens": 24},
    }
).encode()
_ERROR = b'{"error": {"message": "out of order", "type": "server_error", "code": "broken"}}'


async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    broken = f'"{BROKEN}"'.encode() in body
    status, answer = (500, _ERROR) if broken else (200, _ANSWER)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def main(arguments: list[str]) -> int:
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(arguments[0]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="error",
        access_log=False,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
