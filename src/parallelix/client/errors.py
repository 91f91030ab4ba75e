"""What a requester is told when something cannot be done, with the exit code of the command.

ClientError                    exit 1
├── ConfigRefused              exit 2  an option, a variable or a line of client.toml
├── FileRefused                exit 2  a file that cannot be read, or is not what it should be
├── KeyRefused                 exit 3  no API key, or a client.toml that others can read
├── Unreachable                exit 5  no connection, or one that broke, after all tries
├── BadAnswer                  exit 5  something answered that is no coordinator
├── Refused                    exit 4  the coordinator's own refusal: its code, message and status
│   ├── Unauthorised 401       exit 3
│   ├── PaymentRequired 402
│   ├── NotFound 404
│   ├── NotRecordedYet 409
│   ├── RateLimited 429        exit 5
│   └── Unavailable 5xx        exit 5
├── RequestEnded               exit 6  the request ended without a result
│   ├── RequestFailed
│   ├── RequestExpired
│   └── RequestCancelled
├── ExtraMissing               exit 8  this command needs more of ParalleliX than is installed
└── CoordinatorRefused         exit 1  a command on this machine's own coordinator cannot be done

Exit 7 says that a receipt does not hold: an outcome, no error. The codes of `Refused` are those of `docs/errors.md`.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_KEY = 3
EXIT_REFUSED = 4
EXIT_COORDINATOR = 5
EXIT_ENDED = 6
EXIT_UNVERIFIED = 7
EXIT_EXTRA = 8
EXIT_INTERRUPTED = 130


class ClientError(Exception):
    """`code` is stable; the message names the thing, the value, the bound and the way out. `status` is the HTTP
    status where the coordinator answered."""

    code: str = "client.failed"
    exit_code: ClassVar[int] = EXIT_FAILED
    status: int | None = None

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigRefused(ClientError):
    code = "client.config_refused"
    exit_code = EXIT_USAGE


class FileRefused(ClientError):
    code = "client.file_refused"
    exit_code = EXIT_USAGE


class KeyRefused(ClientError):
    code = "client.key_refused"
    exit_code = EXIT_KEY


class Unreachable(ClientError):
    code = "client.unreachable"
    exit_code = EXIT_COORDINATOR


class BadAnswer(ClientError):
    code = "client.bad_answer"
    exit_code = EXIT_COORDINATOR


class ExtraMissing(ClientError):
    code = "client.extra_missing"
    exit_code = EXIT_EXTRA


class CoordinatorRefused(ClientError):
    code = "coordinator.refused"


class Refused(ClientError):
    """`retry_after_seconds` is what the coordinator asked to wait; `param` names the field at fault."""

    exit_code = EXIT_REFUSED

    def __init__(
        self,
        message: str,
        *,
        code: str,
        status: int,
        retry_after_seconds: float | None = None,
        param: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after_seconds = retry_after_seconds
        self.param = param


class Unauthorised(Refused):
    exit_code = EXIT_KEY


class PaymentRequired(Refused):
    pass


class NotFound(Refused):
    pass


class NotRecordedYet(Refused):
    pass


class RateLimited(Refused):
    exit_code = EXIT_COORDINATOR


class Unavailable(Refused):
    exit_code = EXIT_COORDINATOR


class RequestEnded(ClientError):
    """The request is over without a result. `charge_wei` is 0 except for a cancelled one with a partial result."""

    exit_code = EXIT_ENDED

    def __init__(self, request_id: str, *, state: str, reason: str, charge_wei: str) -> None:
        super().__init__(f"request {request_id} {state}: {reason or 'no reason given'}; charged {charge_wei} wei")
        self.code = f"request.{state}"
        self.request_id = request_id
        self.state = state
        self.reason = reason
        self.charge_wei = charge_wei


class RequestFailed(RequestEnded):
    pass


class RequestExpired(RequestEnded):
    pass


class RequestCancelled(RequestEnded):
    pass


def refusal(
    message: str, *, code: str, status: int, retry_after_seconds: float | None = None, param: str | None = None
) -> Refused:
    """The class that fits the status."""
    kinds: dict[int, type[Refused]] = {401: Unauthorised, 402: PaymentRequired, 404: NotFound, 429: RateLimited}
    kind = kinds.get(status, Unavailable if status >= 500 else Refused)
    if code == "not_recorded_yet":
        kind = NotRecordedYet
    return kind(message, code=code, status=status, retry_after_seconds=retry_after_seconds, param=param)


def ended(request_id: str, *, state: str, reason: str, charge_wei: str) -> RequestEnded:
    kinds: dict[str, type[RequestEnded]] = {"expired": RequestExpired, "cancelled": RequestCancelled}
    return kinds.get(state, RequestFailed)(request_id, state=state, reason=reason, charge_wei=charge_wei)
