"""Ollama's answers as no healthy Ollama gives them, and what is sent to it: the wire is played, the rest is real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from parallelix.node.runtimes import wire
from parallelix.node.runtimes.base import (
    Finished,
    Generation,
    ModelMissing,
    Probed,
    RuntimeFailed,
    RuntimeUnsupported,
    Sampling,
    TokenEntry,
)
from parallelix.node.runtimes.ollama import Ollama, PullProgress, judge_version

DIGEST = "ab" * 32
MODELFILE = f'# made by a test\nFROM /models/blobs/sha256-{DIGEST}\nTEMPLATE """x"""\nPARAMETER stop "<|end|>"\n'
SHOWN: dict[str, Any] = {
    "modelfile": MODELFILE,
    "parameters": 'num_ctx                        4096\nstop                           "<|end|>"',
    "template": "{{ .System }}{{ .Prompt }}",
    "model_info": {"general.architecture": "llama", "llama.context_length": 131_072},
    "capabilities": ["completion", "tools"],
}
DONE: dict[str, Any] = {"response": "", "done": True, "done_reason": "stop", "prompt_eval_count": 3, "eval_count": 2}


class Wire:
    """Answers as an Ollama with one model would, except for the one path that a test plays."""

    def __init__(
        self,
        play: Callable[[httpx.Request], httpx.Response] | None = None,
        *,
        version: str = "0.17.4",
        **shown: Any,
    ) -> None:
        self._play = play
        self._version = version
        self._shown = SHOWN | shown
        self.tags: list[dict[str, Any]] = [{"name": "one:latest", "digest": "m1", "size": 7}]
        self.requests: list[tuple[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append((request.url.path, json.loads(request.content) if request.content else None))
        match request.url.path:
            case "/api/version":
                return httpx.Response(200, json={"version": self._version})
            case "/api/tags":
                return httpx.Response(200, json={"models": self.tags})
            case "/api/show":
                return httpx.Response(200, json=self._shown)
            case _:
                assert self._play is not None
                return self._play(request)

    def sent(self, path: str) -> Any:
        return next(body for sent, body in self.requests if sent == path)


class CutStream(httpx.AsyncByteStream):
    """A body that breaks off, and tells whether it was closed."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self._chunks = chunks
        self._error = error
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk
        if self._error is not None:
            raise self._error
        await asyncio.sleep(3600)

    async def aclose(self) -> None:
        self.closed = True


def ollama(wire_played: Callable[[httpx.Request], httpx.Response]) -> Ollama:
    return Ollama("http://127.0.0.1:11434/", httpx.AsyncClient(transport=httpx.MockTransport(wire_played)))


def answering(*lines: dict[str, Any] | bytes) -> Callable[[httpx.Request], httpx.Response]:
    content = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    return lambda request: httpx.Response(200, content=content)


def token(text: str, logprob: float = -0.5, **fields: Any) -> dict[str, Any]:
    return {"response": text, "logprobs": [{"token": text, "logprob": logprob}]} | fields


async def generated(played: Wire, **work: Any) -> list[TokenEntry | Finished]:
    settings: dict[str, Any] = {"prompt": "hi", "sampling": Sampling(max_tokens=8)}
    generation = Generation(model="one", **(settings | work))
    return [item async for item in ollama(played).generate(generation)]


async def chatted(played: Wire, **work: Any) -> list[TokenEntry | Finished]:
    return await generated(played, **({"prompt": None, "messages": [{"role": "user", "content": "hi"}]} | work))


def texts(items: list[TokenEntry | Finished]) -> list[str]:
    return [item.text for item in items if isinstance(item, TokenEntry)]


async def test_a_model_is_known_by_the_digest_of_its_weights() -> None:
    (model,) = await ollama(Wire()).models()

    assert model.name == "one:latest"
    assert model.digest == DIGEST
    assert model.context_tokens == 8192
    assert model.size_bytes == 7
    assert model.features == ("chat", "logprobs", "probe", "tools", "grammar")


async def test_an_old_ollama_has_no_log_probabilities_to_give() -> None:
    played = Wire(answering({"response": "a"}, DONE), version="0.12.10")

    (model,) = await ollama(played).models()
    items = await generated(played)

    assert "logprobs" not in model.features
    assert items == [TokenEntry(text="a"), Finished(finish="stop", prompt_tokens=3, completion_tokens=2)]
    assert "logprobs" not in played.sent("/api/generate")


@pytest.mark.parametrize(
    "shown",
    [
        {"remote_host": "https://elsewhere.example"},
        {"modelfile": MODELFILE + "ADAPTER /models/blobs/sha256-" + "cd" * 32 + "\n"},
        {"modelfile": "FROM /models/weights.safetensors\n"},
    ],
    ids=["on another's server", "with an adapter", "not GGUF"],
)
async def test_what_is_not_the_node_s_own_weights_is_no_model(shown: dict[str, Any]) -> None:
    played = Wire(**shown)

    assert await ollama(played).models() == []
    with pytest.raises(ModelMissing):
        await generated(played)


async def test_a_remote_model_is_not_even_looked_at() -> None:
    played = Wire()
    played.tags[0]["remote_model"] = "big"

    assert await ollama(played).models() == []
    assert "/api/show" not in [path for path, _ in played.requests]


async def test_an_embedding_model_is_told_by_its_pooling_where_ollama_is_too_old_to_say() -> None:
    information = {"general.architecture": "bert", "bert.context_length": 512, "bert.pooling_type": 1}

    (model,) = await ollama(Wire(capabilities=None, model_info=information)).models()

    assert model.embeds
    assert model.features == ("embeddings",)
    assert model.context_tokens == 512


async def test_without_a_template_there_is_no_chat() -> None:
    played = Wire(template="{{ .Prompt }}")

    assert "chat" not in (await ollama(played).models())[0].features
    with pytest.raises(RuntimeUnsupported, match="chat"):
        await chatted(played)


async def test_a_model_that_thinks_whatever_it_is_told_is_not_probed() -> None:
    (model,) = await ollama(Wire(model_info={"general.architecture": "gptoss"})).models()

    assert "logprobs" in model.features
    assert "probe" not in model.features


async def probed(played: Wire, text: str, *positions: int, **work: Any) -> list[Probed]:
    settings: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "sampling": Sampling(max_tokens=8)}
    generation = Generation(model="one", **(settings | work))
    return [each async for each in ollama(played).probe(generation, text, positions)]


def rendering_and(*lines: dict[str, Any]) -> Callable[[httpx.Request], httpx.Response]:
    """Renders a chat when asked, and answers each other call with the next line."""
    rest = iter(lines)

    def play(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content).get("_debug_render_only"):
            return httpx.Response(200, json={"_debug_info": {"rendered_template": "<user>hi<assistant>"}})
        return httpx.Response(200, json=next(rest))

    return play


def predicted(count: int) -> dict[str, Any]:
    top = [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": -3.0}]
    line = {"done": True, "done_reason": "length", "prompt_eval_count": count, "eval_count": 1}
    return line | {"logprobs": [{"token": "b", "logprob": -3.0, "top_logprobs": top}]}


async def test_a_probe_asks_for_one_token_after_what_the_chat_call_renders() -> None:
    played = Wire(rendering_and(predicted(5), predicted(6)))

    work = {
        "tools": [{"type": "function", "function": {"name": "add"}}],
        "response_format": {"type": "json_object"},
        "sampling": Sampling(max_tokens=8, temperature=1.0, presence_penalty=1.0, top_logprobs=0),
    }

    first, second = await probed(played, "né", 0, 3, **work)

    entry = TokenEntry(text="a", logprob=-0.1, top=(("a", -0.1), ("b", -3.0)))
    assert (first, second) == (Probed(prompt_tokens=5, entry=entry), Probed(prompt_tokens=6, entry=entry))
    render, ordinary, raw = [body for path, body in played.requests if path in ("/api/chat", "/api/generate")]
    assert render == ordinary | {"_debug_render_only": True}
    assert raw["prompt"] == "<user>hi<assistant>né"
    assert raw["raw"] is True
    assert "messages" not in raw
    assert "tools" not in raw
    for body in (ordinary, raw):
        assert body["logprobs"] is True
        assert body["top_logprobs"] == 20
        assert body["options"]["num_predict"] == 1
        assert (body["options"]["temperature"], body["options"]["presence_penalty"]) == (0.0, 0.0)
        assert "format" not in body
        assert body["truncate"] is body["shift"] is body["stream"] is False


async def test_a_pick_that_shows_no_numbers_is_forced_to_another() -> None:
    played = Wire(rendering_and(predicted(5) | {"logprobs": None}, predicted(5)))

    (only,) = await probed(played, "", 0)

    assert only.entry.text == "a"
    again = [body for path, body in played.requests if path == "/api/generate"]
    assert [body["format"] for body in again] == [{"type": "integer"}]
    assert again[0]["prompt"] == "<user>hi<assistant>"
    assert again[0]["options"]["stop"] == []


async def test_an_ollama_that_does_not_tell_its_rendering_is_not_probed() -> None:
    with pytest.raises(RuntimeUnsupported, match="renders"):
        await probed(Wire(answering(predicted(5))), "n", 0, 1)


async def test_a_model_is_shown_once_and_again_when_its_manifest_is_another() -> None:
    played = Wire()
    runtime = ollama(played)

    await runtime.models()
    await runtime.models()
    played.tags[0]["digest"] = "m2"
    await runtime.models()

    assert [path for path, _ in played.requests].count("/api/show") == 2


async def test_a_model_pulled_again_is_seen_after_some_seconds() -> None:
    now = [0.0]
    played = Wire(answering(token("a"), DONE))
    client = httpx.AsyncClient(transport=httpx.MockTransport(played))
    runtime = Ollama("http://127.0.0.1:11434", client, monotonic_seconds=lambda: now[0])
    work = Generation(model=DIGEST, prompt="hi")
    assert [item async for item in runtime.generate(work)]

    played.tags[0]["name"] = "two:latest"
    now[0] = 6.0
    assert [item async for item in runtime.generate(work)]

    assert [body["model"] for path, body in played.requests if path == "/api/generate"] == ["one:latest", "two:latest"]


async def test_sampling_is_the_request_s_and_nothing_of_the_modelfile_s() -> None:
    played = Wire(answering(token("a"), DONE))

    await generated(
        played, sampling=Sampling(max_tokens=9, temperature=0.0, top_k=3, seed=-1, stop=("STOP",), presence_penalty=0.5)
    )

    request = played.sent("/api/generate")
    assert request["raw"] is True
    assert request["truncate"] is False
    assert request["shift"] is False
    assert request["options"] == {
        "num_ctx": 8192,
        "num_predict": 9,
        "temperature": 0.0,
        "top_p": 0.95,
        "top_k": 3,
        "min_p": 0.05,
        "repeat_penalty": 1.0,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.0,
        "seed": 2**31 - 1,
        "stop": ["<|end|>", "STOP"],
    }


async def test_penalties_are_refused_where_ollama_would_ignore_them() -> None:
    played = Wire(model_info={"general.architecture": "qwen3", "qwen3.context_length": 4096})

    with pytest.raises(RuntimeUnsupported, match="penalties"):
        await generated(played, sampling=Sampling(max_tokens=1, frequency_penalty=0.1))


async def test_a_thinking_model_is_told_not_to_and_its_thoughts_are_left_out() -> None:
    def thought(text: str) -> dict[str, Any]:
        return {"message": {"thinking": text}, "logprobs": [{"token": text, "logprob": -1.0}]}

    said = {"message": {"content": "Yes"}, "logprobs": [{"token": "Yes", "logprob": -0.1}]}
    played = Wire(answering(thought("Hm"), thought("."), said, DONE), capabilities=["completion", "thinking"])

    items = await chatted(played)

    assert played.sent("/api/chat")["think"] is False
    assert items == [
        TokenEntry(text="Yes", logprob=-0.1),
        Finished(finish="stop", prompt_tokens=3, completion_tokens=2),
    ]


async def test_a_schema_is_refused_where_ollama_would_never_apply_it() -> None:
    played = Wire(capabilities=["completion", "thinking"], parser="qwen3")

    assert "grammar" not in (await ollama(played).models())[0].features
    with pytest.raises(RuntimeUnsupported, match="grammar"):
        await generated(played, response_format={"type": "json_object"})


async def test_an_answer_that_is_no_json_after_all_is_a_failure() -> None:
    unfinished = Wire(answering(token('{"a":'), token(" 1"), DONE))
    prose = Wire(answering(token("Sure"), DONE))

    for played in (unfinished, prose):
        with pytest.raises(RuntimeUnsupported, match="JSON schema"):
            await generated(played, response_format={"type": "json_object"})


async def test_tokens_held_back_together_come_one_by_one() -> None:
    both = {
        "response": "\n\nYes",
        "logprobs": [{"token": "\n\n", "logprob": -0.1}, {"token": "Yes", "logprob": 0.0001}],
    }

    items = await generated(Wire(answering(both, DONE)))

    assert items[:2] == [TokenEntry(text="\n\n", logprob=-0.1), TokenEntry(text="Yes", logprob=0.0)]


async def test_tokens_of_one_character_share_its_text() -> None:
    face = {"response": "😀", "logprobs": [{"token": "\ufffd", "logprob": -float(number)} for number in range(4)]}

    items = await generated(Wire(answering(face, DONE)))

    assert texts(items) == ["", "", "", "😀"]


async def test_a_tool_call_has_openai_s_shape() -> None:
    call = {"function": {"name": "add", "arguments": {"a": 1, "wo": "Köln"}}}
    buffered = {"message": {"content": ""}, "logprobs": [{"token": "<tool", "logprob": -0.2}]}
    played = Wire(answering(buffered, {"message": {"tool_calls": [call, call]}}, DONE))

    items = await chatted(played, tools=[{"type": "function", "function": {"name": "add"}}])

    assert items[0] == TokenEntry(text="", logprob=-0.2)
    finished = items[-1]
    assert isinstance(finished, Finished)
    assert finished.finish == "tool_calls"
    assert finished.tool_calls == tuple(
        {"id": f"call_{n}", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "wo": "Köln"}'}}
        for n in range(2)
    )


async def test_earlier_calls_go_to_ollama_in_its_own_shape() -> None:
    call = {"id": "call_7", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    played = Wire(answering({"message": {"content": "2"}}, DONE))

    await chatted(
        played,
        messages=[
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_7", "content": [{"type": "text", "text": "2"}]},
        ],
    )

    assert played.sent("/api/chat")["messages"] == [
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"function": {"name": "add", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "2", "tool_name": "add"},
    ]


async def test_a_model_stopped_for_repeating_itself_is_finished_with_its_prompt_counted() -> None:
    def play(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if body.get("stream", True):
            return answering(*[token(" no")] * 32)(request)
        assert body["options"]["num_predict"] == 1
        return httpx.Response(200, json=DONE | {"prompt_eval_count": 11})

    items = await generated(Wire(play))

    assert items[-1] == Finished(finish="length", prompt_tokens=11, completion_tokens=32)


async def test_an_answer_that_ends_without_its_last_line_is_a_failure() -> None:
    with pytest.raises(RuntimeFailed, match="before it was done"):
        await generated(Wire(answering(token("a"), token("b"))))


async def test_a_stream_cut_in_the_middle_is_a_failure_after_the_entries_that_came() -> None:
    stream = CutStream(json.dumps(token("a")).encode() + b'\n{"resp', error=httpx.ReadError("reset"))
    shown: list[object] = []

    with pytest.raises(RuntimeFailed, match="broke off"):
        async for item in ollama(Wire(lambda _: httpx.Response(200, stream=stream))).generate(
            Generation(model="one", prompt="hi")
        ):
            shown.append(item)

    assert shown == [TokenEntry(text="a", logprob=-0.5)]


async def test_an_error_line_is_a_failure() -> None:
    with pytest.raises(RuntimeFailed, match="out of memory"):
        await generated(Wire(answering(token("a"), {"error": "CUDA error: out of memory"})))


async def test_a_line_without_end_is_given_up_at_the_bound() -> None:
    stream = CutStream(*[b"x" * 65_536] * 40)

    with pytest.raises(RuntimeFailed, match=str(wire.LINE_BYTES_MAX)):
        await generated(Wire(lambda _: httpx.Response(200, stream=stream)))
    assert stream.closed


@pytest.mark.parametrize(
    "line",
    [b"<html>\n", b'{"response": 1}\n', b'{"response": "a", "eval_count": -1}\n', b'{"response": "\xff"}\n', b"[]\n"],
)
async def test_a_line_that_is_not_ollama_s_is_a_failure(line: bytes) -> None:
    with pytest.raises(RuntimeFailed, match="not its API"):
        await generated(Wire(answering(line)))


@pytest.mark.parametrize(
    ("status", "content", "kind"),
    [
        (500, b'{"error": "llama runner process has terminated"}', RuntimeFailed),
        (503, b'{"error": "server busy, please try again"}', RuntimeFailed),
        (502, b"<html>bad gateway</html>", RuntimeFailed),
        (404, b'{"error": "model \'one\' not found"}', ModelMissing),
        (400, b'{"error": "one does not support tools"}', RuntimeUnsupported),
        (500, b'{"error": "invalid JSON schema in format"}', RuntimeUnsupported),
    ],
)
async def test_a_refusal_is_told_by_its_kind(status: int, content: bytes, kind: type[RuntimeFailed]) -> None:
    with pytest.raises(RuntimeFailed) as caught:
        await generated(Wire(lambda _: httpx.Response(status, content=content)))
    assert type(caught.value) is kind


async def test_a_long_refusal_is_repeated_in_part_only() -> None:
    with pytest.raises(RuntimeFailed) as caught:
        await generated(Wire(lambda _: httpx.Response(500, json={"error": "x" * 100_000})))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("quoted", ['{"content": "canary"}', "'canary'", '"canary"', "`canary`", "[canary]"])
async def test_what_a_refusal_quotes_of_the_request_is_not_repeated(quoted: str) -> None:
    message = f"Failed to parse messages: Missing role in {quoted}"

    for played in (Wire(lambda _: httpx.Response(500, json={"error": message})), Wire(answering({"error": message}))):
        with pytest.raises(RuntimeFailed, match="Missing role in") as caught:
            await generated(played)
        assert "canary" not in str(caught.value)


async def test_loading_instead_of_answering_is_a_failure() -> None:
    with pytest.raises(RuntimeFailed, match="load"):
        await generated(Wire(answering({"done": True, "done_reason": "load"})))


async def test_nobody_at_the_address_is_said_with_the_way_out() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with pytest.raises(RuntimeFailed, match=r"127\.0\.0\.1:11434.*ollama serve"):
        await ollama(refuse).version()


async def test_giving_up_on_an_answer_closes_its_connection() -> None:
    stream = CutStream(json.dumps(token("a")).encode() + b"\n")
    items = ollama(Wire(lambda _: httpx.Response(200, stream=stream))).generate(Generation(model="one", prompt="hi"))

    await anext(items)
    assert not stream.closed
    await items.aclose()

    assert stream.closed


async def test_cancelling_whoever_waits_for_the_next_token_closes_the_connection() -> None:
    stream = CutStream(json.dumps(token("a")).encode() + b"\n")
    first = asyncio.Event()

    async def read() -> None:
        played = Wire(lambda _: httpx.Response(200, stream=stream))
        async for _ in ollama(played).generate(Generation(model="one", prompt="hi")):
            first.set()

    reader = asyncio.create_task(read())
    await first.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader

    assert stream.closed


async def test_fewer_embeddings_than_texts_is_a_failure() -> None:
    played = Wire(lambda _: httpx.Response(200, json={"embeddings": [[0.5]]}), capabilities=["embedding"])

    with pytest.raises(RuntimeFailed, match="1 embeddings for 2 texts"):
        await ollama(played).embed("one", ["a", "b"])


async def test_pulling_tells_each_step_until_success() -> None:
    played = Wire(
        answering(
            {"status": "pulling manifest"},
            {"status": "pulling abc", "digest": "sha256:abc", "total": 100, "completed": 40},
            {"status": "success"},
        )
    )

    steps = [step async for step in ollama(played).pull("llama3.2")]

    assert played.sent("/api/pull") == {"model": "llama3.2"}
    assert steps[1] == PullProgress(status="pulling abc", digest="sha256:abc", total=100, completed=40)
    assert steps[-1].status == "success"


async def test_why_a_model_cannot_be_pulled_is_told_with_what_it_quotes() -> None:
    why = 'Get "https://registry.ollama.ai/v2": no such host'
    with pytest.raises(RuntimeFailed, match="no such host"):
        async for _ in ollama(Wire(answering({"error": why}))).pull("nothing"):
            pass


@pytest.mark.parametrize(
    ("last", "words"), [({"error": "file does not exist"}, "does not exist"), ({"status": "verifying"}, "verifying")]
)
async def test_a_pull_that_does_not_succeed_is_a_failure(last: dict[str, Any], words: str) -> None:
    with pytest.raises(RuntimeFailed, match=words):
        async for _ in ollama(Wire(answering({"status": "pulling manifest"}, last))).pull("nothing"):
            pass


@pytest.mark.parametrize(
    ("version", "returns_logprobs", "safe"),
    [
        ("0.12.10", False, False),
        ("0.12.11", True, False),
        ("0.17.0", True, False),
        ("0.17.1", True, True),
        ("0.18.0-rc1", True, True),
        ("1.0.0", True, True),
        ("0.0.0", False, False),
        ("unknown", False, False),
    ],
)
def test_versions_are_judged(version: str, returns_logprobs: bool, safe: bool) -> None:
    facts = judge_version(version)

    assert (facts.returns_logprobs, facts.safe) == (returns_logprobs, safe)
    assert len(facts.advice) == (not returns_logprobs) + (not safe)
