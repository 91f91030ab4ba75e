"""Every refusal that a caller of the coordinator can get: one class a code, the status with it.

ApiError
├── BadRequest 400                     malformed, invalid_request, bad_envelope
│   ├── UnsupportedParameter           unsupported_parameter
│   ├── UnknownWorkloadClass           unknown_workload_class
│   ├── ContextExceeded                context_exceeded, max_tokens_too_large
│   └── MalformedSignIn                malformed_sign_in
├── Unauthorised 401                   invalid_api_key, missing_api_key, revoked_key, expired_key
├── SignInRefused 401                  foreign_sign_in, stale_sign_in, unknown_nonce, used_nonce, wrong_signer
├── PaymentRequired 402                insufficient_credits, budget_exceeded, no_deposit, daily_limit_reached
├── Forbidden 403                      wrong_credit_account, missing_scope, exceeds_key
├── NotFound 404                       not_found, unknown_model, unknown_request, unknown_record, unknown_batch,
│                                      unknown_key
├── MethodNotAllowed 405               method_not_allowed
├── ReceiveTimeout 408                 request_timeout
├── NotRecordedYet 409                 not_recorded_yet
├── TooManyKeys 409                    too_many_keys
├── NoVault 409                        no_vault
├── ClearanceOpen 409                  clearance_open
├── RequestCancelled 410               request_cancelled
├── BodyTooLarge 413                   body_too_large
├── UnsupportedMedia 415               unsupported_media_type, unsupported_encoding
├── IdempotencyKeyReused 422           idempotency_key_reused
├── TooMany 429                        rate_limited, concurrency_exceeded
├── HeadTooLarge 431                   head_too_large
├── Internal 500                       internal_error
├── RequestFailed 502                  request_failed
├── Unavailable 503                    overloaded, starting, stopping, attempt_restarted, chain_unreachable,
│                                      vault_halted, registry_halted
├── RequestExpired 504                 request_expired
└── OperatorRefusal                    what only a node is told
    ├── NodeUnauthorised 401           bad_signature, stale_time, unknown_session
    ├── NodeForbidden 403              not_staked, in_cooldown, key_mismatch, not_your_attempt
    ├── NodeConflict 409               tier_mismatch, stream_offset, receipt_refused
    └── AttemptClosed 410              attempt_closed

`docs/errors.md` is the same table for readers; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

_NO_HEADERS: Mapping[str, str] = {}


class ApiError(Exception):
    """A refusal with its status and stable code. The message names the thing, its value, the bound and the way out.

    `retry_after_seconds` becomes the header Retry-After, `param` names the field at fault, and `headers` are sent
    with the answer.
    """

    status: ClassVar[int] = 500
    codes: ClassVar[tuple[str, ...]] = ()
    """The codes that this class may carry; the first is its default."""

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_seconds: float | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.codes[0]
        assert self.code in self.codes, (self.code, self.codes)
        self.param = param
        self.retry_after_seconds = retry_after_seconds
        self.headers = headers


class BadRequest(ApiError):
    """The body or an address part is not what the call takes."""

    status = 400
    codes = ("malformed", "invalid_request", "bad_envelope")


class UnsupportedParameter(BadRequest):
    """A parameter or a value that no runtime of the network can honour; it is never ignored."""

    codes = ("unsupported_parameter",)


class UnknownWorkloadClass(BadRequest):
    codes = ("unknown_workload_class",)


class ContextExceeded(BadRequest):
    """Prompt and longest answer together exceed what the model can hold, or the answer alone what it may say."""

    codes = ("context_exceeded", "max_tokens_too_large")


class MalformedSignIn(BadRequest):
    """What was signed is no message of EIP-4361."""

    codes = ("malformed_sign_in",)


class Unauthorised(ApiError):
    status = 401
    codes = ("invalid_api_key", "missing_api_key", "revoked_key", "expired_key")


class SignInRefused(ApiError):
    """A wallet's sign-in that is for somebody else, too old or too early, replayed, or not signed by its account."""

    status = 401
    codes = ("foreign_sign_in", "stale_sign_in", "unknown_nonce", "used_nonce", "wrong_signer")


class PaymentRequired(ApiError):
    status = 402
    codes = ("insufficient_credits", "budget_exceeded", "no_deposit", "daily_limit_reached")


class Forbidden(ApiError):
    status = 403
    codes = ("wrong_credit_account", "missing_scope", "exceeds_key")


class NotFound(ApiError):
    status = 404
    codes = ("not_found", "unknown_model", "unknown_request", "unknown_record", "unknown_batch", "unknown_key")


class MethodNotAllowed(ApiError):
    status = 405
    codes = ("method_not_allowed",)


class ReceiveTimeout(ApiError):
    """Head or body did not arrive in time."""

    status = 408
    codes = ("request_timeout",)


class NotRecordedYet(ApiError):
    """The request has no record, hence no receipt, yet; it gets one when it completes."""

    status = 409
    codes = ("not_recorded_yet",)


class TooManyKeys(ApiError):
    status = 409
    codes = ("too_many_keys",)


class NoVault(ApiError):
    """The credits of this account do not come from a deposit on a chain, so there is nothing to withdraw there."""

    status = 409
    codes = ("no_vault",)


class ClearanceOpen(ApiError):
    """The account has a clearance of another amount that can still be used."""

    status = 409
    codes = ("clearance_open",)


class RequestCancelled(ApiError):
    """The caller waited for an answer that somebody with its key cancelled."""

    status = 410
    codes = ("request_cancelled",)


class BodyTooLarge(ApiError):
    status = 413
    codes = ("body_too_large",)


class UnsupportedMedia(ApiError):
    status = 415
    codes = ("unsupported_media_type", "unsupported_encoding")


class IdempotencyKeyReused(ApiError):
    """The same Idempotency-Key came with another body or on another route."""

    status = 422
    codes = ("idempotency_key_reused",)


class TooMany(ApiError):
    """A limit of the key or of its account."""

    status = 429
    codes = ("rate_limited", "concurrency_exceeded")


class HeadTooLarge(ApiError):
    """The head of a request is larger than any call needs; answered before there is a call."""

    status = 431
    codes = ("head_too_large",)


class Internal(ApiError):
    """Our fault. The message says nothing of the cause, which is in the log."""

    status = 500
    codes = ("internal_error",)


class RequestFailed(ApiError):
    """Every attempt failed; nothing was charged."""

    status = 502
    codes = ("request_failed",)


class Unavailable(ApiError):
    status = 503
    codes = (
        "overloaded",
        "starting",
        "stopping",
        "attempt_restarted",
        "chain_unreachable",
        "vault_halted",
        "registry_halted",
    )


class RequestExpired(ApiError):
    """No node could take the request in its time; nothing was charged."""

    status = 504
    codes = ("request_expired",)


class OperatorRefusal(ApiError):
    """What only a node is told."""


class NodeUnauthorised(OperatorRefusal):
    status = 401
    codes = ("bad_signature", "stale_time", "unknown_session")


class NodeForbidden(OperatorRefusal):
    """The node may not serve now, and its daemon prints the reason and ends; or it may not touch this attempt."""

    status = 403
    codes = ("not_staked", "in_cooldown", "key_mismatch", "not_your_attempt")


class NodeConflict(OperatorRefusal):
    status = 409
    codes = ("tier_mismatch", "stream_offset", "receipt_refused")


class AttemptClosed(OperatorRefusal):
    """The attempt is over; whatever still comes for it is dropped."""

    status = 410
    codes = ("attempt_closed",)
