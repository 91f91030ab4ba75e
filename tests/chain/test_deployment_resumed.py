"""However often a deployment is interrupted, and wherever, it ends as if it never had been: nothing twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import msgspec
import pytest
from chain_scene import GWEI, Ethereum, Silent, key
from chain_wire import Cut, Wire, wire_to
from eth_account.signers.local import LocalAccount

from parallelix.chain import deployment, deployment_file
from parallelix.chain.abi import Call, Function
from parallelix.chain.bindings.prlx import PRLXViews
from parallelix.chain.deployment import Settings
from parallelix.chain.deployment_file import ROLES, Deployment, Parameters
from parallelix.chain.errors import AllowanceTooLow, DeploymentRefused, NotMined, RpcRefused
from parallelix.chain.rpc import Rpc, connected
from parallelix.chain.wallet import KEY_VARIABLE, Wallet

SEND = "eth_sendRawTransaction"
QUICK = Settings(lag_seconds=0.05, receipt_seconds=0.5)
RUNS_MAX = 200


class Scene:
    """One deployment over a wire that can be cut."""

    def __init__(self, wire: Wire, rpc: Rpc, deployer: LocalAccount, parameters: Parameters, path: Path) -> None:
        self.wire = wire
        self.rpc = rpc
        self.deployer = deployer
        self.parameters = parameters
        self.path = path

    async def run(self, cut: Cut | None = None) -> Deployment | None:
        """None when it was interrupted."""
        self.wire.mend(cut)
        try:
            return await deployment.deploy(self.rpc, self.deployer, self.parameters, self.path, Silent(), QUICK)
        except RpcRefused as error:
            assert "the wire was cut" in error.message
            return None

    @property
    def file(self) -> Deployment:
        found = deployment_file.read(self.path)
        assert found is not None
        return found


@pytest.fixture
async def scene(
    ethereum: Ethereum, deployer: LocalAccount, parameters: Parameters, tmp_path: Path
) -> AsyncIterator[Scene]:
    async with wire_to(ethereum.url) as (wire, url), connected(url) as rpc:
        yield Scene(wire, rpc, deployer, parameters, tmp_path / "deployment.json")


def without_fees(found: Deployment) -> Deployment:
    """Without what depends on the price of gas and on the second of the clock."""
    replace = msgspec.structs.replace
    return replace(
        found,
        steps=tuple(replace(step, transaction_hash="", gas_used=0) for step in found.steps),
        contracts={name: replace(entry, transaction_hash="") for name, entry in found.contracts.items()},
    )


def transactions_of(ethereum: Ethereum, account: LocalAccount) -> int:
    return int(ethereum.anvil.ask("eth_getTransactionCount", account.address, "latest"), 16)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_cut_at_every_transaction_it_goes_on_and_ends_the_same(
    ethereum: Ethereum, scene: Scene, deployer: LocalAccount, undisturbed: Deployment, moment: str
) -> None:
    expected = without_fees(undisturbed)
    # What never reached the chain has to be sent again before the next one can be cut.
    sends, runs = (2, 0) if moment == "before" else (1, 0)

    while await scene.run(lambda method, count: moment if method == SEND and count == sends else "") is None:
        runs += 1
        assert runs < RUNS_MAX

    assert without_fees(scene.file) == expected
    assert transactions_of(ethereum, deployer) == len(expected.steps)


def cut_at(scene: Scene, request: int, moment: str) -> Cut:
    return lambda _method, _count: moment if scene.wire.requests >= request else ""


@pytest.mark.parametrize("seed", [1, 2])
async def test_cut_at_any_request_whatever_it_goes_on_and_ends_the_same(
    scene: Scene, undisturbed: Deployment, seed: int
) -> None:
    expected = without_fees(undisturbed)
    chance = Random(seed)
    runs = 0

    while True:
        if await scene.run(cut_at(scene, chance.randint(6, 40), chance.choice(["before", "after"]))):
            break
        runs += 1
        assert runs < RUNS_MAX

    assert without_fees(scene.file) == expected
    assert runs > 5


async def test_killed_with_its_transaction_on_the_way_it_finds_the_contract_that_it_did_not_see(
    ethereum: Ethereum, deployer: LocalAccount, parameters: Parameters, tmp_path: Path
) -> None:
    path = tmp_path / "deployment.json"
    roles = [argument for role in ROLES for argument in (f"--{role}", getattr(parameters, role))]
    async with wire_to(ethereum.url) as (wire, url):
        wire.mend(lambda method, count: "hang" if (method, count) == (SEND, 2) else "")
        command = ["-m", "parallelix.client", "chain", "deploy", "--rpc", url, "--out", str(path), *roles]
        environment = {**os.environ, KEY_VARIABLE: "0x" + deployer.key.hex()}
        child = await asyncio.create_subprocess_exec(
            sys.executable, *command, "--lockup", parameters.lockup, env=environment, stdout=asyncio.subprocess.DEVNULL
        )
        await asyncio.wait_for(wire.hanging.wait(), 60)
        child.send_signal(signal.SIGKILL)
        await child.wait()
    noted = deployment_file.read(path)
    assert noted is not None and noted.pending is not None
    ethereum.anvil.ask(SEND, noted.pending.attempts[0].raw)

    async with connected(ethereum.url) as rpc:
        done = await deployment.deploy(rpc, deployer, parameters, path, Silent(), QUICK)

    assert done.address(noted.pending.name) == noted.pending.contract
    assert transactions_of(ethereum, deployer) == len(done.steps)


async def test_a_number_that_the_deployer_used_elsewhere_meanwhile_costs_no_step_and_no_second_contract(
    ethereum: Ethereum, scene: Scene, deployer: LocalAccount
) -> None:
    for count in range(2, 6):
        assert await scene.run(lambda method, asked, n=2: "before" if (method, asked) == (SEND, n) else "") is None
        scene.wire.mend()
        await spend_a_number(scene.rpc, deployer)
        assert scene.file.pending is not None, count

    done = await scene.run()

    assert done is not None and done.complete
    assert transactions_of(ethereum, deployer) == len(done.steps) + 4
    assert len({entry.address for entry in done.contracts.values()}) == 5


RECEIPT = "eth_getTransactionReceipt"


async def test_an_endpoint_that_knows_numbers_before_receipts_is_waited_for(
    ethereum: Ethereum, scene: Scene, deployer: LocalAccount, undisturbed: Deployment
) -> None:
    scene.wire.mend(lambda method, count: "empty" if method == RECEIPT and count % 4 else "")

    done = await deployment.deploy(scene.rpc, deployer, scene.parameters, scene.path, Silent(), Settings())

    assert without_fees(done) == without_fees(undisturbed)
    assert all(step.transaction_hash for step in done.steps)
    assert transactions_of(ethereum, deployer) == len(done.steps)


async def test_where_no_receipt_ever_comes_the_chain_itself_shows_what_is_done(
    ethereum: Ethereum, scene: Scene, deployer: LocalAccount
) -> None:
    scene.parameters = msgspec.structs.replace(scene.parameters, lockup="")

    done = await scene.run(lambda method, _: "empty" if method == RECEIPT else "")

    assert done is not None and done.complete
    assert {step.transaction_hash for step in done.steps} == {""}
    assert transactions_of(ethereum, deployer) == len(done.steps)


async def test_a_stream_whose_receipt_is_lost_is_not_opened_again(
    ethereum: Ethereum, scene: Scene, deployer: LocalAccount
) -> None:
    """Nothing on the chain says whose it is, and the allowance was for one."""
    with pytest.raises(AllowanceTooLow, match=r"^create stream: ") as caught:
        await scene.run(lambda method, _: "empty" if method == RECEIPT else "")

    assert caught.value.reason == "erc20: insufficient allowance"
    balance = await PRLXViews(scene.rpc, scene.file.address("PRLX")).balance_of(scene.parameters.lockup)
    assert balance == int(scene.parameters.bootstrap_amount)


async def spend_a_number(rpc: Rpc, account: LocalAccount) -> None:
    await Wallet(rpc, account).send(Call(to=key("anybody").address, function=Function("hello", ()), arguments=()))


async def test_a_finished_deployment_is_verified_and_left_as_it_is(
    ethereum: Ethereum, rpc: Rpc, parameters: Parameters, deployed: Deployment, deployment_path: Path
) -> None:
    deployer = key("deployer")
    before, sent = deployment_path.read_bytes(), transactions_of(ethereum, deployer)

    assert await deployment.deploy(rpc, deployer, parameters, deployment_path, Silent(), QUICK) == deployed

    assert (deployment_path.read_bytes(), transactions_of(ethereum, deployer)) == (before, sent)


async def test_a_transaction_whose_fee_no_longer_pays_is_sent_dearer_and_has_its_effect_once(
    ethereum: Ethereum, scene: Scene, deployer: LocalAccount
) -> None:
    ethereum.anvil.ask("evm_setAutomine", False)
    try:
        with pytest.raises(NotMined, match="run the same command again"):
            await scene.run()
        ethereum.anvil.ask("anvil_setNextBlockBaseFeePerGas", hex(20 * GWEI))
        ethereum.anvil.ask("evm_mine")
        with pytest.raises(NotMined):
            await scene.run()
        pending = scene.file.pending
        assert pending is not None
        cheap, dear = (int(each.fee_most_wei) for each in pending.attempts)
        assert cheap < 20 * GWEI < dear
        ethereum.anvil.ask("evm_mine")
    finally:
        ethereum.anvil.ask("evm_setAutomine", True)

    done = await scene.run()

    assert done is not None
    assert done.address(pending.name) == pending.contract
    assert done.contracts[pending.name].transaction_hash == pending.attempts[1].transaction_hash
    assert transactions_of(ethereum, deployer) == len(done.steps)


async def test_a_chain_that_was_begun_anew_is_not_taken_for_the_one_in_the_file(
    ethereum: Ethereum, scene: Scene
) -> None:
    with ethereum.undone():
        await scene.run()

    with pytest.raises(DeploymentRefused, match=r"PRLX: no contract stands at 0x.* another chain with the same id"):
        await scene.run()


async def test_other_code_where_a_contract_should_be_stops_the_deployment(ethereum: Ethereum, scene: Scene) -> None:
    assert await scene.run(lambda method, count: "before" if (method, count) == (SEND, 3) else "") is None
    address = scene.file.address("PRLX")
    code = ethereum.anvil.ask("eth_getCode", address, "latest")
    for other in ("0x6001", code + "00", code[:-2], code[:200] + "00" + code[202:]):
        ethereum.anvil.ask("anvil_setCode", address, other)
        with pytest.raises(DeploymentRefused, match=r"PRLX: the code at 0x.* is not that of this release"):
            await scene.run()
    # Behind the code stand the immutables, which differ from one deployment to the other.
    ethereum.anvil.ask("anvil_setCode", address, code[:-2] + "99")
    assert await scene.run(lambda method, _: "before" if method == SEND else "") is None
