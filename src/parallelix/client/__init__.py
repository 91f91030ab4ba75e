"""The requester's side: the SDK (`Client`) and the `parallelix` command.

Names are loaded when they are first asked for, so that the command starts without an HTTP client it may not need.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parallelix.client.errors import (
        BadAnswer,
        ClientError,
        NotFound,
        NotRecordedYet,
        PaymentRequired,
        RateLimited,
        Refused,
        RequestCancelled,
        RequestEnded,
        RequestExpired,
        RequestFailed,
        Unauthorised,
        Unavailable,
        Unreachable,
    )
    from parallelix.client.events import Answer, Created, Delta, Ended, Event, Progress, Restarted
    from parallelix.client.kept import KeptAnswer
    from parallelix.client.retry import Retry
    from parallelix.client.sdk import Client, chat

_HOMES = {
    "parallelix.client.sdk": ("Client", "chat"),
    "parallelix.client.retry": ("Retry",),
    "parallelix.client.kept": ("KeptAnswer",),
    "parallelix.client.events": ("Answer", "Created", "Delta", "Ended", "Event", "Progress", "Restarted"),
    "parallelix.client.errors": (
        "BadAnswer", "ClientError", "NotFound", "NotRecordedYet", "PaymentRequired", "RateLimited", "Refused",
        "RequestCancelled", "RequestEnded", "RequestExpired", "RequestFailed", "Unauthorised", "Unavailable",
        "Unreachable",
    ),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "Answer", "BadAnswer", "Client", "ClientError", "Created", "Delta", "Ended", "Event", "KeptAnswer", "NotFound",
    "NotRecordedYet", "PaymentRequired", "Progress", "RateLimited", "Refused", "RequestCancelled", "RequestEnded",
    "RequestExpired", "RequestFailed", "Restarted", "Retry", "Unauthorised", "Unavailable", "Unreachable", "chat",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(home), name)
