"""Loaded by schemathesis: good cases name a model that exists, so that they reach a node and not only a refusal.

Cases that are wrong on purpose are left as they are.
"""

from __future__ import annotations

import hashlib
import os
from typing import Any, cast

import msgspec
import schemathesis
from schemathesis import GenerationMode, HookContext

from bench.instant_runtime import MODEL

KEY = "Idempotency-Key"
KINDS = ("messages", "prompt", "input")
"""The document cannot say that a native request has exactly one of these."""
ANOTHER_KEY = "key_" + "0" * 16
TOKENS_MAX = 64
"""Nothing is learnt from longer answers."""


def map_case(context: HookContext, case: Any) -> Any:
    body: Any = case.body
    if case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE and isinstance(body, dict):
        make_possible(case.path, cast("dict[str, Any]", body))
        if case.headers and KEY in case.headers:
            # The document's own examples would give one key to many bodies, and get one answer.
            case.headers[KEY] = hashlib.sha256(msgspec.json.encode([case.path, body])).hexdigest()
    return case


def make_possible(path: str, body: dict[str, Any]) -> None:
    """Mends what the document cannot say: rules between fields, which models there are, whose account it is."""
    if "model" in body:
        body["model"] = MODEL
    if path in ("/v1/requests", "/v1/quote"):
        _make_one_kind(body)
    body.pop("credit_account", None)
    _dictionary(body.get("parallelix")).pop("credit_account", None)
    body.pop("requester_public_key", None)
    body.pop("max_completion_tokens", None)
    if body.get("max_tokens"):
        body["max_tokens"] = 1 + body["max_tokens"] % TOKENS_MAX
    if body.get("stream_options"):
        body["stream"] = True
    if body.get("top_logprobs") and "logprobs" in body:
        body["logprobs"] = True
    if body.get("messages"):
        body["messages"] = [_possible_message(each) for each in body["messages"]]


def _dictionary(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _possible_message(message: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": message.get("content") or "Hello"}


def _make_one_kind(body: dict[str, Any]) -> None:
    given = [name for name in KINDS if body.get(name)]
    for name in given[1:]:
        del body[name]
    if not given:
        body["messages"] = [{"role": "user", "content": "Hello"}]
    if "input" in given[:1]:
        for name in [*body]:
            if name not in ("model", "input", "hardware_tier", "priority"):
                del body[name]
    elif given[:1] == ["prompt"]:
        body.pop("tools", None)


def before_call(context: HookContext, case: Any, kwargs: dict[str, Any]) -> None:
    """The key that everything is called with stays: without it nothing more would be learnt."""
    if case.method == "DELETE" and case.path == "/v1/keys/{id}":
        spare = os.environ.get("PARALLELIX_FUZZ_KEY_ID", "")
        if case.path_parameters.get("id") == spare:
            case.path_parameters["id"] = ANOTHER_KEY


cast("Any", schemathesis).hook(map_case)
cast("Any", schemathesis).hook(before_call)
