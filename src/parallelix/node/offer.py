"""What this node offers: its models as the runtime has them now, and the manifest that says so."""

from __future__ import annotations

import asyncio
import importlib.metadata
import secrets
from contextlib import suppress

from parallelix.node.daemon_settings import DaemonSettings
from parallelix.node.events import Reporter
from parallelix.node.keys import NodeKeys
from parallelix.node.runtimes import base
from parallelix.protocol import messages

WORKLOAD_CLASSES = ("ai.inference",)
LOOK_SECONDS = 300.0
LOOK_SECONDS_DOWN = 10.0
"""While the runtime does not answer, work is refused; so its return is looked for more often."""


class Offer:
    """`digests` maps the names of the models on offer to the digests of their weights, as the same object for ever."""

    def __init__(self, settings: DaemonSettings, *, keys: NodeKeys, runtime: base.Runtime, reporter: Reporter) -> None:
        self.digests: dict[str, str] = {}
        self.runtime_down = False
        self._settings = settings
        self._keys = keys
        self._runtime = runtime
        self._reporter = reporter
        self._models: tuple[base.Model, ...] = ()
        self._version = ""
        self._run_id = secrets.token_hex(16)
        self._look_now = asyncio.Event()

    async def read(self) -> bool:
        """Takes over what the runtime has; whether that is news. Raises `RuntimeFailed`."""
        version = await self._runtime.version()
        allowed = self._settings.models
        found = [model for model in await self._runtime.models() if not allowed or model.name in allowed]
        models = tuple(sorted(found, key=lambda model: model.name)[: messages.MODELS_MAX])
        changed = (version, models) != (self._version, self._models)
        self._version, self._models = version, models
        self.digests.clear()
        self.digests.update((model.name, model.digest) for model in models)
        return changed

    def look_soon(self) -> None:
        """Something that was offered was not there, or failed."""
        self._look_now.set()

    async def changed(self) -> None:
        """Returns when something else is on offer, or the runtime went down or came back."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS_DOWN if self.runtime_down else LOOK_SECONDS):
                    await self._look_now.wait()
            self._look_now.clear()
            was_down = self.runtime_down
            try:
                changed = await self.read()
            except base.RuntimeFailed as error:
                self.runtime_down = True
                if not was_down:
                    self._reporter.tell("runtime.down", level="warning", runtime=self._runtime.name, reason=str(error))
                    return
                continue
            self.runtime_down = False
            if was_down:
                self._reporter.tell("runtime.up", runtime=self._runtime.name)
            if changed:
                self._reporter.tell("models.changed", models=self.names)
            if was_down or changed:
                return

    @property
    def names(self) -> str:
        return ",".join(sorted(self.digests))

    def manifest(self, issued_at_ms: int) -> messages.Manifest:
        settings, version = self._settings, importlib.metadata.version("parallelix")
        return messages.Manifest(
            node_id=str(settings.node_id),
            chain_id=settings.chain_id,
            mode=settings.mode,
            hardware_tier=settings.hardware_tier,
            hardware=settings.hardware,
            region=settings.region,
            workload_classes=WORKLOAD_CLASSES,
            runtimes=(messages.RuntimeInfo(name=self._runtime.name, version=self._version[:128]),),
            models=tuple(_model_info(model) for model in self._models),
            slots=settings.slots,
            envelope_key=self._keys.envelope_public_pem,
            poe_key=self._keys.poe_public_pem,
            client_version=version,
            issued_at=issued_at_ms,
            run_id=self._run_id,
        )


def _model_info(model: base.Model) -> messages.ModelInfo:
    return messages.ModelInfo(
        name=model.name, digest=model.digest, context_tokens=model.context_tokens, features=model.features
    )
