"""Everything that whoever runs a coordinator can set, with the defaults of one machine."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from parallelix.engine.settings import SECOND_MS, EngineSettings
from parallelix.protocol.encoding import whole

DAY_SECONDS = 86_400
RPC_VARIABLE = "PARALLELIX_RPC_URL"
"""Hosted endpoints carry the customer's key in their URL, which a command line would show to everybody."""


class SettingsError(Exception):
    """The settings file cannot be used; the message names the entry and the bound."""


class CoordinatorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Read from `coordinator.toml` in the data folder, where there is one; the command line overrides it."""

    data_folder: str
    """Holds the store (unless `store_url` says otherwise), the keys, and by default registry and catalogue."""
    store_url: str = ""
    """Empty: SQLite in the data folder. `postgresql://…` for PostgreSQL."""
    registry_file: str = ""
    catalogue_file: str = ""
    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 8400
    public_url: Annotated[str, whole(r"(https?://[a-z0-9.:\[\]-]{1,253}(/[A-Za-z0-9._~/-]{0,200})?)?")] = ""
    """Where requesters reach this coordinator, such as https://parallelix.io/api: the place that a wallet signs in to.
    Empty: the address that a call comes in at, which is right where no proxy stands between."""
    chain_id: Annotated[int, Meta(ge=1, le=2**53 - 1)] = 31337
    connections_per_address_max: Annotated[int, Meta(ge=1, le=65536)] = 4096
    """A university behind one address. Loopback is exempt; a proxy on another machine brings everybody."""

    batch_seconds: Annotated[float, Meta(ge=0.01, le=DAY_SECONDS)] = 600.0
    batch_records_max: Annotated[int, Meta(ge=1, le=65536)] = 4096
    deadline_seconds: Annotated[float, Meta(ge=1, le=3600)] = 120.0
    """The deadline of a request that states none."""
    acknowledge_seconds: Annotated[float, Meta(ge=0.1, le=600)] = 10.0
    offline_seconds: Annotated[float, Meta(ge=0.5, le=3600)] = 30.0
    heartbeat_seconds: Annotated[float, Meta(ge=0.1, le=600)] = 10.0
    poll_seconds: Annotated[float, Meta(ge=0.1, le=120)] = 25.0
    client_grace_seconds: Annotated[float, Meta(ge=0, le=600)] = 5.0
    """How long a request whose client hung up waits for it to come back before it is cancelled."""
    cancel_grace_seconds: Annotated[float, Meta(ge=0.1, le=600)] = 10.0
    orphan_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 60.0
    restart_grace_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 30.0
    retention_seconds: Annotated[float, Meta(ge=60, le=365 * DAY_SECONDS)] = 7.0 * DAY_SECONDS
    """How long sealed payloads and results can be fetched."""
    open_payload_bytes_max: Annotated[int, Meta(ge=2**20, le=2**40)] = 512 * 1024 * 1024
    """Sealed payloads of open requests are kept in memory, so that handing one out needs no read."""

    audits: bool = True
    """Whether results are drawn and run again in part by another node (docs/audits.md)."""
    sampling_floor_percent: Annotated[int, Meta(ge=1, le=100)] = 10
    """How many of a long-trusted node's results are drawn at least: 100, 50, 20, or 10 and whatever is below."""
    prepared_percent: Annotated[int, Meta(ge=0, le=100)] = 5
    """Of the audits that agreed, how many are put to one more auditor as one whose answer is known."""
    epoch_seconds: Annotated[float, Meta(ge=0.1, le=30 * DAY_SECONDS)] = float(DAY_SECONDS)
    """How long one sampling secret is drawn with at least; then it is shown, and anybody can recompute its draws."""
    audit_queue_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 600.0
    """How long an audit waits for a second node, or a third."""
    audit_deadline_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 60.0

    challenges: bool = True
    """Whether nodes must meet the speed floors of the catalogue, and acknowledge what they are given."""
    proof_seconds: Annotated[float, Meta(ge=1, le=30 * DAY_SECONDS)] = 21_600.0
    """For so long after a node met its tier's speed floor it need not show it again."""
    challenge_lead_seconds: Annotated[float, Meta(ge=0.1, le=30 * DAY_SECONDS)] = 3600.0
    """So long before that time is over an idle node is challenged."""
    challenge_retry_seconds: Annotated[float, Meta(ge=0.1, le=DAY_SECONDS)] = 600.0
    challenge_again_seconds: Annotated[float, Meta(ge=0.1, le=DAY_SECONDS)] = 60.0
    challenge_tokens: Annotated[int, Meta(ge=8, le=4096)] = 64

    deployment_file: str = ""
    """Of `parallelix chain deploy`. With it the coordinator is on that chain: nodes, deposits, batches and rewards come
    from the contracts, and `chain_id` from the file."""
    rpc_url: str = ""
    """An Ethereum JSON-RPC endpoint of that chain; PARALLELIX_RPC_URL in the environment goes before the file."""
    rpc_check_url: str = ""
    """A second endpoint, of somebody else: nothing is believed that the two do not tell alike."""
    confirmations: Annotated[int, Meta(ge=0, le=256)] = 12
    """Blocks on top of one that is believed."""
    chain_poll_seconds: Annotated[float, Meta(ge=0.05, le=60)] = 4.0
    settle_seconds: Annotated[float, Meta(ge=0.1, le=DAY_SECONDS)] = 600.0
    settle_prlx_min: Annotated[float, Meta(ge=0, le=1_000_000)] = 0.0
    """An account that owes less is settled once within the withdrawal delay. Settling it costs the settler near 20,000
    gas, however little it is: on a chain where gas has a price whoever spends next to nothing from many accounts would
    have us pay that every `settle_seconds`."""
    liveness_seconds: Annotated[float, Meta(ge=0.1, le=DAY_SECONDS)] = 600.0
    reconcile_seconds: Annotated[float, Meta(ge=0.1, le=DAY_SECONDS)] = 600.0
    """How often every balance and every node is compared with the contracts' views."""
    online_after_slots: Annotated[int, Meta(ge=1, le=360)] = 3
    offline_after_slots: Annotated[int, Meta(ge=1, le=360)] = 3
    """Ten-second slots in a row that a node is there, or is not, before the rewards contract is told of it."""
    fee_bump_seconds: Annotated[float, Meta(ge=0.1, le=3600)] = 90.0
    """A transaction that is in no block for so long is sent again, an eighth dearer."""
    fee_gwei_max: Annotated[float, Meta(ge=0.001, le=1_000_000)] = 200.0
    """The most that a unit of gas may cost; what is dearer waits."""
    clearance_seconds: Annotated[float, Meta(ge=60, le=86_400)] = 900.0
    """How long a withdrawal that was cleared can be sent; its amount is frozen until then."""
    chain_stale_seconds: Annotated[float, Meta(ge=1, le=86_400)] = 300.0
    """New work on deposits is refused when nothing was heard of the chain for so long."""
    validator_key_file: str = ""
    liveness_key_file: str = ""
    settler_key_file: str = ""
    """Ethereum keys as 0x-hex, mode 0600; by default `validator.key` and so on in the data folder."""

    log_steps: bool = False
    """Log each of the fourteen steps of every request (`steps.py`): for a demonstration, or to see where time goes."""

    @property
    def folder(self) -> Path:
        return Path(self.data_folder)

    @property
    def database_url(self) -> str:
        return self.store_url or f"sqlite:///{self.folder / 'coordinator.db'}"

    @property
    def registry_path(self) -> Path:
        return Path(self.registry_file) if self.registry_file else self.folder / "registry.json"

    @property
    def catalogue_path(self) -> Path:
        return Path(self.catalogue_file) if self.catalogue_file else self.folder / "catalogue.toml"

    @property
    def is_on_chain(self) -> bool:
        return bool(self.deployment_file)

    def key_path(self, role: Literal["validator", "liveness", "settler"]) -> Path:
        named = {
            "validator": self.validator_key_file,
            "liveness": self.liveness_key_file,
            "settler": self.settler_key_file,
        }[role]
        return Path(named) if named else self.folder / f"{role}.key"

    def engine(self) -> EngineSettings:
        return EngineSettings(
            chain_id=self.chain_id,
            deadline_ms_default=_ms(self.deadline_seconds),
            acknowledge_ms=_ms(self.acknowledge_seconds),
            offline_ms=_ms(self.offline_seconds),
            online_after_slots=self.online_after_slots,
            offline_after_slots=self.offline_after_slots,
            heartbeat_ms=_ms(self.heartbeat_seconds),
            cancel_grace_ms=_ms(self.cancel_grace_seconds),
            orphan_ms=_ms(self.orphan_seconds),
            restart_grace_ms=_ms(self.restart_grace_seconds),
            batch_ms=_ms(self.batch_seconds),
            batch_records_max=self.batch_records_max,
            audits=self.audits,
            sampling_floor_percent=self.sampling_floor_percent,
            prepared_percent=self.prepared_percent,
            audit_queue_ms=_ms(self.audit_queue_seconds),
            audit_deadline_ms=_ms(self.audit_deadline_seconds),
            challenges=self.challenges,
            proof_ms=_ms(self.proof_seconds),
            challenge_lead_ms=_ms(self.challenge_lead_seconds),
            challenge_retry_ms=_ms(self.challenge_retry_seconds),
            challenge_again_ms=_ms(self.challenge_again_seconds),
            challenge_tokens=self.challenge_tokens,
            clearance_ms=_ms(self.clearance_seconds),
            chain_stale_ms=_ms(self.chain_stale_seconds),
        )


def load(
    folder: Path, overrides: dict[str, Any] | None = None, environ: Mapping[str, str] = os.environ
) -> CoordinatorSettings:
    """The settings of the coordinator whose data lies in `folder`. Raises `SettingsError`."""
    path = folder / "coordinator.toml"
    named = {"rpc_url": environ[RPC_VARIABLE]} if environ.get(RPC_VARIABLE) else {}
    try:
        raw = tomllib.loads(path.read_text()) if path.exists() else {}
        return msgspec.convert({**raw, "data_folder": str(folder), **named, **(overrides or {})}, CoordinatorSettings)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise SettingsError(f"{path}: {error}") from error


def _ms(seconds: float) -> int:
    return round(seconds * SECOND_MS)
