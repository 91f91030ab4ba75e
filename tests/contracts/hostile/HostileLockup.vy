# pragma version 0.4.3
# pragma evm-version cancun
# SPDX-License-Identifier: AGPL-3.0-only
"""
@title A Lockup with one honest stream, number 1, that does its worst once it is told to.
@license AGPL-3.0-only
"""

from ethereum.ercs import IERC20


REVERT: constant(uint256) = 1
BURN_GAS: constant(uint256) = 2
ANSWER_AT_LENGTH: constant(uint256) = 3
ANSWER_SHORTLY: constant(uint256) = 4
COUNT_TOO_MUCH: constant(uint256) = 5
COUNT_BACKWARDS: constant(uint256) = 6
COUNT_WITHOUT_PAYING: constant(uint256) = 7
KEEP_THE_FEE: constant(uint256) = 8
REENTER: constant(uint256) = 9
ASK_A_FEE_AND_BURN_GAS: constant(uint256) = 10

getRecipient: public(HashMap[uint256, address])
getUnderlyingToken: public(HashMap[uint256, address])
getDepositedAmount: public(HashMap[uint256, uint256])
getRefundedAmount: public(HashMap[uint256, uint256])
isCancelable: public(HashMap[uint256, bool])
mode: public(uint256)
released: public(uint256)
withdrawn: public(uint256)
node: public(uint256)
reentriesTried: public(uint256)
reentriesDone: public(uint256)
_burnt: uint256


@deploy
def __init__(token: address, recipient: address, amount: uint256):
    self.getRecipient[1] = recipient
    self.getUnderlyingToken[1] = token
    self.getDepositedAmount[1] = amount


@external
def release(amount: uint256):
    self.released += amount


@external
def behave(mode: uint256, node: uint256):
    """
    @notice What to do from now on; 0 obeys. `node` is what reentering calls are about.
    """
    self.mode = mode
    self.node = node


@external
@payable
@raw_return
def withdrawMax(streamId: uint256, to: address) -> Bytes[32_768]:
    self._misbehave()
    assert self.mode != KEEP_THE_FEE or msg.value > 0, "hostile: the fee first"
    if self.mode in [BURN_GAS, ASK_A_FEE_AND_BURN_GAS]:
        for i: uint256 in range(max_value(uint256)):
            self._burnt = i
    if self.mode == REENTER:
        self._reenter(to)
    amount: uint256 = self.released - self.withdrawn
    if self.mode != KEEP_THE_FEE:
        self.withdrawn += amount
        if self.mode != COUNT_WITHOUT_PAYING:
            extcall IERC20(self.getUnderlyingToken[1]).transfer(to, amount)
    return self._answer(amount)


@view
@external
@raw_return
def getWithdrawnAmount(streamId: uint256) -> Bytes[32_768]:
    self._misbehave()
    if self.mode == ASK_A_FEE_AND_BURN_GAS:
        for i: uint256 in range(max_value(uint256)):
            assert msg.gas > 0
    if self.mode == COUNT_TOO_MUCH:
        return abi_encode(max_value(uint256))
    if self.mode == COUNT_BACKWARDS:
        return abi_encode(empty(uint256))
    return self._answer(self.withdrawn)


@view
@external
@raw_return
def withdrawableAmountOf(streamId: uint256) -> Bytes[32_768]:
    self._misbehave()
    if self.mode == COUNT_TOO_MUCH:
        return abi_encode(max_value(uint256))
    return self._answer(self.released - self.withdrawn)


@view
@external
@raw_return
def calculateMinFeeWei(streamId: uint256) -> Bytes[32_768]:
    self._misbehave()
    if self.mode == KEEP_THE_FEE:
        return self._answer(msg.sender.balance)
    if self.mode == ASK_A_FEE_AND_BURN_GAS:
        return self._answer(1)
    return self._answer(0)


@view
def _misbehave():
    assert self.mode != REVERT, "hostile: no"
    if self.mode == BURN_GAS:
        for i: uint256 in range(max_value(uint256)):
            assert msg.gas > 0


@view
def _answer(number: uint256) -> Bytes[32_768]:
    if self.mode == ANSWER_AT_LENGTH:
        return abi_encode(empty(bytes32[1_021]), number)
    if self.mode == ANSWER_SHORTLY:
        return slice(abi_encode(number), 0, 31)
    return abi_encode(number)


def _reenter(rewards: address):
    self._try(rewards, method_id("pull()"))
    self._try(rewards, abi_encode(self.node, method_id=method_id("claim(uint256)")))
    self._try(rewards, abi_encode(self.node, method_id=method_id("sync(uint256)")))
    self._try(rewards, abi_encode(self.node, method_id=method_id("earned(uint256)")))
    self._try(rewards, abi_encode(self.node, method_id=method_id("nodeRetired(uint256)")))


def _try(rewards: address, call: Bytes[36]):
    done: bool = raw_call(rewards, call, max_outsize=0, revert_on_failure=False)
    self.reentriesTried += 1
    if done:
        self.reentriesDone += 1
