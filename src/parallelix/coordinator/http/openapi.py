"""The OpenAPI document and its page, from the table of endpoints and the very Structs that read and write bodies."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from parallelix.coordinator import spec as specs
from parallelix.coordinator.errors import ApiError
from parallelix.coordinator.http.endpoints import Endpoint, Parameter
from parallelix.coordinator.http.openai_answers import ErrorAnswer
from parallelix.coordinator.http.public import Health
from parallelix.protocol import records
from parallelix.protocol.messages import ErrorBody

_VERSION = version("parallelix")
_PATH_PARAMETER = re.compile(r"\{(\w+)\}")
NEVER_EMPTY = {"prompt", "input", "stop"}
_SECURITY = "An API key, prlx_…, or the token of a sign-in; each call needs one of its scopes."
_DESCRIPTION = (
    "Requests to the network, and what anyone may read of it. Every path also lies below `/api`. Amounts are decimal "
    "strings in wei, times Unix milliseconds."
)


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    named = {kind for each in endpoints for kind in (each.body, each.answer, each.other_answer, *each.events)}
    types = {kind for kind in named if kind is not None}
    types |= {ErrorBody, ErrorAnswer, Health, specs.Tool, specs.ResponseFormat}
    ordered = sorted(types, key=lambda kind: (kind.__name__, kind.__module__))
    references, components = msgspec.json.schema_components(ordered, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(ordered, references, strict=True))
    _refine(components, schema_of)
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {"title": "ParalleliX", "version": _VERSION, "description": _DESCRIPTION},
        "servers": [{"url": "/"}, {"url": "/api"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": _SECURITY}},
        },
    }


def _refine(components: dict[str, Any], schema_of: dict[type[msgspec.Struct], Any]) -> None:
    """Says what is checked after the body is read, because it is refused with better words or may be anything."""
    for body in ("ChatBody", "CreateRequest"):
        fields = components[body]["properties"]
        fields["tools"]["anyOf"][0]["items"] = schema_of[specs.Tool]
        fields["response_format"]["anyOf"][0] = schema_of[specs.ResponseFormat]
    for body in ("ChatBody", "CompletionBody", "EmbeddingBody", "CreateRequest"):
        for name in NEVER_EMPTY & components[body]["properties"].keys():
            _forbid_empty(components[body]["properties"][name])
    components["RecordPage"]["properties"]["data"]["items"] = {
        "anyOf": [schema_of[records.ExecutionRecord], schema_of[records.AuditRecord]]
    }


def _forbid_empty(schema: dict[str, Any]) -> None:
    for each in (schema, *schema.get("anyOf", ())):
        if each.get("type") == "string":
            each["minLength"] = 1
        elif each.get("type") == "array":
            each["items"]["minLength"] = 1


def _operation(endpoint: Endpoint, schema_of: dict[type[msgspec.Struct], Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "tags": [endpoint.tag],
        "parameters": [*map(_path_parameter, _PATH_PARAMETER.findall(endpoint.path)),
                       *map(_parameter, endpoint.parameters)],
        "responses": _responses(endpoint, schema_of),
    }  # fmt: skip
    if endpoint.needs_key:
        operation["security"] = [{"key": []}]
    if endpoint.body is not None:
        operation["requestBody"] = {"required": True, "content": _json(schema_of[endpoint.body])}
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    words = re.findall(r"\w+", endpoint.path.replace("/v1", ""))
    return "_".join([endpoint.method.lower(), *words])


def _responses(endpoint: Endpoint, schema_of: dict[type[msgspec.Struct], Any]) -> dict[str, Any]:
    answers = [schema_of[kind] for kind in (endpoint.answer, endpoint.other_answer) if kind is not None]
    content: dict[str, Any] = _json({"anyOf": answers} if len(answers) > 1 else answers[0]) if answers else {}
    if endpoint.events:
        content["text/event-stream"] = _event_content(endpoint, schema_of)
    if not content:
        content["text/plain"] = {"schema": {"type": "string"}}
    success: dict[str, Any] = {"description": endpoint.summary, "content": content}
    if endpoint.links:
        success["links"] = {
            name: {"operationId": name, "parameters": {"id": "$response.body#/id"}} for name in endpoint.links
        }
    responses: dict[str, Any] = {str(endpoint.status): success}
    error = schema_of[ErrorAnswer if endpoint.in_openai_shape else ErrorBody]
    for status, codes in _codes_by_status(endpoint.errors):
        responses[str(status)] = {"description": ", ".join(codes), "content": _json(error)}
    if endpoint.path == "/readyz":
        responses["503"] = {"description": "takes no requests now", "content": _json(schema_of[Health])}
    return responses


def _codes_by_status(errors: Iterable[type[ApiError]]) -> list[tuple[int, list[str]]]:
    found: dict[int, list[str]] = {}
    for error in errors:
        for kind in (error, *error.__subclasses__()):
            found.setdefault(kind.status, []).extend(kind.codes)
    return sorted((status, list(dict.fromkeys(codes))) for status, codes in found.items())


def _event_content(endpoint: Endpoint, schema_of: dict[type[msgspec.Struct], Any]) -> dict[str, Any]:
    """What one event of a stream holds."""
    text = {"type": "string"}
    kinds = {"anyOf": [schema_of[kind] for kind in endpoint.events]}
    data: dict[str, Any] = {**text, "contentMediaType": "application/json", "contentSchema": kinds}
    if endpoint.in_openai_shape:
        data = {"anyOf": [{"const": "[DONE]"}, data]}
    return {"schema": {"type": "object", "required": ["data"], "properties": {"id": text, "event": text, "data": data}}}


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _path_parameter(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": False,
        "schema": parameter.schema,
        "description": parameter.description,
    }


_BACKTICKS = re.compile(r"`([^`]+)`")
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>ParalleliX API</title><style>
body{{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1b1f24;background:#fff}}
code,pre{{font:14px/1.5 ui-monospace,monospace}}pre{{overflow:auto;background:#f4f6f8;padding:1rem;border-radius:.5rem}}
details{{border-top:1px solid #d8dee4;padding:.5rem 0}}summary{{cursor:pointer}}
@media(prefers-color-scheme:dark){{body{{color:#e6edf3;background:#0d1117}}pre{{background:#161b22}}
details{{border-color:#30363d}}a{{color:#79b8ff}}}}
</style><h1>ParalleliX API {version}</h1><p>{description}
The same as one file: <a href="schema/openapi.json">openapi.json</a>.
{sections}</html>
"""


def page(description: dict[str, Any]) -> bytes:
    """A page of its own, without a script and without anything from elsewhere."""
    operations = [
        (operation["tags"][0], method.upper(), path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
    ]
    sections: list[str] = []
    for tag in dict.fromkeys(each[0] for each in operations):
        sections.append(f"<h2>{html.escape(tag)}</h2>")
        sections += [_entry(method, path, operation) for of, method, path, operation in operations if of == tag]
    schemas = html.escape(msgspec.json.format(msgspec.json.encode(description["components"]["schemas"])).decode())
    sections.append(f"<h2>schemas</h2><details><summary>all</summary><pre>{schemas}</pre></details>")
    return _PAGE.format(
        version=_VERSION,
        description=_BACKTICKS.sub(r"<code>\1</code>", html.escape(_DESCRIPTION)),
        sections="\n".join(sections),
    ).encode()


def _entry(method: str, path: str, operation: dict[str, Any]) -> str:
    shown = html.escape(msgspec.json.format(msgspec.json.encode(operation)).decode())
    return (
        f"<details><summary><code>{method} {html.escape(path)}</code> {html.escape(operation['summary'])}</summary>"
        f"<pre>{shown}</pre></details>"
    )
