"""`python -m bench.gas --report reports/gas.json`: what each call to the contracts costs, on a real chain.

Whole transactions on anvil, with Sablier's real Lockup, as receipts state them: 21,000 and the calldata included. The
network it measures on is an ordinary one: the stream runs, yesterday's income is being paid out, accounts exist.
`--table` also writes the table of docs/gas.md, which a test holds to what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from eth_account import Account
from eth_utils.crypto import keccak

from parallelix.chain import deployment, sablier
from parallelix.chain.abi import Address, Call
from parallelix.chain.bindings.credit_vault import CreditVaultCalls, Spend
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorCalls
from parallelix.chain.bindings.node_registry_locker import NodeRegistryLockerCalls
from parallelix.chain.bindings.operator_stake_rewards import LivenessChange, OperatorStakeRewardsV2Calls
from parallelix.chain.bindings.prlx import PRLXCalls
from parallelix.chain.deployment_file import ROLES, Deployment, Parameters, StepEntry
from parallelix.chain.rpc import connected
from parallelix.devnet.report import Report

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "tests")]

import services  # noqa: E402

TOKEN = 10**18
STAKE_WEI = 50_000 * TOKEN
DAY_SECONDS = 86_400
TRANSACTION_GAS_MAX = 2**24
"""What one transaction may use on Ethereum (EIP-7825)."""
ANCHOR_LIMIT = 90_000
CLAIM_LIMIT = 120_000
CHANGE_LIMIT = 30_000
FLEET = 500
BATCH = 100
ACCOUNTS = 200
RECORDS = 1_000_000
LOOKS_MAX = 1_000
"""For a receipt, each taking a few milliseconds."""
REPORT_SECONDS = 600
MORNING_SECONDS = 3_600
"""Of the day on which everything is measured, whenever that is done."""
"""Between two reports, as between two batches."""
TABLE = REPOSITORY / "docs" / "gas.md"


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """What one call took, and the most that it may take; `limit` is None where nothing was promised."""

    function: str
    case: str
    gas: int
    limit: int | None = None

    @property
    def within(self) -> bool:
        return self.limit is None or self.gas <= self.limit


class Refused(Exception):
    """A transaction that should have gone through did not."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All contracts on one chain, whose time passes when asked to."""

    anvil: services.Anvil
    deployed: Deployment
    costs: list[Cost] = field(default_factory=list[Cost])

    def address(self, contract: str) -> Address:
        return self.deployed.contracts[contract].address

    def send(self, sender: Address, call: Call) -> int:
        """Sends from an account whose key nobody has, and gives the gas that was used. Raises `Refused`."""
        return send(self.anvil, sender, call.to, call.data)

    def measure(self, function: str, case: str, sender: Address, call: Call, *, limit: int | None = None) -> int:
        gas = self.send(sender, call)
        self.costs.append(Cost(function=function, case=case, gas=gas, limit=limit))
        return gas


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gas", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--report", type=Path, default=Path("reports/gas.json"))
    parser.add_argument("--table", type=Path, nargs="?", const=TABLE, help="also write the table of the documentation")
    options = parser.parse_args(arguments)
    report = Report("gas", " ".join(("python -m bench.gas", *arguments)))
    costs, controls = measure_all()
    for name, caught in controls.items():
        report.control(name, caught)
    code = report.write(options.report, costs, passed=all(each.within for each in costs))
    print(table_of(costs), end="")
    if options.table:
        options.table.write_text(page_of(costs))
    return code


def measure_all(*, fleet: int = FLEET, accounts: int = ACCOUNTS) -> tuple[list[Cost], dict[str, bool]]:
    """Every cost, and the controls with whether they were caught. Fewer nodes or accounts leave their rows out."""
    with services.anvil() as chain, tempfile.TemporaryDirectory(prefix="parallelix-gas-") as folder:
        chain.ask("anvil_autoImpersonateAccount", True)
        # Income is shared out by the UTC day, so a report after midnight does more than one before it.
        chain.pass_time(DAY_SECONDS - int(time.time()) % DAY_SECONDS + MORNING_SECONDS)
        scene = Scene(anvil=chain, deployed=asyncio.run(deployed_on(chain, Path(folder) / "deployment.json")))
        measure_anchor(scene)
        measure_locker_and_rewards(scene, fleet)
        measure_vault(scene, accounts)
        return scene.costs, controls_of(scene)


async def deployed_on(chain: services.Anvil, path: Path) -> Deployment:
    rich = chain.ask("eth_accounts")[0]

    def create(code: bytes) -> Address:
        return receipt_of(chain, {"from": rich, "data": "0x" + code.hex()})["contractAddress"]

    lockup = sablier.deploy(sablier.read_packages(services.sablier_folder()), create, admin=rich).lockup
    deployer = Account.from_key(keccak(text="parallelix gas: deployer"))
    fund_with_ether(chain, deployer.address)
    # The deployer stays the owner: nothing here is the owner's business.
    roles: dict[str, Any] = {role: account(role) for role in ROLES} | {"owner": deployer.address}
    parameters = Parameters(**roles, lockup=lockup)
    async with connected(chain.url) as rpc:
        return await deployment.deploy(rpc, deployer, parameters, path, Silent(), deployment.Settings())


class Silent:
    def waiting(self, step: str, what: str) -> None:
        pass

    def done(self, entry: StepEntry, contract: Address) -> None:
        pass


def measure_anchor(scene: Scene) -> None:
    anchor, validator = ExecutionAnchorCalls(scene.address("ExecutionAnchor")), account("validator")
    fund_with_ether(scene.anvil, validator)
    commit = anchor.commit_sampling(0, hash_of("commitment 0"))
    scene.measure("commitSampling", "an epoch", validator, commit)
    first = 0
    for number, (records, case) in enumerate([(1, ""), (1, "1 record"), (RECORDS, f"{RECORDS:,} records")]):
        call = anchor.anchor_batch(
            head(number), head(number + 1), first, first + records - 1, hash_of(f"root {number}"), records, 0
        )
        if case:
            scene.measure("anchorBatch", case, validator, call, limit=ANCHOR_LIMIT)
        else:
            scene.send(validator, call)
        first += records


def measure_locker_and_rewards(scene: Scene, fleet: int) -> None:
    operator, reporter = account("operator"), account("liveness")
    locker = NodeRegistryLockerCalls(scene.address("NodeRegistryLocker"))
    rewards = OperatorStakeRewardsV2Calls(scene.address("OperatorStakeRewardsV2"))
    fund_with_ether(scene.anvil, operator, reporter)
    give_tokens(scene, operator, (fleet + 2) * STAKE_WEI)
    scene.send(operator, PRLXCalls(scene.address("PRLX")).approve(locker.address, 2**256 - 1))
    scene.measure("registerNode", "an account's first node", operator, registration(locker, 1))
    scene.measure("registerNode", "a further node", operator, registration(locker, 2))

    report_one = [report_of(rewards, [1], online=True), report_of(rewards, [1], online=False)]
    # So that the stream surely holds something by then, which the report draws first.
    scene.anvil.pass_time(REPORT_SECONDS)
    scene.measure("reportLiveness", "1 node, its first change", reporter, report_one[0])
    scene.anvil.pass_time(REPORT_SECONDS)
    scene.measure("claim", "the pool draws on the stream first", operator, rewards.claim(1))

    # From here on a day's income is being paid, and a day without reports has left the pool with more than is due.
    give_tokens(scene, rewards.address, 1_000 * TOKEN)
    scene.send(operator, rewards.pull())
    scene.anvil.pass_time(2 * DAY_SECONDS)
    scene.measure("reportLiveness", "1 node, a later change", reporter, report_one[1])
    scene.send(reporter, report_of(rewards, [1], online=True))
    scene.anvil.pass_time(REPORT_SECONDS)
    scene.measure("claim", "the pool holds what is due", operator, rewards.claim(1), limit=CLAIM_LIMIT)
    fresh = range(3, fleet + 3)
    for node_id in fresh:
        scene.send(operator, registration(locker, node_id))
    for size in sorted({min(BATCH, fleet), fleet}):
        measure_reports(scene, rewards, list(fresh[:size]))
    scene.anvil.pass_time(REPORT_SECONDS)
    scene.measure("requestUnstake", "an earning node", operator, locker.request_unstake(1))
    scene.anvil.pass_time(7 * DAY_SECONDS)
    scene.measure("withdrawStake", "after the cooldown", operator, locker.withdraw_stake(1))


def measure_reports(scene: Scene, rewards: OperatorStakeRewardsV2Calls, nodes: list[int]) -> None:
    """Changes of all these nodes at once: the first, where it fits a transaction, and the dearer of the next two."""
    reporter, name = account("liveness"), f"{len(nodes)} nodes"
    scene.anvil.pass_time(REPORT_SECONDS)
    if len(nodes) <= BATCH:
        gas = scene.measure("reportLiveness", f"{name}, first change", reporter, report_of(rewards, nodes, online=True))
        per_node(scene, f"{name}, first change, a node", gas, len(nodes), limit=None)
    else:
        for start in range(0, len(nodes), BATCH):
            scene.send(reporter, report_of(rewards, nodes[start : start + BATCH], online=True))
    later: list[int] = []
    for online in (False, True):
        scene.anvil.pass_time(REPORT_SECONDS)
        later.append(scene.send(reporter, report_of(rewards, nodes, online=online)))
    scene.costs.append(Cost(function="reportLiveness", case=f"{name}, later change", gas=max(later)))
    per_node(scene, f"{name}, later change, a node", max(later), len(nodes), limit=CHANGE_LIMIT)


def per_node(scene: Scene, case: str, gas: int, nodes: int, *, limit: int | None) -> None:
    """Rounded up, what the report costs as a whole shared among its nodes."""
    scene.costs.append(Cost(function="reportLiveness", case=case, gas=-(-gas // nodes), limit=limit))


def measure_vault(scene: Scene, accounts: int) -> None:
    vault = CreditVaultCalls(scene.address("CreditVault"))
    settler, requesters = account("settler"), [account(f"requester {number}") for number in range(accounts)]
    fund_with_ether(scene.anvil, settler, *requesters)
    for number, requester in enumerate(requesters):
        give_tokens(scene, requester, 1_000 * TOKEN)
        scene.send(requester, PRLXCalls(scene.address("PRLX")).approve(vault.address, 2**256 - 1))
        if number == 0:
            scene.measure("deposit", "an account's first", requester, vault.deposit(100 * TOKEN))
            scene.measure("deposit", "a later one", requester, vault.deposit(100 * TOKEN))
        else:
            scene.send(requester, vault.deposit(200 * TOKEN))
    first = vault.settle([Spend(account=requesters[0], cumulative_spent=TOKEN)])
    scene.measure("settle", "1 account, its first", settler, first)
    later = vault.settle([Spend(account=requesters[0], cumulative_spent=2 * TOKEN)])
    scene.measure("settle", "1 account, a later one", settler, later)
    for spent, case in ((3, "first"), (4, "later")):
        entries = [Spend(account=each, cumulative_spent=spent * TOKEN) for each in requesters]
        scene.measure("settle", f"{accounts} accounts, {case}", settler, vault.settle(entries))
    scene.measure("requestWithdrawal", "all", requesters[0], vault.request_withdrawal(50 * TOKEN))
    scene.anvil.pass_time(DAY_SECONDS)
    scene.measure("withdraw", "after the delay", requesters[0], vault.withdraw())


def controls_of(scene: Scene) -> dict[str, bool]:
    """Limits that what was measured must break: one that is a unit too low, and a dearer anchor's."""
    tight = [msgspec.structs.replace(each, limit=each.gas - 1) for each in scene.costs]
    anchor = next(each for each in scene.costs if each.function == "anchorBatch")
    # Two new slots a batch more, such as its first record and its count would take, in a contract that does only that.
    stores_two = bytes.fromhex("6008600c60003960086000f3" + "4360005543600155")
    made = receipt_of(scene.anvil, {"from": account("validator"), "data": "0x" + stores_two.hex()})
    two_slots = send(scene.anvil, account("validator"), made["contractAddress"], b"") - 21_000
    dearer = msgspec.structs.replace(anchor, gas=anchor.gas + 2 * two_slots)
    return {
        "a limit of one unit less": not any(each.within for each in tight),
        "a batch that also stores its count and its first record": not dearer.within,
    }


def report_of(rewards: OperatorStakeRewardsV2Calls, nodes: list[int], *, online: bool) -> Call:
    """A report on the newest batch."""
    changes = [LivenessChange(node_id=node_id, online=online, voided_slots=0) for node_id in nodes]
    return rewards.report_liveness(3, hash_of("root 2"), changes)


def registration(locker: NodeRegistryLockerCalls, node_id: int) -> Call:
    return locker.register_node(STAKE_WEI, 1 + node_id % 4, hash_of(f"key {node_id}"))


def give_tokens(scene: Scene, receiver: Address, amount_wei: int) -> None:
    scene.send(scene.deployed.deployer, PRLXCalls(scene.address("PRLX")).transfer(receiver, amount_wei))


def account(name: str) -> Address:
    """The same account for the same name, on every run."""
    return Account.from_key(keccak(text=f"parallelix gas: {name}")).address


def hash_of(text: str) -> bytes:
    return keccak(text=text)


def head(number: int) -> bytes:
    return hash_of(f"head {number}") if number else bytes(32)


def fund_with_ether(chain: services.Anvil, *accounts: Address) -> None:
    for each in accounts:
        chain.ask("anvil_setBalance", each, hex(1_000 * TOKEN))


def send(chain: services.Anvil, sender: Address, to: Address, data: bytes) -> int:
    """Gas used. Raises `Refused`."""
    receipt = receipt_of(chain, {"from": sender, "to": to, "data": "0x" + data.hex(), "gas": hex(TRANSACTION_GAS_MAX)})
    return int(receipt["gasUsed"], 16)


def receipt_of(chain: services.Anvil, transaction: dict[str, Any]) -> dict[str, Any]:
    sent = chain.ask("eth_sendTransaction", transaction)
    # Mined on arrival, and now and then not yet to be seen when the hash comes back.
    answers = (chain.ask("eth_getTransactionReceipt", sent) for _ in range(LOOKS_MAX))
    receipt = next((each for each in answers if each is not None), None)
    if receipt is None:
        raise Refused(f"a transaction to {transaction.get('to')} was not mined")
    if int(receipt["status"], 16) != 1:
        raise Refused(f"a transaction to {transaction.get('to')} reverted: {transaction['data'][:10]}")
    return receipt


def table_of(costs: list[Cost]) -> str:
    lines = ["| function | case | gas | limit |", "| --- | --- | ---: | ---: |"]
    lines += [
        f"| `{each.function}` | {each.case} | {each.gas:,} | {'' if each.limit is None else f'{each.limit:,}'} |"
        for each in costs
    ]
    return "\n".join(lines) + "\n"


def page_of(costs: list[Cost]) -> str:
    before, marker, _ = TABLE.read_text().partition("| function |")
    assert marker, f"{TABLE} has no table to replace"
    return before + table_of(costs)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
