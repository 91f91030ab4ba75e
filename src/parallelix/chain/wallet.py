"""Keys and what is signed with them: transactions, and the two kinds of signed permission that contracts take.

A private key comes from a private file or the environment, never from a command line, where other users can read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from eth_account import Account
from eth_account.signers.local import LocalAccount

from parallelix import private_files
from parallelix.chain.abi import Address, Call
from parallelix.chain.errors import KeyRefused, NotMined, RpcRefused
from parallelix.chain.ports import Receipt
from parallelix.chain.rpc import Fees, Rpc
from parallelix.private_files import PrivateFileRefused

KEY_VARIABLE = "PARALLELIX_DEPLOYER_KEY"
KEY_HEX_DIGITS = 64
RECEIPT_SECONDS_MAX = 600.0
"""Fifty blocks of Ethereum, at a fee that holds while the price of a block doubles."""
POLL_SECONDS_FIRST, POLL_SECONDS_MAX = 0.02, 2.0
"""From a test node that mines at once up to a block of a public chain."""
ATTEMPTS_MAX = 10
"""Ten raises of a fee by an eighth triple it. Beyond, somebody should look."""
HARMLESS = ("nonce too low", "underpriced", "less than block base fee")
"""Refusals of a transaction that a receipt explains or a dearer attempt heals: its number was used, a dearer one is on
its way, or a block costs more by now."""
GAS_MARGIN_PERCENT = 25
GAS_MARGIN = 300_000
"""Rewards that were asked in a second in which the stream had nothing draw on it in the next, which takes up to 275,000
more. Gas that is not used is not paid for."""


def key_from(path: Path | None, environ: Mapping[str, str]) -> LocalAccount:
    """The account whose key is in the private file, or in `KEY_VARIABLE` without one. Raises `KeyRefused`."""
    if path is None:
        given = environ.get(KEY_VARIABLE, "")
        if not given:
            raise KeyRefused(f"no deployer's key: give --key-file PATH (mode 0600), or set {KEY_VARIABLE}")
        return _account(given, name=KEY_VARIABLE)
    try:
        return _account(private_files.read(path).decode("ascii", "replace"), name=str(path))
    except FileNotFoundError as error:
        raise KeyRefused(f"{path}: there is no such file; put the key there as 0x-hex, with mode 0600") from error
    except PrivateFileRefused as error:
        raise KeyRefused(str(error)) from error


def _account(text: str, *, name: str) -> LocalAccount:
    digits = text.strip().removeprefix("0x")
    if len(digits) != KEY_HEX_DIGITS:
        raise KeyRefused(
            f"{name}: {len(digits)} characters, expected 0x and {KEY_HEX_DIGITS} hex digits: a private key"
        )
    try:
        return Account.from_key(bytes.fromhex(digits))
    except ValueError:
        # Without the cause: its message may hold the key.
        raise KeyRefused(f"{name}: not a private key of Ethereum's curve in hex") from None


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A signed transaction. Whoever has `raw` can send it, and sending it twice has one effect."""

    transaction_hash: str
    raw: str
    fee_most_wei: str
    fee_tip_wei: str


def sign(
    account: LocalAccount,
    *,
    chain_id: int,
    nonce: int,
    to: Address | None,
    data: bytes,
    gas: int,
    fees: Fees,
    value_wei: int = 0,
) -> Signed:
    """Signs an EIP-1559 transaction; one without `to` creates a contract."""
    transaction: dict[str, Any] = {
        "type": 2,
        "chainId": chain_id,
        "nonce": nonce,
        "data": "0x" + data.hex(),
        "value": value_wei,
        "gas": gas,
        "maxFeePerGas": fees.most_wei,
        "maxPriorityFeePerGas": fees.tip_wei,
    }
    if to is not None:
        transaction["to"] = to
    signed = account.sign_transaction(transaction)  # pyright: ignore[reportArgumentType]
    return Signed(
        transaction_hash="0x" + signed.hash.hex(),
        raw="0x" + signed.raw_transaction.hex(),
        fee_most_wei=str(fees.most_wei),
        fee_tip_wei=str(fees.tip_wei),
    )


def dearer(last: Signed, now: Fees) -> Fees:
    """For another attempt at the same nonce: nodes take one in place of the last when both fees are an eighth more."""
    return Fees(
        most_wei=max(now.most_wei, _raised(int(last.fee_most_wei))),
        tip_wei=max(now.tip_wei, _raised(int(last.fee_tip_wei))),
    )


def _raised(fee_wei: int) -> int:
    return fee_wei * 9 // 8 + 1


def with_margin(gas: int) -> int:
    """What to allow a transaction that would take `gas` now."""
    return gas * (100 + GAS_MARGIN_PERCENT) // 100 + GAS_MARGIN


async def send_again(rpc: Rpc, attempt: Signed) -> None:
    """Hands an attempt to the endpoint, be it for the first time; a refusal that changes nothing is passed over."""
    try:
        await rpc.send_raw(bytes.fromhex(attempt.raw[2:]))
    except RpcRefused as error:
        if not any(each in error.message.lower() for each in HARMLESS):
            raise


class Wallet:
    """An account that signs and sends over one endpoint, one transaction at a time."""

    def __init__(self, rpc: Rpc, account: LocalAccount) -> None:
        self._rpc = rpc
        self.account = account

    @property
    def address(self) -> Address:
        return self.account.address

    async def send(self, call: Call) -> Receipt:
        data = call.data
        gas = await self._rpc.estimate_gas(call.to, data, sender=self.address, value_wei=call.value_wei)
        signed = sign(
            self.account,
            chain_id=await self._rpc.chain_id(),
            nonce=await self._rpc.nonce(self.address, pending=True),
            to=call.to,
            data=data,
            value_wei=call.value_wei,
            gas=with_margin(gas),
            fees=await self._rpc.fees(),
        )
        await self._rpc.send_raw(bytes.fromhex(signed.raw[2:]))
        return await self._mined(signed.transaction_hash)

    async def _mined(self, transaction_hash: str) -> Receipt:
        waited_seconds, pause_seconds = 0.0, POLL_SECONDS_FIRST
        while waited_seconds < RECEIPT_SECONDS_MAX:
            receipt = await self._rpc.receipt(transaction_hash)
            if receipt is not None:
                return receipt
            await asyncio.sleep(pause_seconds)
            waited_seconds += pause_seconds
            pause_seconds = min(2 * pause_seconds, POLL_SECONDS_MAX)
        raise NotMined(transaction_hash, waited_seconds=waited_seconds)
