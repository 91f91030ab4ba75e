"""What the tests of the chain share: accounts, and a deployment's progress that nobody reads."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

import services
from parallelix.chain.abi import Address
from parallelix.chain.deployment_file import Parameters, StepEntry

ETHER = 10**18
PRLX = 10**18
GWEI = 10**9


@dataclass(frozen=True, kw_only=True)
class Ethereum:
    """A real anvil with a real Sablier Lockup on it."""

    anvil: services.Anvil
    lockup: Address

    @property
    def url(self) -> str:
        return self.anvil.url

    @contextmanager
    def undone(self) -> Generator[None]:
        """What happens inside has not happened afterwards. anvil itself would leave the price of gas as it is."""
        self.anvil.ask("anvil_setNextBlockBaseFeePerGas", hex(GWEI))
        before = self.anvil.ask("evm_snapshot")
        yield
        self.anvil.ask("evm_revert", before)
        self.anvil.ask("anvil_setNextBlockBaseFeePerGas", hex(GWEI))


def key(name: str) -> LocalAccount:
    """The same account for the same name, on every run."""
    return Account.from_key(keccak(text=f"parallelix test account: {name}"))


def funded(anvil: services.Anvil, account: LocalAccount) -> LocalAccount:
    """With enough to pay fees."""
    anvil.ask("anvil_setBalance", account.address, hex(1_000 * ETHER))
    return account


def named_roles(*, lockup: Address = "") -> Parameters:
    """An account of its own for each role, and else the public network's constants."""
    return Parameters(
        owner=key("owner").address,
        validator=key("validator").address,
        liveness=key("liveness").address,
        settler=key("settler").address,
        guardian=key("guardian").address,
        treasury=key("treasury").address,
        infrastructure=key("infrastructure").address,
        lockup=lockup,
    )


class Silent:
    def waiting(self, step: str, what: str) -> None:
        pass

    def done(self, entry: StepEntry, contract: Address) -> None:
        pass
