"""The same life in one process: the scenario itself is held to a second machine, and needs no node to be run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import boa
import msgspec
import pytest
from chain_scenario import Life
from chain_scene import key, named_roles
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from parallelix.chain import plan, sablier
from parallelix.chain.abi import Address, Call, Log
from parallelix.chain.deployment_file import ContractEntry, Deployment
from parallelix.chain.errors import from_revert
from parallelix.chain.plan import Create
from parallelix.chain.ports import Receipt

pytestmark = pytest.mark.evm


class Boa:
    """titanoboa's machine. Every transaction is a block of its own, a second after the one before."""

    def __init__(self) -> None:
        self._env: Any = boa.env
        self.chain_id: int = self._env.evm.patch.chain_id
        self._times: dict[str, int] = {}

    @property
    def chain(self) -> Boa:
        return self

    async def call(
        self, to: Address, data: bytes, *, sender: Address | None = None, value_wei: int = 0, block: int | None = None
    ) -> bytes:
        assert block is None, "there is only the present"
        with self._env.anchor():
            return self._executed(to, data, sender=sender, value_wei=value_wei).output

    async def logs(
        self, *, addresses: Sequence[Address], topics: Sequence[bytes], first_block: int, last_block: int
    ) -> list[Log]:
        raise AssertionError("the scenario reads receipts")

    async def send(self, account: LocalAccount, call: Call) -> Receipt:
        self._env.time_travel(seconds=1)
        done = self._executed(call.to, call.data, sender=account.address, value_wei=call.value_wei)
        number = self._env.evm.patch.block_number
        receipt = Receipt(
            transaction_hash=f"0x{len(self._times):064x}",
            block_number=number,
            gas_used=done.get_gas_used(),
            logs=tuple(log(each, number) for each in done.get_raw_log_entries()),
        )
        self._times[receipt.transaction_hash] = self._env.timestamp
        return receipt

    def create(self, code: bytes, *, sender: Address | None = None) -> Address:
        address, _ = self._env.deploy_code(bytecode=code, sender=sender)
        return to_checksum_address(str(address))

    async def time_of(self, receipt: Receipt) -> int:
        return self._times[receipt.transaction_hash]

    async def pass_time(self, seconds: int) -> None:
        self._env.time_travel(seconds=seconds)

    def _executed(self, to: Address, data: bytes, *, sender: Address | None, value_wei: int) -> Any:
        done = self._env.execute_code(to_address=to, sender=sender, data=data, value=value_wei)
        if done.is_error:
            raise from_revert(done.output)
        return done


def log(entry: tuple[int, bytes, tuple[int, ...], bytes], block_number: int) -> Log:
    index, address, topics, data = entry
    return Log(
        address=to_checksum_address(address),
        topics=tuple(topic.to_bytes(32, "big") for topic in topics),
        data=data,
        block_number=block_number,
        transaction_hash="",
        log_index=index,
    )


@pytest.fixture
def world() -> Iterator[Boa]:
    env: Any = boa.env
    with env.anchor():
        yield Boa()


async def deployed(world: Boa, sablier_folder: Path) -> Deployment:
    """The steps of a deployment, each as one transaction."""
    deployer = key("deployer")
    stream = sablier.deploy(sablier.read_packages(sablier_folder), world.create, admin=deployer.address)
    now = Deployment(chain_id=world.chain_id, deployer=deployer.address, parameters=named_roles(lockup=stream.lockup))
    for step in plan.steps_of(now):
        if isinstance(step, Create):
            address = world.create(step.data(now), sender=deployer.address)
            entry = ContractEntry(address=address, block_number=0, transaction_hash="", abi_sha256="")
            now = msgspec.structs.replace(now, contracts={**now.contracts, step.name: entry})
        else:
            assert not await step.is_done(world, now), step.name
            now = plan.after(now, step, await world.send(deployer, step.call(now)))
            assert step.name == plan.CREATE_STREAM_STEP or await step.is_done(world, now), step.name
    return now


async def test_the_same_life_in_one_process(world: Boa, sablier_folder: Path) -> None:
    await Life(world, await deployed(world, sablier_folder)).live()
