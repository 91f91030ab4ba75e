"""The SDK: one `Client` for one coordinator.

A call that fails on the way is repeated by itself, and every create carries an `Idempotency-Key`, so a repeat finds the
request that the first try made: it is run and charged once.
"""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote as url_quoted

import httpx
import msgspec

from parallelix.client import kept
from parallelix.client.connection import Connection
from parallelix.client.errors import BadAnswer, ClientError, Refused, ended
from parallelix.client.events import Answer, Created, Delta, Ended, Event, Restarted, read
from parallelix.client.retry import Retry
from parallelix.client.wallets import Wallet, message_of
from parallelix.protocol import accounts, requests, sampling
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.errors import Malformed
from parallelix.protocol.receipts import Check, Receipt
from parallelix.protocol.records import Batch, Record, RecordPage, decode_record
from parallelix.protocol.requests import ChatMessage, CreateRequest

CANCEL_SECONDS = 5.0
"""Whoever leaves a stream waits at most this long to tell the coordinator, which notices the closed line anyway."""
EPOCHS_PAGE = 500
RECORDS_PAGE = 500
"""As many as a coordinator gives at once: half a MiB."""

_NO_ANSWER = "the stream ended before the request did"


class Client:
    """Use it as `async with Client(url, api_key) as client`. Every method may raise a `ClientError`.

    `base_url` is the API's, such as https://parallelix.io/api; plain http is taken for this machine only. Without an
    `api_key` only what is public can be read. `told` hears why a call is made again, before each wait.
    """

    def __init__(
        self,
        base_url: str,
        api_key: str = "",
        *,
        retry: Retry | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self._connection = Connection(
            base_url, api_key, retry=retry or Retry(), transport=transport, sleep=sleep, told=told
        )

    @property
    def base_url(self) -> str:
        return self._connection.base_url

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._connection.close()

    # Asking -----------------------------------------------------------------------------------------------------------

    async def ask(self, body: CreateRequest, *, idempotency_key: str | None = None) -> Answer:
        """Creates a request and waits for its answer. Raises `RequestEnded` when it ends without one."""
        text: list[str] = []
        restarts = 0
        async with aclosing(self.stream(body, idempotency_key=idempotency_key)) as events:
            async for event in events:
                match event:
                    case Delta():
                        text.append(event.text)
                    case Restarted():
                        restarts += 1
                        text.clear()
                    case Ended():
                        return answer_of(event, "".join(text), restarts=restarts)
                    case _:
                        pass
        raise AssertionError("a stream ends with Ended, or raises")

    async def stream(
        self, body: CreateRequest, *, idempotency_key: str | None = None, detached: bool = False
    ) -> AsyncGenerator[Event]:
        """Creates a request and gives its events up to `Ended`, over as many connections as it takes.

        Leaving before the end cancels the request unless `detached`; leave through `contextlib.aclosing` or by
        cancelling the task, so that it is told at once.
        """
        view = await self._created(body, idempotency_key, detached=detached)
        over = False
        try:
            yield Created(request_id=view.id, view=view)
            async with aclosing(self.follow(view.id, detached=detached)) as events:
                async for event in events:
                    over = isinstance(event, Ended)
                    yield event
        finally:
            if not over and not detached:
                await self._give_up(view.id)

    async def follow(self, request_id: str, *, detached: bool = True, after: str = "") -> AsyncGenerator[Event]:
        """The events of a request that exists, from `after` on (`<attempt>.<offset in bytes>`), up to `Ended`.

        With `detached` false, the coordinator cancels a request whose last reader has been gone for a few seconds.
        """
        place = _Place(after)
        series = self._connection.retry.series()
        path = f"{_path(request_id)}/events"
        while True:
            try:
                async with self._connection.events(path, last_event_id=place.text, detached=detached) as raw_events:
                    async for raw in raw_events:
                        event = read(raw.name, raw.data)
                        if isinstance(event, Delta):
                            event = place.take(event)
                        place.note(raw.identity)
                        series.reset()
                        if event is not None:
                            yield event
                        if isinstance(event, Ended):
                            return
                raise httpx.RemoteProtocolError(_NO_ANSWER)
            except Refused as error:
                await self._connection.wait_after_refusal(series, error)
            except httpx.TransportError as error:
                await self._connection.wait_after_break(series, error)

    # Requests ---------------------------------------------------------------------------------------------------------

    async def create(self, body: CreateRequest, *, idempotency_key: str | None = None) -> requests.RequestView:
        """Returns once the request is durable. Give an `idempotency_key` of your own to find the same request again
        after a crash; the same key with another body is refused."""
        return await self._connection.call(
            "POST",
            "/v1/requests",
            requests.RequestView,
            body=encode_create(body),
            headers={"idempotency-key": idempotency_key or new_idempotency_key()},
        )

    async def get(self, request_id: str) -> requests.RequestView:
        return await self._connection.call("GET", _path(request_id), requests.RequestView)

    async def list(
        self, *, state: str | None = None, limit: int | None = None, cursor: str | None = None
    ) -> requests.RequestList:
        """One page, newest first; `next_cursor` leads to the next."""
        given = {"state": state, "limit": None if limit is None else str(limit), "cursor": cursor}
        query = {name: value for name, value in given.items() if value is not None}
        return await self._connection.call("GET", "/v1/requests", requests.RequestList, query=query)

    async def cancel(self, request_id: str) -> requests.RequestView:
        return await self._connection.call("POST", f"{_path(request_id)}/cancel", requests.RequestView)

    async def quote(self, body: CreateRequest) -> requests.Quote:
        """What the request would hold now. Nothing is created."""
        return await self._connection.call("POST", "/v1/quote", requests.Quote, body=encode_create(body))

    # Account ----------------------------------------------------------------------------------------------------------

    async def account(self) -> requests.AccountView:
        return await self._connection.call("GET", "/v1/account", requests.AccountView)

    async def keys(self) -> requests.KeyList:
        return await self._connection.call("GET", "/v1/keys", requests.KeyList)

    async def sign_in(self, wallet: Wallet) -> accounts.SessionView:
        """Signs in as the wallet's account. A client with the `token` as its key can make keys, for an hour."""
        nonce = await self._connection.call("POST", "/v1/auth/nonce", accounts.NonceView)
        message = message_of(nonce, address=wallet.address, base_url=self.base_url).text
        body = accounts.SignInBody(message=message, signature=to_hex(wallet.sign(message)))
        # A message is taken once; where its answer was lost, one signs in anew.
        return await self._connection.call(
            "POST", "/v1/auth/sign-in", accounts.SessionView, body=msgspec.json.encode(body), repeatable=False
        )

    async def create_key(self, body: accounts.NewKeyBody) -> accounts.NewKeyView:
        """The new key is in the answer and nowhere else. If the answer is lost, nobody has it: revoke it, make one
        anew."""
        return await self._connection.call(
            "POST", "/v1/keys", accounts.NewKeyView, body=msgspec.json.encode(body), repeatable=False
        )

    async def revoke_key(self, key_id: str) -> requests.KeyView:
        return await self._connection.call("DELETE", f"/v1/keys/{url_quoted(key_id, safe='')}", requests.KeyView)

    async def clearance(self, amount_wei: int) -> accounts.ClearanceView:
        """What lets the account withdraw `amount_wei` from the vault at once. Asking again gives the same one."""
        body = accounts.ClearanceBody(amount_wei=str(amount_wei))
        return await self._connection.call(
            "POST", "/v1/account/clearance", accounts.ClearanceView, body=msgspec.json.encode(body)
        )

    async def models(self) -> requests.ModelList:
        return await self._connection.call("GET", "/v1/models", requests.ModelList)

    async def model(self, name: str) -> requests.ModelView:
        return await self._connection.call("GET", f"/v1/models/{url_quoted(name)}", requests.ModelView)

    async def network(self) -> requests.NetworkView:
        """Totals that anyone may read."""
        return await self._connection.call("GET", "/v1/network", requests.NetworkView)

    # Receipts ---------------------------------------------------------------------------------------------------------

    async def receipt(self, request_id: str) -> Receipt:
        """Raises `NotRecordedYet` before the request completes. The batch is in it once that is confirmed."""
        return await self._connection.call("GET", f"{_path(request_id)}/receipt", Receipt)

    async def keep(self, body: CreateRequest, request_id: str) -> kept.KeptAnswer:
        """The answer to `body` with its receipt, for `kept.verify` and `parallelix receipt verify`."""
        view = await self.get(request_id)
        if view.result is None:
            raise BadAnswer(f"request {request_id}: has no readable result ({view.state}); nothing to keep")
        max_tokens = None
        if body.max_tokens is None and view.kind != "embedding":
            max_tokens = (await self.model(body.model)).max_tokens_default
        return kept.keep(body, view.result, await self.receipt(request_id), max_tokens=max_tokens)

    async def published(self, receipt: Receipt) -> list[Check]:
        """Whether the coordinator shows to anyone the same record and batch that it put into the receipt."""
        shown = await self._shows(receipt.record_hash)
        checks: list[Check] = [("record shown", shown, "the coordinator shows this record to anyone")]
        if receipt.batch is not None:
            batch = await self._public(f"/v1/batches/{receipt.batch.number}", Batch)
            checks.append(("batch shown", batch == receipt.batch, "the coordinator shows this batch to anyone"))
        return checks

    async def _shows(self, record_hash: str) -> bool:
        """Whether a record of this hash is public: of either kind, as its very bytes are what is hashed."""
        try:
            data = await self._connection.read("GET", f"/v1/records/{url_quoted(record_hash)}")
        except Refused as error:
            if error.status == 404:
                return False
            raise
        return to_hex(hashlib.sha256(data).digest()) == record_hash

    async def batch(self, number: int) -> Batch | None:
        """None where there is no such batch; anyone may ask."""
        return await self._public(f"/v1/batches/{number}", Batch)

    async def epochs(self) -> sampling.EpochList:
        """All epochs of sampling in their order, with the secrets that are out; anyone may ask."""
        found: list[sampling.Epoch] = []
        while True:
            first = found[-1].epoch + 1 if found else 0
            query = {"first": str(first), "limit": str(EPOCHS_PAGE)}
            page = await self._connection.call("GET", "/v1/epochs", sampling.EpochList, query=query)
            if any(each.epoch < first for each in page.data):
                raise BadAnswer(f"{self.base_url}/v1/epochs: answered epochs before {first}, which was asked for")
            found += page.data
            if not page.data:
                return sampling.EpochList(data=tuple(found), floor_percent=page.floor_percent)

    async def records(self, *, first: int = 0) -> AsyncGenerator[Record]:
        """All records from number `first` on, in the order of the chain, up to its end; anyone may ask.

        Raises `BadAnswer` where one is missing between.
        """
        while page := await self._record_page(first):
            for record in page:
                if record.sequence != first:
                    raise BadAnswer(
                        f"{self.base_url}: answered record {record.sequence} where {first} was asked for; its chain "
                        "has a gap, or it is no coordinator"
                    )
                yield record
                first += 1

    async def _record_page(self, first: int) -> list[Record]:
        query = {"first": str(first), "limit": str(RECORDS_PAGE)}
        page = await self._connection.call("GET", "/v1/records", RecordPage, query=query)
        try:
            return [decode_record(bytes(each)) for each in page.data]
        except Malformed as error:
            raise BadAnswer(
                f"{self.base_url}/v1/records: {error.message}; it is no coordinator, or a newer one than this client"
            ) from error

    async def _public(self, path: str, kind: type[Any]) -> Any:
        try:
            return await self._connection.call("GET", path, kind)
        except Refused as error:
            if error.status == 404:
                return None
            raise

    async def _created(
        self, body: CreateRequest, idempotency_key: str | None, *, detached: bool
    ) -> requests.RequestView:
        """As `create`; but whoever is cancelled while its answer is on the way leaves no request behind."""
        creating = asyncio.ensure_future(self.create(body, idempotency_key=idempotency_key))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            if not detached:
                with suppress(ClientError, TimeoutError):
                    async with asyncio.timeout(CANCEL_SECONDS):
                        await self._give_up((await creating).id)
            raise
        finally:
            creating.cancel()

    async def _give_up(self, request_id: str) -> None:
        with suppress(ClientError, TimeoutError):
            async with asyncio.timeout(CANCEL_SECONDS):
                await self.cancel(request_id)


class _Place:
    """How far a reader is. Its text is what Last-Event-ID holds."""

    def __init__(self, text: str) -> None:
        self.text = text
        attempt, _, offset = text.partition(".")
        self._attempt = int(attempt) if attempt.isdecimal() else 0
        self._offset_bytes = int(offset) if offset.isdecimal() else 0

    def note(self, identity: str) -> None:
        if identity:
            self.text = identity

    def take(self, delta: Delta) -> Delta | None:
        """What of the delta is new: after a break, pieces may be cut elsewhere. Raises `RemoteProtocolError` when
        something between was lost, so that it is asked for again."""
        if delta.attempt != self._attempt:
            self._attempt, self._offset_bytes = delta.attempt, 0
        known = self._offset_bytes - delta.offset_bytes
        encoded = delta.text.encode()
        if known < 0:
            raise httpx.RemoteProtocolError(f"{-known} bytes of text are missing")
        if known >= len(encoded) > 0:
            return None
        self._offset_bytes = delta.offset_bytes + len(encoded)
        if known == 0:
            return delta
        return Delta(
            attempt=delta.attempt,
            offset_bytes=delta.offset_bytes + known,
            text=encoded[known:].decode("utf-8", "replace"),
        )


def chat(prompt: str, *, model: str, system: str = "", **options: Any) -> CreateRequest:
    """A conversation of one question. `options` are the other fields of `CreateRequest`."""
    messages = (ChatMessage(role="system", content=system),) if system else ()
    return CreateRequest(model=model, messages=(*messages, ChatMessage(role="user", content=prompt)), **options)


def new_idempotency_key() -> str:
    return secrets.token_hex(16)


def encode_create(body: CreateRequest) -> bytes:
    """Only what differs from its default, so that an older coordinator need not know every field."""
    fields = msgspec.structs.fields(body)
    return msgspec.json.encode(
        {each.name: value for each in fields if (value := getattr(body, each.name)) != each.default}
    )


def answer_of(end: Ended, text: str, *, restarts: int) -> Answer:
    """Raises `RequestEnded` unless the request completed."""
    if end.state != "completed" or end.usage is None or end.record_hash is None:
        raise ended(end.request_id, state=end.state, reason=end.reason, charge_wei=end.charge_wei)
    return Answer(
        request_id=end.request_id,
        text=text,
        finish_reason=end.finish_reason or "",
        tool_calls=end.tool_calls,
        usage=end.usage,
        charge_wei=end.charge_wei,
        record_hash=end.record_hash,
        restarts=restarts,
    )


def _path(request_id: str) -> str:
    return f"/v1/requests/{url_quoted(request_id, safe='')}"
