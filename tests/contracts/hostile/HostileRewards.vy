# pragma version 0.4.3
# pragma evm-version cancun
# SPDX-License-Identifier: AGPL-3.0-only
"""
@title A rewards contract that does its worst when the locker tells it something.
@license AGPL-3.0-only
"""

from ethereum.ercs import IERC20


interface Locker:
    def registerNode(stakeAmount: uint256, hardwareTier: uint256, nodeKeyHash: bytes32) -> uint256: nonpayable
    def requestUnstake(nodeId: uint256): nonpayable
    def registration(nodeId: uint256) -> (address, uint256, uint256, uint256): view


REVERT: constant(uint256) = 1
BURN_GAS: constant(uint256) = 2
ANSWER_AT_LENGTH: constant(uint256) = 3
REVERT_AT_LENGTH: constant(uint256) = 4
REENTER: constant(uint256) = 5

STAKE: constant(uint256) = 50_000 * 10**18
TIER: constant(uint256) = 1

locker: public(address)
mode: public(uint256)
otherNode: public(uint256)
timesTold: public(HashMap[uint256, uint256])
gasSeen: public(uint256)
stateSeen: public(uint256)
reentriesTried: public(uint256)
reentriesDone: public(uint256)
_burnt: uint256


@deploy
def __init__(locker: address):
    self.locker = locker


@external
def behave(mode: uint256, otherNode: uint256):
    """
    @notice What to do when told: 0 obeys, 5 tries to get at `otherNode`, which this contract owns.
    """
    self.mode = mode
    self.otherNode = otherNode


@external
@raw_return
def nodeRetired(nodeId: uint256) -> Bytes[131_072]:
    seen: uint256 = msg.gas
    assert self.mode != REVERT, "hostile: no"
    if self.mode == BURN_GAS:
        for i: uint256 in range(max_value(uint256)):
            self._burnt = i
    if self.mode == REVERT_AT_LENGTH:
        raw_revert(abi_encode(empty(bytes32[4_096])))
    if self.mode == REENTER:
        self._reenter()
    self._note(nodeId, seen)
    if self.mode == ANSWER_AT_LENGTH:
        return abi_encode(empty(bytes32[4_096]))
    return b""


@external
def registerThere(token: IERC20, stake: uint256, key: bytes32) -> uint256:
    extcall token.approve(self.locker, stake)
    return extcall Locker(self.locker).registerNode(stake, 1, key)


@external
def requestThere(nodeId: uint256):
    extcall Locker(self.locker).requestUnstake(nodeId)


def _note(node_id: uint256, gas_seen: uint256):
    owner: address = empty(address)
    stake: uint256 = 0
    tier: uint256 = 0
    self.timesTold[node_id] += 1
    self.gasSeen = gas_seen
    owner, stake, tier, self.stateSeen = staticcall Locker(self.locker).registration(node_id)


def _reenter():
    other: uint256 = self.otherNode
    self._try(abi_encode(other, method_id=method_id("requestUnstake(uint256)")))
    self._try(abi_encode(other, method_id=method_id("withdrawStake(uint256)")))
    self._try(method_id("recoverSurplus()"))
    self._try(abi_encode(self, method_id=method_id("bindRewards(address)")))
    self._try(abi_encode(STAKE, TIER, keccak256("again"), method_id=method_id("registerNode(uint256,uint256,bytes32)")))


def _try(call: Bytes[100]):
    done: bool = raw_call(self.locker, call, max_outsize=0, revert_on_failure=False)
    self.reentriesTried += 1
    if done:
        self.reentriesDone += 1
