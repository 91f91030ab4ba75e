"""Every route of the requester's and the public surface, once: router and OpenAPI document both read this table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from parallelix.coordinator import errors
from parallelix.coordinator.errors import ApiError
from parallelix.coordinator.http import openai_answers, openai_bodies, requester
from parallelix.coordinator.http.accounts import AccountCalls
from parallelix.coordinator.http.call import Call
from parallelix.coordinator.http.limits import IDEMPOTENCY_KEY_CHARACTERS_MAX
from parallelix.coordinator.http.openai import OpenAI
from parallelix.coordinator.http.public import EPOCHS_PAGE_MAX, RECORD_NUMBER_MAX, RECORDS_PAGE_MAX, Health, Public
from parallelix.coordinator.http.requester import Requester
from parallelix.coordinator.service import Coordinator
from parallelix.protocol import accounts, receipts, records, requests, sampling

Tag: TypeAlias = Literal["requests", "openai", "account", "public"]
Errors: TypeAlias = tuple[type[ApiError], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    name: str
    place: Literal["query", "header"]
    schema: dict[str, Any]
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """`hot` routes are found before the general router. `events` are the kinds that a stream of its answer holds."""

    method: Literal["GET", "POST", "DELETE"]
    path: str
    run: Callable[[Call], Awaitable[None]]
    summary: str
    tag: Tag
    answer: type[msgspec.Struct] | None = None
    other_answer: type[msgspec.Struct] | None = None
    """Where an answer is of one of two kinds."""
    status: int = 200
    body: type[msgspec.Struct] | None = None
    errors: Errors = ()
    parameters: tuple[Parameter, ...] = ()
    events: tuple[type[msgspec.Struct], ...] = ()
    links: tuple[str, ...] = ()
    """Operations that take the `id` of the answer."""
    needs_key: bool = True
    hot: bool = False

    @property
    def in_openai_shape(self) -> bool:
        return self.tag == "openai"


IDEMPOTENCY_KEY = Parameter(
    name="Idempotency-Key",
    place="header",
    schema={
        "type": "string", "pattern": "^[\\x21-\\x7e]+$", "minLength": 1, "maxLength": IDEMPOTENCY_KEY_CHARACTERS_MAX,
    },
    description="Makes a repeat of the same call find the request of the first one. Kept for 24 hours.",
)  # fmt: skip
LAST_EVENT_ID = Parameter(
    name="Last-Event-ID",
    place="header",
    schema={"type": "string", "pattern": "^[0-9]{1,4}\\.[0-9]{1,10}$"},
    description="Continues after this event: <attempt>.<offset in bytes>.",
)
DETACHED = Parameter(
    name="detached",
    place="query",
    schema={"type": "string", "enum": ["true", "false"]},
    description="With true, closing this stream does not give the work up.",
)
LIST_PARAMETERS = (
    Parameter(name="state", place="query", schema={"type": "string", "enum": list(requester.STATES)},
              description="Only requests in this state."),
    Parameter(name="limit", place="query",
              schema={"type": "integer", "minimum": 1, "maximum": requester.LIST_LIMIT_MAX},
              description="How many to answer at most."),
    Parameter(name="cursor", place="query", schema={"type": "string", "minLength": 1, "maxLength": 200},
              description="next_cursor of the page before."),
)  # fmt: skip
EPOCHS_PARAMETERS = (
    Parameter(name="first", place="query", schema={"type": "integer", "minimum": 0, "maximum": RECORD_NUMBER_MAX},
              description="The first epoch to answer."),
    Parameter(name="limit", place="query", schema={"type": "integer", "minimum": 1, "maximum": EPOCHS_PAGE_MAX},
              description="How many to answer at most."),
)  # fmt: skip
RECORDS_PARAMETERS = (
    Parameter(name="first", place="query", schema={"type": "integer", "minimum": 0, "maximum": RECORD_NUMBER_MAX},
              description="The number of the first record to answer."),
    Parameter(name="limit", place="query", schema={"type": "integer", "minimum": 1, "maximum": RECORDS_PAGE_MAX},
              description="How many to answer at most."),
)  # fmt: skip

ID_TAKERS = ("get_requests_id", "delete_requests_id", "post_requests_id_cancel", "get_requests_id_events",
             "get_requests_id_receipt")  # fmt: skip
NATIVE_EVENTS = (requests.AuditEvent, requests.DeltaEvent, requests.EndEvent, requests.ProgressEvent,
                 requests.RestartedEvent)  # fmt: skip
CHAT_EVENTS = (openai_answers.ChatCompletionChunk, openai_answers.ErrorAnswer)
COMPLETION_EVENTS = (openai_answers.Completion, openai_answers.ErrorAnswer)

ANY: Errors = (errors.BadRequest, errors.Internal)
KEYED: Errors = (*ANY, errors.Unauthorised, errors.Forbidden)
READING: Errors = (errors.ReceiveTimeout, errors.BodyTooLarge, errors.UnsupportedMedia, errors.Unavailable)
"""What a body can be refused for before it is read."""
BODY: Errors = (*KEYED, *READING, errors.NotFound)
CREATE: Errors = (*BODY, errors.PaymentRequired, errors.IdempotencyKeyReused, errors.TooMany)
ATTACHED: Errors = (*CREATE, errors.RequestFailed, errors.RequestCancelled, errors.RequestExpired)
FOUND: Errors = (*KEYED, errors.NotFound)


def endpoints(coordinator: Coordinator) -> tuple[Endpoint, ...]:
    return (
        *_requests(Requester(coordinator)),
        *_openai(OpenAI(coordinator)),
        *_account(Requester(coordinator)),
        *_signing_in(AccountCalls(coordinator)),
        *_public(Public(coordinator)),
    )


def _requests(on: Requester) -> tuple[Endpoint, ...]:
    create, view, page = requests.CreateRequest, requests.RequestView, requests.RequestList
    return (
        Endpoint(method="POST", path="/v1/requests", run=on.create, summary="Create a request", tag="requests",
                 body=create, answer=view, status=201, errors=CREATE, parameters=(IDEMPOTENCY_KEY,), hot=True,
                 links=ID_TAKERS),
        Endpoint(method="GET", path="/v1/requests", run=on.list, summary="List the account's requests, newest first",
                 tag="requests", answer=page, errors=KEYED, parameters=LIST_PARAMETERS),
        Endpoint(method="GET", path="/v1/requests/{id}", run=on.view, summary="Look at a request", tag="requests",
                 answer=view, errors=FOUND),
        Endpoint(method="DELETE", path="/v1/requests/{id}", run=on.cancel, summary="Cancel a request", tag="requests",
                 answer=view, errors=FOUND),
        Endpoint(method="POST", path="/v1/requests/{id}/cancel", run=on.cancel, summary="Cancel a request",
                 tag="requests", answer=view, errors=FOUND),
        Endpoint(method="GET", path="/v1/requests/{id}/events", run=on.events, summary="Follow a request as it goes",
                 tag="requests", errors=FOUND, parameters=(LAST_EVENT_ID, DETACHED), events=NATIVE_EVENTS),
        Endpoint(method="GET", path="/v1/requests/{id}/receipt", run=on.receipt, summary="The receipt of a request",
                 tag="requests", answer=receipts.Receipt, errors=(*FOUND, errors.NotRecordedYet)),
        Endpoint(method="POST", path="/v1/quote", run=on.quote, summary="What a request would hold now",
                 tag="requests", body=create, answer=requests.Quote, errors=BODY),
    )  # fmt: skip


def _openai(on: OpenAI) -> tuple[Endpoint, ...]:
    return (
        Endpoint(method="POST", path="/v1/chat/completions", run=on.chat, summary="OpenAI's chat completions",
                 tag="openai", body=openai_bodies.ChatBody, answer=openai_answers.ChatCompletion, errors=ATTACHED,
                 parameters=(IDEMPOTENCY_KEY,), events=CHAT_EVENTS, hot=True),
        Endpoint(method="POST", path="/v1/completions", run=on.completion, summary="OpenAI's completions",
                 tag="openai", body=openai_bodies.CompletionBody, answer=openai_answers.Completion, errors=ATTACHED,
                 parameters=(IDEMPOTENCY_KEY,), events=COMPLETION_EVENTS, hot=True),
        Endpoint(method="POST", path="/v1/embeddings", run=on.embedding, summary="OpenAI's embeddings", tag="openai",
                 body=openai_bodies.EmbeddingBody, answer=openai_answers.EmbeddingList, errors=ATTACHED,
                 parameters=(IDEMPOTENCY_KEY,), hot=True),
    )  # fmt: skip


def _account(on: Requester) -> tuple[Endpoint, ...]:
    return (
        Endpoint(method="GET", path="/v1/models", run=on.models, summary="The models on offer", tag="openai",
                 answer=requests.ModelList, errors=KEYED),
        Endpoint(method="GET", path="/v1/models/{model}", run=on.model, summary="One model on offer", tag="openai",
                 answer=requests.ModelView, errors=FOUND),
        Endpoint(method="GET", path="/v1/account", run=on.account, summary="Credits and limits", tag="account",
                 answer=requests.AccountView, errors=KEYED),
    )  # fmt: skip


def _signing_in(on: AccountCalls) -> tuple[Endpoint, ...]:
    return (
        Endpoint(method="POST", path="/v1/auth/nonce", run=on.nonce, summary="What a wallet's next sign-in must say",
                 tag="account", answer=accounts.NonceView, errors=ANY, needs_key=False),
        Endpoint(method="POST", path="/v1/auth/sign-in", run=on.sign_in, summary="Sign in with a wallet (EIP-4361)",
                 tag="account", body=accounts.SignInBody, answer=accounts.SessionView, status=201,
                 errors=(*ANY, *READING, errors.SignInRefused, errors.TooMany), needs_key=False),
        Endpoint(method="GET", path="/v1/keys", run=on.keys, summary="The account's API keys, without their secrets",
                 tag="account", answer=requests.KeyList, errors=KEYED),
        Endpoint(method="POST", path="/v1/keys", run=on.make_key, summary="Make an API key", tag="account",
                 body=accounts.NewKeyBody, answer=accounts.NewKeyView, status=201,
                 errors=(*KEYED, *READING, errors.PaymentRequired, errors.TooManyKeys), links=("delete_keys_id",)),
        Endpoint(method="POST", path="/v1/account/clearance", run=on.clearance, tag="account",
                 summary="Let the account withdraw from the vault at once",
                 body=accounts.ClearanceBody, answer=accounts.ClearanceView,
                 errors=(*KEYED, *READING, errors.PaymentRequired, errors.NoVault, errors.ClearanceOpen)),
        Endpoint(method="DELETE", path="/v1/keys/{id}", run=on.revoke_key, summary="Revoke a key", tag="account",
                 answer=requests.KeyView, errors=FOUND),
    )  # fmt: skip


def _public(on: Public) -> tuple[Endpoint, ...]:
    return (
        Endpoint(method="GET", path="/v1/records", run=on.records, summary="Records in the order of the chain",
                 tag="public", answer=records.RecordPage, errors=ANY, parameters=RECORDS_PARAMETERS, needs_key=False),
        Endpoint(method="GET", path="/v1/records/{hash}", run=on.record, summary="One record of the chain",
                 tag="public", answer=records.ExecutionRecord, other_answer=records.AuditRecord,
                 errors=(*ANY, errors.NotFound), needs_key=False),
        Endpoint(method="GET", path="/v1/epochs", run=on.epochs, tag="public",
                 summary="Epochs of sampling: what was committed to, and what is revealed", answer=sampling.EpochList,
                 errors=ANY, parameters=EPOCHS_PARAMETERS, needs_key=False),
        Endpoint(method="GET", path="/v1/batches/{number}", run=on.batch, summary="One batch of records",
                 tag="public", answer=records.Batch, errors=(*ANY, errors.NotFound), needs_key=False),
        Endpoint(method="GET", path="/v1/network", run=on.network, summary="Totals of the network", tag="public",
                 answer=requests.NetworkView, errors=ANY, needs_key=False),
        Endpoint(method="GET", path="/healthz", run=on.healthz, summary="Whether the process answers", tag="public",
                 answer=Health, errors=ANY, needs_key=False),
        Endpoint(method="GET", path="/readyz", run=on.readyz, summary="Whether it takes requests", tag="public",
                 answer=Health, errors=ANY, needs_key=False),
        Endpoint(method="GET", path="/metrics", run=on.metrics, summary="Prometheus metrics", tag="public",
                 errors=ANY, needs_key=False),
    )  # fmt: skip
