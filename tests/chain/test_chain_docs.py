"""The page about deployments: its programs run, its options exist, its errors are those that there are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer.main
from chain_scene import PRLX, Ethereum, funded, key

from parallelix.chain import cli, errors
from parallelix.chain.bindings.prlx import PRLXCalls
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.rpc import Rpc
from parallelix.chain.wallet import Wallet

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "chain.md").read_text()


def programs() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


async def test_the_programs_on_the_page_stake_for_a_node_and_find_it(
    ethereum: Ethereum, rpc: Rpc, deployed: Deployment, deployment_path: Path
) -> None:
    operator = funded(ethereum.anvil, key("operator"))
    deployer = Wallet(rpc, funded(ethereum.anvil, key("deployer")))
    await deployer.send(PRLXCalls(deployed.address("PRLX")).transfer(operator.address, 100_000 * PRLX))
    path = deployment_path.with_name("operator.key")
    path.touch(mode=0o600)
    path.write_text(operator.key.hex())
    look, stake = programs()

    assert printed(stake, ethereum, path.parent) == "1\n"
    assert printed(stake, ethereum, path.parent).startswith(
        "locker: node key is in use; give each node a key of its own"
    )
    assert f"1 nodes, {50_000 * PRLX} wei staked\n" in (seen := printed(look, ethereum, path.parent))
    assert f"NodeRegistered(node_id=1, owner='{operator.address}'" in seen


def printed(program: str, ethereum: Ethereum, folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env={"PARALLELIX_RPC_URL": ethereum.url},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def test_every_option_on_the_page_exists() -> None:
    deploy: Any = typer.main.get_command(cli.app)
    options = {option for command in deploy.commands.values() for each in command.params for option in each.opts}
    named = set(re.findall(r"(?<=[ `])--[a-z][a-z-]*(?=[ `])", PAGE))

    assert len(named) > 10
    assert named <= options


def test_the_table_of_errors_is_whole() -> None:
    codes = {
        each.code for each in vars(errors).values() if isinstance(each, type) and issubclass(each, errors.ChainError)
    }

    assert set(re.findall(r"^\| `(chain\.[a-z_]+)` \|", PAGE, re.MULTILINE)) == codes - {"chain.failed"}
