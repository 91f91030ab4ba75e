"""The coordinator's HTTP surface as one ASGI application.

Order of routing: the operator's calls as plain ASGI, then the few routes that every request takes, then Litestar for
all the rest. Everything lies both at the root and below the base path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec
from litestar import Litestar, Request, Response
from litestar.exceptions import HTTPException
from litestar.handlers import HTTPRouteHandler
from litestar.types import ASGIApp, HTTPScope, Receive, Scope, Send

from parallelix.coordinator import unexpected
from parallelix.coordinator.errors import ApiError, BadRequest, Internal, MethodNotAllowed, NotFound
from parallelix.coordinator.http import limits, openapi
from parallelix.coordinator.http.call import Call, error_headers
from parallelix.coordinator.http.endpoints import Endpoint, endpoints
from parallelix.coordinator.http.limits import Disconnected
from parallelix.coordinator.http.openai import error_bytes
from parallelix.coordinator.room import Room
from parallelix.coordinator.service import Coordinator
from parallelix.protocol.messages import ErrorBody

BASE_PATH = "/api"
"""Where the public address has the API (https://parallelix.io/api); a proxy may strip it or not."""

_OPENAI_PATHS = ("/v1/chat/", "/v1/completions", "/v1/embeddings", "/v1/models")
_HTML = b"text/html; charset=utf-8"
_PAGE_HEADERS = [(b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'")]


def build_app(coordinator: Coordinator, operator_app: ASGIApp | None = None, *, base_path: str = BASE_PATH) -> ASGIApp:
    surface = Surface(coordinator)
    table = endpoints(coordinator)
    hot = {(each.method, each.path): each for each in table if each.hot}
    general = _general_router(surface, table)
    base = base_path.rstrip("/")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await general(scope, receive, send)
            return
        path: str = scope["path"]
        if base and path.startswith(base + "/"):
            path = path[len(base) :]
            scope = cast("HTTPScope", {**scope, "path": path, "raw_path": scope["raw_path"][len(base) :]})
        if operator_app is not None and path.startswith("/operator/"):
            await operator_app(scope, receive, send)
            return
        endpoint = hot.get((scope["method"], path))
        if endpoint is not None:
            await surface.serve(endpoint, scope, receive, send, {})
        else:
            await general(scope, receive, send)

    return app


class Surface:
    """Runs endpoints, and turns whatever goes wrong in one into a documented answer."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._room = Room(limits.ARRIVING_BYTES_MAX)

    async def serve(
        self, endpoint: Endpoint, scope: HTTPScope, receive: Receive, send: Send, parameters: Mapping[str, str]
    ) -> None:
        call = Call(scope, receive, send, parameters, self._room)
        try:
            limits.refuse_repeated_headers(scope, call.headers)
            await endpoint.run(call)
        except Disconnected:
            pass
        except ApiError as error:
            await self._refuse(call, error, in_openai_shape=endpoint.in_openai_shape)
        except Exception as error:
            self.log_unexpected(endpoint.path, error)
            await self._refuse(call, _INTERNAL, in_openai_shape=endpoint.in_openai_shape)

    def log_unexpected(self, path: str, error: BaseException) -> None:
        self._coordinator.log("http.unexpected", unexpected.facts(path, error))

    async def _refuse(self, call: Call, error: ApiError, *, in_openai_shape: bool) -> None:
        self._coordinator.metrics.refusals.labels(error.code).inc()
        if not call.started:
            body = error_bytes(error) if in_openai_shape else native_error_bytes(error)
            await call.answer(error.status, body, headers=error_headers(error))


_INTERNAL = Internal("the coordinator failed on this call; its log says why, and nothing was charged for it")


def native_error_bytes(error: ApiError) -> bytes:
    return msgspec.json.encode(ErrorBody(error=error.code, message=error.message))


def _general_router(surface: Surface, table: tuple[Endpoint, ...]) -> Litestar:
    def unexpected(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        surface.log_unexpected(request.scope["path"][:80], error)
        return _response(request.scope["path"], _INTERNAL)

    description = openapi.document(table)
    pages = {
        "/schema": (openapi.page(description), _HTML),
        "/schema/openapi.json": (msgspec.json.encode(description), b"application/json"),
    }
    return Litestar(
        route_handlers=[
            *(_handler(surface, path, methods) for path, methods in _by_path(table).items()),
            *(_page_handler(path, body, kind) for path, (body, kind) in pages.items()),
        ],
        openapi_config=None,
        logging_config=None,
        exception_handlers={HTTPException: _routing_error, Exception: unexpected},
    )


def _by_path(table: tuple[Endpoint, ...]) -> dict[str, dict[str, Endpoint]]:
    found: dict[str, dict[str, Endpoint]] = {}
    for endpoint in table:
        found.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    return found


def _handler(surface: Surface, path: str, methods: Mapping[str, Endpoint]) -> HTTPRouteHandler:
    """One for all methods of a path: of several, Litestar's answer to OPTIONS names but one."""
    # A model's name may hold slashes.
    route = path.replace("{model}", "{model:path}").replace("{id}", "{id:str}")
    route = route.replace("{hash}", "{hash:str}").replace("{number}", "{number:str}")

    async def handle(request: Request[Any, Any, Any]) -> ASGIApp:
        parameters = {name: str(value) for name, value in request.path_params.items()}
        endpoint = methods[request.method]

        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            await surface.serve(endpoint, cast("HTTPScope", scope), receive, send, parameters)

        return respond

    return HTTPRouteHandler(route, http_method=[endpoint.method for endpoint in methods.values()], status_code=200)(
        handle
    )


def _page_handler(path: str, body: bytes, kind: bytes) -> HTTPRouteHandler:
    async def handle() -> ASGIApp:
        async def respond(scope: Scope, receive: Receive, send: Send) -> None:
            call = Call(cast("HTTPScope", scope), receive, send, {}, Room(0))
            await call.answer(200, body, headers=_PAGE_HEADERS, kind=kind)

        return respond

    return HTTPRouteHandler(path, http_method="GET", status_code=200)(handle)


def _routing_error(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    path = request.scope["path"]
    if error.status_code == 405:
        refusal: ApiError = MethodNotAllowed(
            f"{request.method} {path[:80]}: the path has no such method", headers=dict(error.headers or {})
        )
    elif error.status_code == 404:
        refusal = NotFound(f"{path[:80]}: there is nothing here; see /schema for what there is")
    else:
        refusal = BadRequest(f"{path[:80]}: the call cannot be read", code="invalid_request")
    return _response(path, refusal)


def _response(path: str, error: ApiError) -> Response[bytes]:
    body = error_bytes(error) if path.startswith(_OPENAI_PATHS) else native_error_bytes(error)
    headers = {name.decode(): value.decode() for name, value in error_headers(error)}
    return Response(body, status_code=error.status, media_type="application/json", headers=headers)
