"""`python -m bench.brittle_coordinator FOLDER`: the coordinator with one fault in each of a few routes, made to be
caught. Its OpenAPI document promises what the real one does.
"""

from __future__ import annotations

import sys

import msgspec

from parallelix.coordinator import __main__
from parallelix.coordinator.http.call import Call
from parallelix.coordinator.http.public import Public
from parallelix.coordinator.http.requester import Requester

FAULTS = {
    "not_a_server_error": "/v1/batches/{number}",
    "response_schema_conformance": "/v1/network",
    "status_code_conformance": "/healthz",
    "content_type_conformance": "/readyz",
    "ignored_auth": "/v1/models",
}
"""Which check has to catch the fault of which route."""


async def raises(self: Public, call: Call) -> None:
    raise ZeroDivisionError


async def answers_another_shape(self: Public, call: Call) -> None:
    await call.answer(200, b'{"nodes_online":"many"}')


async def answers_another_status(self: Public, call: Call) -> None:
    await call.answer(418, b'{"status":"ok","reason":""}')


async def answers_another_type(self: Public, call: Call) -> None:
    await call.answer(200, b"<p>ready</p>", kind=b"text/html")


async def asks_nobody_for_a_key(self: Requester, call: Call) -> None:
    models = self._coordinator.models()  # pyright: ignore[reportPrivateUsage]
    await call.answer(200, msgspec.json.encode(models))


if __name__ == "__main__":
    Public.batch, Public.network, Public.healthz, Public.readyz = (
        raises, answers_another_shape, answers_another_status, answers_another_type,
    )  # fmt: skip
    Requester.models = asks_nobody_for_a_key
    sys.exit(__main__.main(sys.argv[1:]))
