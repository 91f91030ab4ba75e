# pragma version 0.4.3
# pragma evm-version cancun
# pragma nonreentrancy on
# SPDX-License-Identifier: AGPL-3.0-only
"""
@title NodeRegistryLocker
@license AGPL-3.0-only
@notice Holds the stakes of nodes. One stake is one node, and an account may have as many as it likes. Whoever staked
        gets the whole stake back, seven days after asking for it.
@dev There is no owner and no role. Principal moves in `withdrawStake` alone, to the node's owner alone. Of the rewards
     contract nothing is ever needed: it is told when a node retires, and what it does with that is its own affair.
"""

from ethereum.ercs import IERC20

from .interfaces import ILocker
from .interfaces import IPRLX
from .interfaces import IRewards

implements: ILocker


struct Node:
    owner: address
    stake: uint256
    hardwareTier: uint256
    state: uint256
    nodeKeyHash: bytes32
    withdrawableAt: uint256


# What is asked of a node by every change of every liveness report: stored in one slot.
struct Registration:
    owner: address
    stake: uint256
    hardwareTier: uint256
    state: uint256


event RewardsBound:
    rewards: indexed(address)


event NodeRegistered:
    nodeId: indexed(uint256)
    owner: indexed(address)
    nodeKeyHash: indexed(bytes32)
    stake: uint256
    hardwareTier: uint256
    totalPrincipal: uint256


event UnstakeRequested:
    nodeId: indexed(uint256)
    owner: indexed(address)
    withdrawableAt: uint256


event RewardsNotTold:
    nodeId: indexed(uint256)


event StakeWithdrawn:
    nodeId: indexed(uint256)
    owner: indexed(address)
    amount: uint256
    totalPrincipal: uint256


event SurplusRecovered:
    amount: uint256


MINIMUM_STAKE: public(constant(uint256)) = 50_000 * 10**18
COOLDOWN_SECONDS: public(constant(uint256)) = 604_800
LOWEST_TIER: constant(uint256) = 1
HIGHEST_TIER: constant(uint256) = 4

# The states of a node, of which nothing leads back; 0 is a node that never was.
STATE_ACTIVE: constant(uint256) = 1
STATE_COOLING: constant(uint256) = 2
STATE_WITHDRAWN: constant(uint256) = 3

# More than the rewards contract can need for a node even when the stream that it draws on burns all gas that it is given,
# and far below what fits in a block.
REWARDS_GAS: constant(uint256) = 700_000
# A call gets at most 63/64 of what is left (EIP-150), less what the call itself costs and what is to be done after it.
REWARDS_CALL_GAS: constant(uint256) = REWARDS_GAS + REWARDS_GAS // 63 + 10_000

token: public(immutable(address))
treasury: public(immutable(address))
deployer: public(immutable(address))

rewards: public(address)
totalPrincipal: public(uint256)
_node_count: uint256
# Low bits first: owner 160 | stake 88, which the supply of PRLX does not fill | hardware tier 4 | state 4
_registrations: HashMap[uint256, uint256]
_key_hashes: HashMap[uint256, bytes32]
_withdrawable_at: HashMap[uint256, uint256]
_active_node_of_key: HashMap[bytes32, uint256]


@deploy
def __init__(prlx: address, treasuryAccount: address):
    """
    @param prlx The PRLX token.
    @param treasuryAccount Where tokens go that came here without being a stake.
    """
    assert prlx != empty(address) and treasuryAccount != empty(address), "locker: zero address"
    token = prlx
    treasury = treasuryAccount
    deployer = msg.sender


# Anyone


@external
def registerNode(stakeAmount: uint256, hardwareTier: uint256, nodeKeyHash: bytes32) -> uint256:
    """
    @notice Stakes PRLX for one new node of the caller, who must have approved this contract for the amount.
    @dev What arrived is booked, whatever was asked for, and must itself reach the minimum. No state is written before
         the tokens are here; the lock keeps the token from coming back in between.
    @param stakeAmount What to stake, in wei; at least MINIMUM_STAKE must arrive.
    @param hardwareTier 1 to 4.
    @param nodeKeyHash Hash of the node's public key; no active node may have the same.
    @return The id of the node, counted from 1 and never used again.
    """
    self._check_registration(stakeAmount, hardwareTier, nodeKeyHash)
    return self._register(self._receive(stakeAmount), hardwareTier, nodeKeyHash)


@external
def recoverSurplus() -> uint256:
    """
    @notice Sends what was transferred here without being a stake to the treasury.
    @return The surplus in wei.
    """
    surplus: uint256 = staticcall IERC20(token).balanceOf(self) - self.totalPrincipal
    assert surplus > 0, "locker: no surplus"
    self._recover(surplus)
    return surplus


# The owner of a node


@external
def requestUnstake(nodeId: uint256):
    """
    @notice Retires the caller's node for good and starts the cooldown of seven days.
    @dev The rewards contract is told last, and with gas enough: it may be missing, broken or hostile, and a caller who
         brings too little gas may not keep a retired node earning.
    @param nodeId A node of the caller that is active.
    """
    registration: Registration = self._registration_of_caller(nodeId)
    assert registration.state == STATE_ACTIVE, "locker: node is already retired"
    self._retire(nodeId, registration)
    self._tell_rewards(nodeId)


@external
def withdrawStake(nodeId: uint256):
    """
    @notice Pays the whole stake of a retired node to the caller, its owner, once its cooldown is over.
    @dev Asks nobody but the token, which knows no pause and takes no tax from this contract.
    @param nodeId A node of the caller that is cooling down.
    """
    registration: Registration = self._registration_of_caller(nodeId)
    assert registration.state != STATE_ACTIVE, "locker: node is not cooling down"
    assert registration.state == STATE_COOLING, "locker: stake was withdrawn"
    assert block.timestamp >= self._withdrawable_at[nodeId], "locker: cooldown is not over"
    self._withdraw(nodeId, registration)


# The deployer, once


@external
def bindRewards(rewardsContract: address):
    """
    @notice Names the rewards contract, once and for good.
    @param rewardsContract A contract whose `locker()` is this one.
    """
    assert msg.sender == deployer, "locker: caller is not the deployer"
    assert self.rewards == empty(address), "locker: rewards already bound"
    assert self._serves_this_locker(rewardsContract), "locker: rewards serve another locker"
    self.rewards = rewardsContract
    log RewardsBound(rewards=rewardsContract)


# Views. Those of ILocker answer while this contract is locked, too: state is written before the rewards contract is
# told, so what it reads then is what holds afterwards.


@view
@external
@reentrant
def ownerOf(nodeId: uint256) -> address:
    """
    @notice The account that staked for the node, also after the withdrawal; the zero address when there is no such node.
    """
    return self._load(nodeId).owner


@view
@external
@reentrant
def registration(nodeId: uint256) -> (address, uint256, uint256, uint256):
    """
    @notice Owner, stake in wei, hardware tier and state (0 none, 1 active, 2 cooling, 3 withdrawn) of a node.
    """
    found: Registration = self._load(nodeId)
    return found.owner, found.stake, found.hardwareTier, found.state


@view
@external
@reentrant
def nodeCount() -> uint256:
    """
    @notice The highest node id so far; ids are 1, 2, ...
    """
    return self._node_count


@view
@external
def nodes(nodeId: uint256) -> Node:
    """
    @notice All that is stored of a node: nothing of it is forgotten when the stake was withdrawn.
    @dev `withdrawableAt` is a time in seconds, 0 while the node is active.
    """
    found: Registration = self._load(nodeId)
    return Node(
        owner=found.owner,
        stake=found.stake,
        hardwareTier=found.hardwareTier,
        state=found.state,
        nodeKeyHash=self._key_hashes[nodeId],
        withdrawableAt=self._withdrawable_at[nodeId],
    )


@view
@external
def nodeOfKey(nodeKeyHash: bytes32) -> uint256:
    """
    @notice The id of the active node with this key hash; 0 when there is none.
    """
    return self._active_node_of_key[nodeKeyHash]


# Checks


@view
def _check_registration(stake_wei: uint256, hardware_tier: uint256, node_key_hash: bytes32):
    assert hardware_tier >= LOWEST_TIER and hardware_tier <= HIGHEST_TIER, "locker: tier is not 1 to 4"
    assert node_key_hash != empty(bytes32), "locker: node key hash is empty"
    assert self._active_node_of_key[node_key_hash] == 0, "locker: node key is in use"
    assert stake_wei >= MINIMUM_STAKE, "locker: below minimum stake"
    # Otherwise the way back would be taxed, and nobody could return the principal in full.
    assert staticcall IPRLX(token).isExempt(self), "locker: not exempt from the transfer tax"


@view
def _registration_of_caller(node_id: uint256) -> Registration:
    registration: Registration = self._load(node_id)
    assert registration.owner != empty(address), "locker: no such node"
    assert msg.sender == registration.owner, "locker: caller is not the owner of the node"
    return registration


@view
def _serves_this_locker(rewards_contract: address) -> bool:
    if not rewards_contract.is_contract:
        return False
    return staticcall IRewards(rewards_contract).locker() == self


# Changes


def _receive(asked_wei: uint256) -> uint256:
    before: uint256 = staticcall IERC20(token).balanceOf(self)
    assert extcall IERC20(token).transferFrom(msg.sender, self, asked_wei), "locker: token transfer failed"
    received: uint256 = staticcall IERC20(token).balanceOf(self) - before
    assert received >= MINIMUM_STAKE, "locker: below minimum stake"
    return received


def _register(stake_wei: uint256, hardware_tier: uint256, node_key_hash: bytes32) -> uint256:
    node_id: uint256 = self._node_count + 1
    self._node_count = node_id
    self._store(
        node_id,
        Registration(owner=msg.sender, stake=stake_wei, hardwareTier=hardware_tier, state=STATE_ACTIVE),
    )
    self._key_hashes[node_id] = node_key_hash
    self._active_node_of_key[node_key_hash] = node_id
    self.totalPrincipal += stake_wei
    log NodeRegistered(
        nodeId=node_id,
        owner=msg.sender,
        nodeKeyHash=node_key_hash,
        stake=stake_wei,
        hardwareTier=hardware_tier,
        totalPrincipal=self.totalPrincipal,
    )
    return node_id


def _retire(node_id: uint256, registration: Registration):
    withdrawable_at: uint256 = block.timestamp + COOLDOWN_SECONDS
    retired: Registration = registration
    retired.state = STATE_COOLING
    self._store(node_id, retired)
    self._withdrawable_at[node_id] = withdrawable_at
    self._active_node_of_key[self._key_hashes[node_id]] = 0
    log UnstakeRequested(nodeId=node_id, owner=msg.sender, withdrawableAt=withdrawable_at)


def _tell_rewards(node_id: uint256):
    rewards: address = self.rewards
    if rewards == empty(address):
        return
    assert msg.gas >= REWARDS_CALL_GAS, "locker: too little gas to tell the rewards"
    # No byte of an answer is copied, so that a huge one costs nothing here.
    told: bool = raw_call(
        rewards,
        abi_encode(node_id, method_id=method_id("nodeRetired(uint256)")),
        gas=REWARDS_GAS,
        max_outsize=0,
        revert_on_failure=False,
    )
    if not told:
        log RewardsNotTold(nodeId=node_id)


def _withdraw(node_id: uint256, registration: Registration):
    owner: address = registration.owner
    stake_wei: uint256 = registration.stake
    withdrawn: Registration = registration
    withdrawn.state = STATE_WITHDRAWN
    self._store(node_id, withdrawn)
    self.totalPrincipal -= stake_wei
    log StakeWithdrawn(nodeId=node_id, owner=owner, amount=stake_wei, totalPrincipal=self.totalPrincipal)
    assert extcall IERC20(token).transfer(owner, stake_wei), "locker: token transfer failed"


def _recover(surplus_wei: uint256):
    log SurplusRecovered(amount=surplus_wei)
    assert extcall IERC20(token).transfer(treasury, surplus_wei), "locker: token transfer failed"


# Storage


@view
def _load(node_id: uint256) -> Registration:
    word: uint256 = self._registrations[node_id]
    return Registration(
        owner=convert(word & (2**160 - 1), address),
        stake=(word >> 160) & (2**88 - 1),
        hardwareTier=(word >> 248) & 15,
        state=word >> 252,
    )


def _store(node_id: uint256, registration: Registration):
    # Reverts for a stake that does not fit: no token with the supply of PRLX can bring one.
    stake: uint256 = convert(convert(registration.stake, uint88), uint256)
    self._registrations[node_id] = (
        convert(registration.owner, uint256)
        | (stake << 160)
        | (registration.hardwareTier << 248)
        | (registration.state << 252)
    )
