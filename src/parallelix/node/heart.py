"""Heartbeats: every ten seconds on the coordinator's clock, whatever else the node does, each kept with its receipt.

A coordinator that was started anew may have lost the slots of its last minute: it is sent the receipts of the last ten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from parallelix.node.events import Reporter
from parallelix.node.life import Life
from parallelix.node.link import Link, NotBacked, Refused, SessionUnknown, StaleTime, Unavailable
from parallelix.node.session import Session
from parallelix.node.uptime_log import UptimeLog
from parallelix.protocol import messages, signing
from parallelix.protocol.encoding import from_hex
from parallelix.protocol.errors import ProtocolError

RESTORED_MS = 600_000
_SPREAD = 2654435761
"""Knuth's multiplicative hash: neighbouring node ids beat at different times."""


class Heart:
    """`describe` gives the body of the next heartbeat."""

    def __init__(
        self,
        *,
        node_id: int,
        chain_id: int,
        link: Link,
        session: Session,
        describe: Callable[[], messages.Heartbeat],
        life: Life,
        uptime_log: UptimeLog,
        reporter: Reporter,
    ) -> None:
        self.told_paused = asyncio.Event()
        """Set once the coordinator has answered a heartbeat that said `paused`."""
        self._node_id = node_id
        self._chain_id = chain_id
        self._link = link
        self._session = session
        self._describe = describe
        self._life = life
        self._uptime_log = uptime_log
        self._reporter = reporter
        self._now = asyncio.Event()
        self._restored_to: int | None = None

    def beat_soon(self) -> None:
        self._now.set()

    async def run(self) -> None:
        """For ever. Raises `NotBacked`."""
        while True:
            heartbeat = self._describe()
            self._now.clear()
            try:
                receipt = await self._session.until_answered(lambda: self._link.heartbeat(heartbeat))  # noqa: B023
            except NotBacked:
                raise
            except Refused as error:
                self._reporter.tell("heartbeat.refused", level="warning", reason=str(error))
            else:
                self._life.beat(receipt.notice)
                self._keep(receipt)
                if receipt.started_at != self._restored_to:
                    await self._restore(receipt)
                (self.told_paused.set if heartbeat.paused else self.told_paused.clear)()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._seconds_to_next()):
                    await self._now.wait()

    def _seconds_to_next(self) -> float:
        """To a moment in the middle half of the next slot that is this node's own: the nodes' beats spread out, and a
        late one still falls into its slot."""
        period = self._session.facts.heartbeat_seconds
        phase = period * (0.25 + 0.5 * (self._node_id * _SPREAD % 2**32) / 2**32)
        return period - (self._link.clock.now_ms() / 1000 - phase) % period

    def _keep(self, receipt: messages.UptimeReceipt) -> None:
        if not self._is_genuine(receipt):
            self._reporter.tell("receipt.refused", level="warning", slot=receipt.slot, reason="not the coordinator's")
            return
        try:
            self._uptime_log.append(receipt)
        except OSError as error:
            self._reporter.tell("receipt.lost", level="warning", slot=receipt.slot, reason=error.strerror or "disk")

    async def _restore(self, newest: messages.UptimeReceipt) -> None:
        """Sends the last receipts to a coordinator that has started since. Raises `NotBacked`."""
        try:
            receipts = self._uptime_log.recent(newest.unix_ms - RESTORED_MS)
            answer = await self._link.restore_uptime(tuple(_proof(each) for each in receipts if self._is_ours(each)))
        except NotBacked:
            raise
        except (Unavailable, SessionUnknown, StaleTime):
            # With the next heartbeat, then.
            return
        except (Refused, OSError) as error:
            self._reporter.tell("receipts.refused", level="warning", reason=str(error))
        else:
            if answer.credited:
                self._reporter.tell("receipts.restored", slots=answer.credited)
        self._restored_to = newest.started_at

    def _is_ours(self, receipt: messages.UptimeReceipt) -> bool:
        """A home may have served another node id, or another coordinator, before."""
        return receipt.node_id == str(self._node_id) and self._is_genuine(receipt)

    def _is_genuine(self, receipt: messages.UptimeReceipt) -> bool:
        text = signing.receipt_text(self._chain_id, self._node_id, receipt.session, receipt.unix_ms)
        try:
            signature = from_hex(receipt.signature, name="signature", length_bytes=signing.SIGNATURE_BYTES)
            signer = signing.public_key_hash(signing.recover_public_key(text, signature))[12:]
        except ProtocolError:
            return False
        return signing.checksum_address(signer).lower() == self._session.facts.coordinator.lower()


def _proof(receipt: messages.UptimeReceipt) -> messages.UptimeProof:
    return messages.UptimeProof(session=receipt.session, unix_ms=receipt.unix_ms, signature=receipt.signature)
