"""What the coordinator thinks of this node: what of it is worth a line of the log, and how `status` shows it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from parallelix.node.events import DaemonEvent
from parallelix.protocol.messages import Notice

_LAST_SECOND = int(datetime.max.replace(tzinfo=UTC).timestamp()) - 1


def news(before: Notice | None, after: Notice) -> list[DaemonEvent]:
    """Lines of the log: what changed from one heartbeat to the next. `before` is None at the first of all."""
    old = before if before is not None else Notice(rate_percent=after.rate_percent)
    found: list[DaemonEvent] = []
    if after.removed_until != old.removed_until:
        if after.removed_until:
            found.append(DaemonEvent(name="removed", fields={"until": when(after.removed_until)}, level="warning"))
        else:
            found.append(DaemonEvent(name="readmitted"))
    if after.benched != old.benched:
        if after.benched:
            found.append(DaemonEvent(name="benched", fields={"reason": after.benched}, level="warning"))
        else:
            found.append(DaemonEvent(name="unbenched"))
    if after.strikes > old.strikes:
        found.append(DaemonEvent(name="unacknowledged", fields={"count": after.strikes}, level="warning"))
    if after.disagreed > old.disagreed:
        found.append(DaemonEvent(name="audit.disagreed", fields={"count": after.disagreed}, level="warning"))
    if after.rate_percent != old.rate_percent:
        found.append(DaemonEvent(name="sampling", fields={"rate_percent": after.rate_percent}))
    return found


def lines(notice: Notice) -> Iterable[tuple[str, str]]:
    """(label, value) for `status`."""
    yield "audits", _audits(notice)
    if notice.floor:
        yield "speed floor", notice.floor
        proven = when(notice.proven_at) if notice.proven_at else "not yet"
        yield "proven", f"{proven} · valid until {when(notice.prove_until)}"
    if notice.strikes:
        units = "unit" if notice.strikes == 1 else "units running"
        yield "missed", f"{notice.strikes} {units} not acknowledged in time"
    if notice.benched:
        yield "benched", notice.benched
    if notice.removed_until:
        yield "removed", f"until {when(notice.removed_until)}"


def _audits(notice: Notice) -> str:
    if not notice.rate_percent:
        return "off"
    agreed = max(0, notice.audited - notice.disagreed)
    return f"{notice.rate_percent} % of results · {agreed} passed · {notice.disagreed} disagreed"


def when(unix_ms: int) -> str:
    """A moment as people write it, in UTC."""
    seconds = unix_ms // 1000
    if not 0 < seconds <= _LAST_SECOND:
        return "never"
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
