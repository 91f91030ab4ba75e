"""Every way in which a prompt can come in and a request can end, with a fresh canary in each place that takes text.

A canary is a random string that is nowhere else in the world, so finding it means that the prompt was kept.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import string
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bench.echo_runtime import MODEL
from bench.haystack import Haystack
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.sign_in import SignIn
from parallelix.protocol.signing import NodeKey

CANARY_CHARACTERS = 24
FINAL = frozenset({"completed", "failed", "expired", "cancelled"})
END_SECONDS = 180.0
"""A unit that a busy machine lets pass is offered again after ten seconds, a few times over."""
LARGE_BYTES = 5 * 1024 * 1024
"""Above what a body may have."""


class Requester:
    """Sends canaries through a relay, and counts how its requests end."""

    def __init__(
        self, url: str, api_key: str, poor_key: str, wallet: NodeKey, haystack: Haystack, secrets: Haystack
    ) -> None:
        self.outcomes: Counter[str] = Counter()
        self.completed: list[tuple[str, dict[str, Any]]] = []
        """(request id, result) of those with a result."""
        self.poor_key = poor_key
        self.wallet = wallet
        """Of the same account as the API key."""
        self.secrets = secrets
        self._haystack = haystack
        self._http = aiohttp.ClientSession(
            url,
            headers={"authorization": f"Bearer {api_key}"},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=END_SECONDS),
        )

    async def aclose(self) -> None:
        await self._http.close()

    def mint(self, place: str) -> str:
        letters = string.ascii_lowercase + string.digits
        canary = "c" + "".join(secrets.choice(letters) for _ in range(CANARY_CHARACTERS - 1))
        self._haystack.add(place, canary)
        return canary

    def text(self, place: str, wish: str = "") -> str:
        """A prompt around a canary, which begins with what the runtime is to do."""
        words = f"tell me about {self.mint(place)} in a few words please"
        return f"{wish} {words}" if wish else words

    async def call(
        self, method: str, path: str, *, expect: int, body: Any = None, raw: bytes | None = None, **headers: str
    ) -> bytes:
        """Raises AssertionError unless the answer's status is the expected one."""
        data = json.dumps(body).encode() if body is not None else raw
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            given = {"content-type": "application/json", **given}
        async with self._http.request(method, path, data=data, headers=given) as answer:
            told = await answer.read()
            assert answer.status == expect, (method, path[:60], answer.status, told[:300])
            return told

    async def native(self, expect: str, **body: Any) -> dict[str, Any]:
        """Creates a request, follows it to its end, and looks at it in every way there is."""
        created = json.loads(await self.call("POST", "/v1/requests", expect=201, body={"model": MODEL, **body}))
        return await self.to_end(created["id"], expect)

    async def view(self, request_id: str) -> dict[str, Any]:
        return json.loads(await self.call("GET", f"/v1/requests/{request_id}", expect=200))

    async def to_end(self, request_id: str, expect: str) -> dict[str, Any]:
        path = f"/v1/requests/{request_id}"
        await self.call("GET", f"{path}/events?detached=true", expect=200)
        view = await self.view(request_id)
        assert view["state"] == expect, view
        self.outcomes[expect] += 1
        await self.call("GET", f"{path}/events", expect=200, last_event_id="1.5")
        if view["record_hash"]:
            await self.call("GET", f"{path}/receipt", expect=200)
            await self.call("GET", f"/v1/records/{view['record_hash']}", expect=200)
        if view["result"]:
            self.completed.append((request_id, view["result"]))
        return view

    async def started(self, request_id: str) -> None:
        """Returns once it has said something."""
        async with self._http.get(f"/v1/requests/{request_id}/events?detached=true") as answer:
            async for line in answer.content:
                if line.startswith(b"event: delta"):
                    answer.close()
                    return

    async def leave_stream(self, body: dict[str, Any]) -> str:
        """Opens a stream, reads its first words and closes the connection. The request's id."""
        async with self._http.post("/v1/chat/completions", json={**body, "stream": True}) as answer:
            async for line in answer.content:
                if b'"content":"hold' in line:
                    break
            answer.close()
            return answer.headers["x-parallelix-request"]


async def send_all(requester: Requester) -> None:
    """Every case. Those that wait for a timer run beside the others; cheating nodes come last, since that costs them
    their place."""
    await asyncio.gather(*(case(requester) for case in CASES))
    for cheat in ("lie", "misquote"):
        await requester.native("failed", messages=[user(requester.text(f"answer of a {cheat}", cheat))])
        requester.outcomes["rejected"] += 1
    await look_around(requester)


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def conversation(requester: Requester, case: str) -> list[dict[str, Any]]:
    """A chat with a canary in each of its places."""
    call_id = requester.mint(f"{case}: tool call id")
    function = {
        "name": requester.mint(f"{case}: called tool's name"),
        "arguments": json.dumps({"q": requester.mint(f"{case}: arguments")}),
    }
    call = {"id": call_id, "type": "function", "function": function}
    return [
        {"role": "system", "content": requester.text(f"{case}: system message")},
        {"role": "user", "content": requester.text(f"{case}: first message"), "name": requester.mint(f"{case}: name")},
        {"role": "assistant", "content": requester.text(f"{case}: assistant's message"), "tool_calls": [call]},
        {"role": "tool", "content": requester.text(f"{case}: tool's message"), "tool_call_id": call_id},
        user(requester.text(f"{case}: last message")),
    ]


def tools(requester: Requester, case: str) -> list[dict[str, Any]]:
    parameters = {"type": "object", "properties": {requester.mint(f"{case}: tool's parameter"): {"type": "string"}}}
    function = {
        "name": requester.mint(f"{case}: tool's name"),
        "description": requester.text(f"{case}: tool's description"),
        "parameters": parameters,
    }
    return [{"type": "function", "function": function}]


def response_format(requester: Requester, case: str) -> dict[str, Any]:
    properties = {requester.mint(f"{case}: schema's property"): {"enum": [requester.mint(f"{case}: schema's enum")]}}
    schema = {"type": "object", "properties": properties}
    named = {"name": requester.mint(f"{case}: schema's name"), "schema": schema}
    return {"type": "json_schema", "json_schema": named}


async def native_chat(requester: Requester) -> None:
    case = "native chat"
    await requester.native(
        "completed",
        messages=conversation(requester, case),
        response_format=response_format(requester, case),
        stop=[requester.mint(f"{case}: stop")],
        top_logprobs=2,
    )


async def native_tools(requester: Requester) -> None:
    case = "native tools"
    await requester.native("completed", messages=conversation(requester, case), tools=tools(requester, case))


async def native_completion(requester: Requester) -> None:
    await requester.native("completed", prompt=requester.text("native completion"))


async def native_embedding(requester: Requester) -> None:
    await requester.native("completed", input=[requester.text("native embedding"), requester.text("second input")])


async def sealed_result(requester: Requester) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072).public_key()
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo).decode()
    await requester.native("completed", messages=[user(requester.text("sealed result"))], requester_public_key=pem)


async def openai_chat(requester: Requester) -> None:
    for stream in (False, True):
        case = "OpenAI stream" if stream else "OpenAI chat"
        body = {
            "model": MODEL,
            "messages": conversation(requester, case),
            "response_format": response_format(requester, case),
            "stop": requester.mint(f"{case}: stop"),
            "user": requester.mint(f"{case}: user"),
            "metadata": {requester.mint(f"{case}: metadata's name"): requester.mint(f"{case}: metadata")},
            "logprobs": True,
            "top_logprobs": 2,
            "stream": stream,
        }
        await requester.call("POST", "/v1/chat/completions", expect=200, body=body)
        await requester.call("POST", "/v1/chat/completions", expect=200, body={**body, "tools": tools(requester, case)})
        requester.outcomes["completed"] += 2


async def openai_others(requester: Requester) -> None:
    for stream in (False, True):
        body = {"model": MODEL, "prompt": requester.text("OpenAI completion"), "stream": stream}
        await requester.call("POST", "/v1/completions", expect=200, body=body)
    body = {"model": MODEL, "input": requester.text("OpenAI embedding"), "user": requester.mint("embedding: user")}
    await requester.call("POST", "/v1/embeddings", expect=200, body=body)
    requester.outcomes["completed"] += 3


async def failures(requester: Requester) -> None:
    for wish in ("break", "crash"):
        await requester.native("failed", messages=[user(requester.text(f"a runtime that does {wish}", wish))])
        body = {"model": MODEL, "messages": [user(requester.text(f"OpenAI: {wish}", wish))]}
        await requester.call("POST", "/v1/chat/completions", expect=502, body=body)
        await requester.call("POST", "/v1/chat/completions", expect=200, body={**body, "stream": True})
        requester.outcomes["failed"] += 2


async def cancelled(requester: Requester) -> None:
    body = {"model": MODEL, "messages": [user(requester.text("cancelled", "hold"))]}
    created = json.loads(await requester.call("POST", "/v1/requests", expect=201, body=body))
    await requester.started(created["id"])
    await requester.call("DELETE", f"/v1/requests/{created['id']}", expect=200)
    await requester.to_end(created["id"], "cancelled")


async def left(requester: Requester) -> None:
    request_id = await requester.leave_stream(
        {"model": MODEL, "messages": [user(requester.text("a client that left", "hold"))]}
    )
    # Whoever followed it now would keep it alive.
    async with asyncio.timeout(END_SECONDS):
        while (await requester.view(request_id))["state"] not in FINAL:  # noqa: ASYNC110
            await asyncio.sleep(0.1)
    await requester.to_end(request_id, "cancelled")


async def expired(requester: Requester) -> None:
    messages = [user(requester.text("expired"))]
    await requester.native("expired", messages=messages, hardware_tier=4, queue_seconds=0.2)
    body = {"model": MODEL, "messages": messages, "parallelix": {"hardware_tier": 4, "queue_seconds": 0.2}}
    await requester.call("POST", "/v1/chat/completions", expect=504, body=body)
    requester.outcomes["expired"] += 1


async def late(requester: Requester) -> None:
    late_prompt = user(requester.text("late", "hold"))
    await requester.native("failed", messages=[late_prompt], max_tokens=12, deadline_seconds=1, queue_seconds=30)


async def quoted(requester: Requester) -> None:
    await requester.call("POST", "/v1/quote", expect=200, body={"model": MODEL, "prompt": requester.text("quote")})


async def refused(requester: Requester) -> None:
    """Well-formed, and yet not admitted."""
    mint, prompt = requester.mint, requester.text("refused")
    plain = {"model": MODEL, "prompt": prompt}
    bodies: list[tuple[int, dict[str, Any]]] = [
        (404, {**plain, "model": mint("model")}),
        (400, {**plain, "workload_class": mint("workload_class")}),
        (403, {**plain, "credit_account": mint("credit_account")}),
        (400, {**plain, mint("unknown field"): mint("its value")}),
        (400, {**plain, "requester_public_key": mint("requester_public_key")}),
        (400, {**plain, "priority": mint("priority")}),
        (400, {**plain, "max_tokens": 2**20}),
        (400, {"model": MODEL, "messages": [{"role": mint("role"), "content": prompt}]}),
        (400, {"model": MODEL, "messages": [user(prompt)], "tools": [{"type": mint("tool's type")}]}),
        (400, {"model": MODEL, "messages": [user(prompt)], "response_format": {"type": mint("format's type")}}),
        (400, {"model": MODEL, "prompt": " ".join((prompt, "word " * 40_000))}),
    ]
    for status, body in bodies:
        await requester.call("POST", "/v1/requests", expect=status, body=body)
        said = [user(body.get("prompt", prompt))]
        chat = {"messages": said, **{name: value for name, value in body.items() if name != "prompt"}}
        await requester.call("POST", "/v1/chat/completions", expect=400 if status == 403 else status, body=chat)
        requester.outcomes["refused"] += 2
    poor = f"Bearer {requester.poor_key}"
    await requester.call("POST", "/v1/requests", expect=402, body=plain, authorization=poor)
    key = "idempotent-" + "a" * 8
    for status, text in ((201, prompt), (422, requester.text("another body for one key"))):
        body = {**plain, "prompt": text}
        await requester.call("POST", "/v1/requests", expect=status, body=body, idempotency_key=key)
    requester.outcomes["refused"] += 2


async def malformed(requester: Requester) -> None:
    mint = requester.mint
    prompt = requester.text("malformed").encode()
    canary = mint("repeated field").encode()
    raws: list[tuple[int, bytes]] = [
        (400, b'{"model": "echo", "prompt": "%s' % prompt),
        (400, prompt),
        (400, b'{"model": "echo", "prompt": {"%s": 1}}' % mint("object for a text").encode()),
        (400, b'{"model": "echo", "prompt": ["%s", 5]}' % mint("list of both").encode()),
        (400, b'{"model": "echo", "prompt": "a", "%s": 1, "%s": 2}' % (canary, canary)),
        (400, b'{"model": "echo", "prompt": "%s \xff\xfe"}' % mint("no UTF-8").encode()),
        (400, b'{"model": "echo", "prompt": "a", "stop": %s"%s"%s}'
         % (b"[" * 200, mint("nested").encode(), b"]" * 200)),
        (400, b'{"model": "echo", "prompt": "%s\\ud800"}' % mint("half a character").encode()),
        (400, b'{"model": "echo", "prompt": "a", "seed": "%s"}' % mint("text for a number").encode()),
    ]  # fmt: skip
    for status, raw in raws:
        for path in ("/v1/requests", "/v1/chat/completions", "/v1/completions", "/v1/quote"):
            await requester.call("POST", path, expect=status, raw=raw)
            requester.outcomes["malformed"] += 1
    large = json.dumps({"model": MODEL, "prompt": mint("too large") * (LARGE_BYTES // CANARY_CHARACTERS)}).encode()
    await requester.call("POST", "/v1/requests", expect=413, raw=large)
    text = {"content_type": f"text/{mint('content type')}"}
    await requester.call("POST", "/v1/requests", expect=415, raw=prompt, **text)
    packed = {"content_encoding": mint("content encoding")}
    await requester.call("POST", "/v1/requests", expect=415, raw=prompt, **packed)
    stranger = f"Bearer prlx_{mint('unknown API key')}"
    await requester.call("POST", "/v1/requests", expect=401, raw=prompt, authorization=stranger)
    for path in (
        "/v1/requests/{}",
        "/v1/requests/{}/events",
        "/v1/models/{}",
        "/v1/records/{}",
        "/v1/batches/{}",
        "/{}",
    ):
        await requester.call("GET", path.format(mint("path")), expect=404)
    await requester.call("GET", f"/v1/requests?state={mint('query')}", expect=400)
    await requester.call("GET", f"/v1/requests?cursor={mint('cursor')}", expect=400)
    await requester.call("GET", "/healthz", expect=200, x_note=mint("header"))


async def wallet(requester: Requester) -> None:
    """A sign-in, what it makes, and what is refused of it."""
    nonce = json.loads(await requester.call("POST", "/v1/auth/nonce", expect=200))
    message = SignIn(
        domain=nonce["domain"], address=requester.wallet.address, statement=requester.mint("statement"),
        uri=nonce["uri"], chain_id=nonce["chain_id"], nonce=nonce["nonce"], issued_at=nonce["issued_at"],
    ).text  # fmt: skip
    body = {"message": message, "signature": to_hex(requester.wallet.sign(message))}
    tampered = body | {"message": message + f"\nRequest ID: {requester.mint('request id')}"}
    await requester.call("POST", "/v1/auth/sign-in", expect=401, body=tampered)
    await requester.call("POST", "/v1/auth/sign-in", expect=400, body=body | {"message": requester.mint("no message")})
    session = json.loads(await requester.call("POST", "/v1/auth/sign-in", expect=201, body=body))
    await requester.call("POST", "/v1/auth/sign-in", expect=401, body=body)
    add_key("a session's token", session["token"], requester.secrets)
    owner = f"Bearer {session['token']}"
    made = json.loads(
        await requester.call("POST", "/v1/keys", expect=201, body={"name": "canary"}, authorization=owner)
    )
    add_key("a key that a wallet made", made["api_key"], requester.secrets)
    await requester.call("GET", "/v1/account", expect=200, authorization=f"Bearer {made['api_key']}")
    await requester.call("POST", "/v1/account/clearance", expect=409, body={"amount_wei": "1"}, authorization=owner)
    await requester.call("POST", "/v1/requests", expect=403, body={"model": MODEL, "prompt": "a"}, authorization=owner)
    await requester.call("GET", "/v1/keys", expect=200, authorization=owner)
    for key_id in (made["id"], session["id"]):
        await requester.call("DELETE", f"/v1/keys/{key_id}", expect=200, authorization=owner)
    requester.outcomes["refused"] += 5


def add_key(name: str, secret: str, haystack: Haystack) -> None:
    # Its digest is what a store keeps instead of it.
    haystack.add(name, secret, digests=False)


CASES: tuple[Callable[[Requester], Awaitable[None]], ...] = (
    native_chat, native_tools, native_completion, native_embedding, sealed_result, openai_chat, openai_others, failures,
    cancelled, left, expired, late, quoted, refused, malformed,
    wallet,
)  # fmt: skip


async def look_around(requester: Requester) -> None:
    """Whatever else a requester or the public may read."""
    for path in ("/v1/requests?limit=100", "/v1/account", "/v1/keys", "/v1/models", f"/v1/models/{MODEL}",
                 "/v1/network", "/healthz", "/readyz", "/metrics", "/schema", "/schema/openapi.json",
                 "/v1/batches/0"):  # fmt: skip
        await requester.call("GET", path, expect=200)
    for path in ("/operator/heartbeat", "/operator/attach", "/operator/result", "/operator/ack"):
        await requester.call("POST", path, expect=400, body={})
