# pragma version 0.4.3
# pragma nonreentrancy on
# SPDX-License-Identifier: AGPL-3.0-only
"""
@title OperatorStakeRewardsV2, which pays staked nodes for every second they are online
@custom:contract-name OperatorStakeRewardsV2
@license GNU Affero General Public License v3.0 only
@notice Two sources are paid out, to online nodes in proportion to stake x tier multiplier: a bootstrap allocation, at a
        constant rate, out of what its Sablier stream has released; and income, which is whatever else arrives here, that
        of one day evenly over the next. Time in which nobody is online, or reports are missing, is not paid for: it
        lengthens the tail, so that nothing is lost, and nothing piles up for somebody to snatch.
@dev Every state change goes through the same steps:
       collect     draw on the stream, and book what arrived since the last time (a claim only when it must)
       distribute  pay the seconds since then into the index
       act         change what nodes earn from now on, or pay one of them
     The pool is loaded once, handed from step to step in memory, and stored once. That is safe because no function of
     this contract can be entered while another one runs.

     Bounds, and why no number here can overflow. PRLX has a fixed supply of 10^26 wei.
       held, and each part of it     at most the supply                                             < 2^87
       total weight                  stakes in the locker x multiplier: at most 10^26 x 100         < 2^94
       paid since the beginning      the bootstrap, and for each 86,400 seconds one bucket of at most the supply; until
                                     the clock's 40 bits end, in 1.3 x 10^7 days                    < 1.3 x 10^33
       index                         paid x 10^36 / the least total weight, 5 x 10^22               < 2^155
       weight x index                10^28 x 2.6 x 10^46                                            < 2^248
       what a node has accrued       part of what is held, x 10^36                                  < 2^207
     Storing a number that does not fit reverts; nothing wraps.
"""

from ethereum.ercs import IERC20
from snekmate.auth import ownable
from snekmate.auth import ownable_2step

from .interfaces import IAnchor
from .interfaces import ILocker
from .interfaces import IPRLX
from .interfaces import IRewards
from .interfaces import ISablierLockup

implements: IRewards

initializes: ownable
initializes: ownable_2step[ownable := ownable]

# Left out: renounce_ownership, because a slip would leave nobody to name the next reporter, or to end a pause.
exports: (
    ownable_2step.accept_ownership,
    ownable_2step.owner,
    ownable_2step.pending_owner,
    ownable_2step.transfer_ownership,
)


# @dev One change of a liveness report. Each voided slot keeps the node from earning for SLOT_SECONDS from the report on.
struct LivenessChange:
    nodeId: uint256
    online: bool
    voidedSlots: uint256


# @dev What `node` tells. `weight` is that of its stake, 0 before its first report; it earns only while `earning`.
struct Node:
    weight: uint256
    voidUntil: uint256
    online: bool
    earning: bool
    retired: bool


# @dev The stream that funds the bootstrap; empty until it is bound.
struct Stream:
    lockup: address
    id: uint256


# @dev Everything but the nodes and the buckets, as functions hand it to each other.
struct Pool:
    index: uint256
    bootstrap_held: uint256
    held: uint256
    stream_withdrawn: uint256
    bootstrap_carry: uint256
    updated_at: uint256
    total_weight: uint256
    reported_at: uint256
    reported_batch: uint256
    paused: bool
    bucket_elapsed: uint256
    bucket_head: uint256
    bucket_tail: uint256


# @dev The income of one UTC day, and all income before it.
struct Bucket:
    day: uint256
    amount: uint256
    before: uint256


# @dev `source` is SOURCE_BOOTSTRAP or SOURCE_INCOME; amounts in wei.
event RewardsFunded:
    source: indexed(uint256)
    amount: uint256
    totalHeld: uint256


# @dev What was paid into the index for the time since the last checkpoint, by source, and the resulting index. Between two
# of these no weight changes: with the changes of weight, they tell what each node has earned.
event RewardsDistributed:
    bootstrap: uint256
    income: uint256
    index: uint256


event RewardsClaimed:
    nodeId: indexed(uint256)
    owner: indexed(address)
    amount: uint256
    totalHeld: uint256


# @dev The node earns from now on.
event NodeOnline:
    nodeId: indexed(uint256)
    weight: uint256
    totalWeight: uint256


# @dev The node earns nothing from now on.
event NodeOffline:
    nodeId: indexed(uint256)
    totalWeight: uint256


event SlotsVoided:
    nodeId: indexed(uint256)
    slots: uint256
    voidUntil: uint256


event LivenessReported:
    batch: indexed(uint256)
    changes: uint256
    totalWeight: uint256


event StreamBound:
    lockup: indexed(address)
    streamId: indexed(uint256)


event LivenessChanged:
    previous: indexed(address)
    current: indexed(address)


event GuardianChanged:
    previous: indexed(address)
    current: indexed(address)


event Paused:
    account: indexed(address)


event Unpaused:
    account: indexed(address)


# @dev Sources of rewards, in RewardsFunded.
SOURCE_BOOTSTRAP: constant(uint256) = 1
SOURCE_INCOME: constant(uint256) = 2

# @dev The index counts wei x INDEX_SCALE per unit of weight: what rounding it down loses is below 10^-8 wei each time.
INDEX_SCALE: constant(uint256) = 10 ** 36

DAY_SECONDS: constant(uint256) = 86_400
SLOT_SECONDS: constant(uint256) = 10

# @dev The slots of a day: more at once cannot have been lived through since the last correction.
VOIDED_SLOTS_MAX: constant(uint256) = 8_640

# @dev A batch of so many changes costs less than half of what fits in a block.
CHANGES_MAX: constant(uint256) = 500

# @dev The whole supply of PRLX.
BOOTSTRAP_AMOUNT_MAX: constant(uint256) = 100_000_000 * 10 ** 18
BOOTSTRAP_SECONDS_MAX: constant(uint256) = 2 ** 32 - 1
MULTIPLIER_TENTHS_MAX: constant(uint256) = 100

# @dev A stretch of active time between two checkpoints is at most as long: it touches two buckets at most.
STALE_SECONDS_MAX: constant(uint256) = DAY_SECONDS
BUCKETS_TOUCHED_MAX: constant(uint256) = 2

# @dev The state of a node in the locker that may earn, and that of one that never was.
STATE_NONE: constant(uint256) = 0
STATE_ACTIVE: constant(uint256) = 1

# @dev What a broken stream may burn. A caller who brings too little gas for a withdrawal has at most a 63rd of that left
# when it fails, too little to go on: nobody can make it fail on purpose, and so put rewards off.
WITHDRAW_GAS: constant(uint256) = 200_000
READ_GAS: constant(uint256) = 75_000

token: public(immutable(address))
locker: public(immutable(address))
anchor: public(immutable(address))
bootstrapAmount: public(immutable(uint256))
bootstrapSeconds: public(immutable(uint256))
staleSeconds: public(immutable(uint256))
MULTIPLIERS_TENTHS: immutable(uint256[4])

# @dev Who reports which nodes are online.
liveness: public(address)

# @dev Who may stop reports and accrual. Only the owner lets them go on.
guardian: public(address)

# The layout of packed slots, lowest bits first. Only the functions under "Storage" know it.
#
#   _accrual   index 160, bootstrap held 88
#   _funds     held 88, stream withdrawn 88, bootstrap carry 32, updated at 40
#   _reported  total weight 96, reported at 40, reported batch 32, paused 8, bucket elapsed 24, head 24, tail 24
#   _stream    lockup 160, id 96
#   _nodes     weight 96, void until 40, online 1, earning 1, retired 1
#   _buckets   day 32, amount 88, before 128
#
# What every checkpoint changes is in the first two, so that a claim leaves the third as it is.
#
# Times and days in seconds and days since 1970, amounts in wei.
#   reported at        when the last report came; 0 before the first one and after a pause
#   stream withdrawn   what the stream said it had paid when it was last asked
#   bucket head, tail  buckets 1 to head are paid in full, those up to tail are not; `bucket elapsed` seconds of the first
#                      of these are
#   held               tokens that were booked and not claimed
#   bootstrap held     the part of them that came from the stream and is not distributed
#   bootstrap carry    the part of a wei that the next second of bootstrap begins with, in 1/bootstrapSeconds
_accrual: uint256
_funds: uint256
_reported: uint256
_stream: uint256
_nodes: HashMap[uint256, uint256]
_buckets: HashMap[uint256, uint256]

# @dev What a node has accrued is weight x index - debt, in wei x INDEX_SCALE, with weight 0 while it does not earn. So
# only a claim rounds, and a node is settled by whatever changes its weight or pays it.
_debts: HashMap[uint256, int256]


@deploy
def __init__(
    prlx: address,
    nodeLocker: address,
    executionAnchor: address,
    livenessReporter: address,
    guardianAccount: address,
    bootstrapAmountWei: uint256,
    bootstrapDurationSeconds: uint256,
    multipliersTenths: uint256[4],
    staleAfterSeconds: uint256,
):
    """
    @param prlx The PRLX token; its tax may not come here.
    @param nodeLocker Whose nodes earn here.
    @param executionAnchor Where the batches are anchored that reports name.
    @param livenessReporter Who reports which nodes are online.
    @param guardianAccount Who may pause.
    @param bootstrapAmountWei The bootstrap allocation, in wei.
    @param bootstrapDurationSeconds In how many active seconds it is paid out.
    @param multipliersTenths What the stake of tiers 1 to 4 counts, in tenths.
    @param staleAfterSeconds How long one report keeps nodes earning.
    """
    accounts: address[5] = [prlx, nodeLocker, executionAnchor, livenessReporter, guardianAccount]
    for account: address in accounts:
        assert account != empty(address), "rewards: zero address"
    for multiplier: uint256 in multipliersTenths:
        assert 1 <= multiplier and multiplier <= MULTIPLIER_TENTHS_MAX, "rewards: multiplier out of range"
    assert 1 <= staleAfterSeconds and staleAfterSeconds <= STALE_SECONDS_MAX, "rewards: stale window out of range"
    assert 1 <= bootstrapAmountWei and bootstrapAmountWei <= BOOTSTRAP_AMOUNT_MAX, "rewards: bootstrap out of range"
    assert (
        1 <= bootstrapDurationSeconds and bootstrapDurationSeconds <= BOOTSTRAP_SECONDS_MAX
    ), "rewards: bootstrap out of range"
    assert staticcall IPRLX(prlx).taxRecipient() != self, "rewards: would receive the transfer tax"

    ownable.__init__()
    ownable_2step.__init__()

    token = prlx
    locker = nodeLocker
    anchor = executionAnchor
    bootstrapAmount = bootstrapAmountWei
    bootstrapSeconds = bootstrapDurationSeconds
    staleSeconds = staleAfterSeconds
    MULTIPLIERS_TENTHS = multipliersTenths
    self._set_liveness(livenessReporter)
    self._set_guardian(guardianAccount)


# --- anyone ---


@external
def claim(nodeId: uint256) -> uint256:
    """
    @notice Pays the owner of a node what it earned, whoever asks, also while paused and after the stake was withdrawn.
    @dev Collects only when the bootstrap that is held does not cover what is due: most of what a claim costs would go to
         Sablier, and what it pays is the same, the lesser of what is due and what is held.
    @param nodeId The node.
    @return What was paid, in wei: `earned(nodeId)`.
    """
    owner: address = staticcall ILocker(locker).ownerOf(nodeId)
    assert owner != empty(address), "rewards: no such node"
    pool: Pool = self._load()
    if self._is_short(pool):
        pool = self._collect(pool)
    return self._claim(nodeId, owner, self._distribute(pool))


@external
@payable
def pull():
    """
    @notice Draws on the stream and books what arrived. ETH that is sent along pays the fee of Sablier, if there is one.
    @dev What is left of the ETH pays later fees: it cannot be taken out again, and anybody's call may spend it on one.
    """
    self._store(self._checkpoint())


@external
def sync(nodeId: uint256):
    """
    @notice Lets a node earn again whose voided slots are over, and stops one that the locker has retired.
    @param nodeId The node.
    """
    pool: Pool = self._checkpoint()
    node: Node = self._with_registration(nodeId, self._load_node(nodeId))
    self._store(self._apply(nodeId, node, pool))


@external
@payable
def __default__():
    """
    @notice Takes ETH for the fees of Sablier, as `pull` does.
    """
    assert len(msg.data) == 0, "rewards: no such function"


# --- views for anyone ---


@view
@external
def earned(nodeId: uint256) -> uint256:
    """
    @notice What a claim in this block would pay, in wei.
    @dev Counts what the stream would pay to this contract now, unless its fee cannot be paid. Grows every second that the
         node earns, and only falls by a claim, as long as Sablier keeps to what it says: what it would have paid counts no
         more while it breaks, or asks a fee that is not here. What else arrived unbooked is paid tomorrow at the earliest.
    @param nodeId The node.
    """
    # Rounds down, in the pool's favour; the rest stays with the node.
    return self._accrued_scaled(nodeId, self._load_node(nodeId), self._preview().index) // INDEX_SCALE


@view
@external
def node(nodeId: uint256) -> Node:
    """
    @notice What is stored of a node. All of it is 0 before its first report.
    @param nodeId The node.
    """
    return self._load_node(nodeId)


@view
@external
def weightOf(nodeId: uint256) -> uint256:
    """
    @notice The weight with which a node earns, in wei of stake x tenths; 0 while it does not.
    @param nodeId The node.
    """
    return self._earning_weight(self._load_node(nodeId))


@view
@external
def lockup() -> address:
    """
    @notice The Sablier Lockup whose stream funds the bootstrap; the zero address until it is bound.
    """
    return self._load_stream().lockup


@view
@external
def streamId() -> uint256:
    """
    @notice The number of that stream.
    """
    return self._load_stream().id


@view
@external
def multiplierTenths(hardwareTier: uint256) -> uint256:
    """
    @notice What the stake of a tier counts, in tenths.
    @param hardwareTier 1 to 4.
    """
    return MULTIPLIERS_TENTHS[hardwareTier - 1]


@view
@external
def ratePerSecond() -> uint256:
    """
    @notice What all nodes together earn in this second, in wei, rounded down.
    """
    return self._rate_per_second(self._preview())


@view
@external
def isFresh() -> bool:
    """
    @notice Whether the last report still keeps nodes earning.
    """
    return block.timestamp < self._load().reported_at + staleSeconds


@view
@external
def index() -> uint256:
    """
    @notice What one unit of weight would have earned since the beginning, in wei x 10^36, as of the last checkpoint.
    """
    return self._load().index


@view
@external
def totalWeight() -> uint256:
    """
    @notice The sum of `weightOf` over all nodes.
    """
    return self._load().total_weight


@view
@external
def lastUpdateAt() -> uint256:
    """
    @notice When the last checkpoint was, in seconds since 1970.
    """
    return self._load().updated_at


@view
@external
def lastReportAt() -> uint256:
    """
    @notice When the last report came, in seconds since 1970; 0 before the first one, and from a pause to the next one.
    """
    return self._load().reported_at


@view
@external
def lastReportedBatch() -> uint256:
    """
    @notice The batch that the last report named.
    """
    return self._load().reported_batch


@view
@external
def paused() -> bool:
    """
    @notice Whether reports are refused.
    """
    return self._load().paused


@view
@external
def held() -> uint256:
    """
    @notice What was booked and not yet claimed, in wei, as of the last checkpoint.
    """
    return self._load().held


@view
@external
def bootstrapHeld() -> uint256:
    """
    @notice The part of `held` that came from the stream and is not yet distributed, in wei, as of the last checkpoint.
    """
    return self._load().bootstrap_held


@view
@external
def undistributed() -> uint256:
    """
    @notice The part of `held` that no node has earned, in wei, as of the last checkpoint.
    """
    pool: Pool = self._load()
    return pool.bootstrap_held + self._income_held(pool)


# --- the locker ---


@external
def nodeRetired(nodeId: uint256):
    """
    @notice Told by the locker when the owner of a node asks for the stake back: it earns nothing from now on, for good.
    @param nodeId The node, whether it was ever reported or not.
    """
    assert msg.sender == locker, "rewards: caller is not the locker"
    pool: Pool = self._checkpoint()
    node: Node = self._load_node(nodeId)
    node.retired = True
    self._store(self._apply(nodeId, node, pool))


# --- the liveness reporter ---


@external
def reportLiveness(batch: uint256, merkleRoot: bytes32, changes: DynArray[LivenessChange, CHANGES_MAX]):
    """
    @notice Applies changes in order, and keeps all nodes earning for another `staleSeconds`.
    @dev Work is anchored before uptime is credited: the report names an anchored batch, none older than the last named.
    @param batch The number of the newest batch that the reporter knows to be anchored.
    @param merkleRoot Its root.
    @param changes Which nodes came online or went offline. A retired node counts as offline.
    """
    assert msg.sender == self.liveness, "rewards: caller is not the liveness reporter"
    pool: Pool = self._checkpoint()
    assert not pool.paused, "rewards: liveness is paused"
    assert staticcall IAnchor(anchor).holds(batch, merkleRoot), "rewards: batch is not anchored"
    assert batch >= pool.reported_batch, "rewards: batch is older than the last one reported"
    pool.reported_batch = batch
    pool.reported_at = block.timestamp
    # Handing all of them to an internal function would copy them, which costs more gas than half a batch of changes.
    for change: LivenessChange in changes:
        pool = self._with_change(change, pool)
    self._store(pool)
    log LivenessReported(batch=batch, changes=len(changes), totalWeight=pool.total_weight)


# --- the guardian ---


@external
def pause():
    """
    @notice Refuses reports, and stops accrual with this block until the first report after the pause. Claims go on.
    """
    assert msg.sender == self.guardian or msg.sender == ownable.owner, "rewards: caller is not the guardian"
    pool: Pool = self._checkpoint()
    assert not pool.paused, "rewards: already paused"
    pool.paused = True
    pool.reported_at = 0
    self._store(pool)
    log Paused(account=msg.sender)


# --- the owner ---


@external
def unpause():
    """
    @notice Lets reports come in again.
    """
    ownable._check_owner()
    pool: Pool = self._checkpoint()
    assert pool.paused, "rewards: not paused"
    pool.paused = False
    self._store(pool)
    log Unpaused(account=msg.sender)


@external
def setLiveness(account: address):
    """
    @notice Names who reports which nodes are online.
    @param account Not the zero address.
    """
    ownable._check_owner()
    assert account != empty(address), "rewards: zero address"
    self._set_liveness(account)


@external
def setGuardian(account: address):
    """
    @notice Names who may pause.
    @param account Not the zero address.
    """
    ownable._check_owner()
    assert account != empty(address), "rewards: zero address"
    self._set_guardian(account)


@external
def bindStream(sablierLockup: address, sablierStreamId: uint256):
    """
    @notice Names the stream that funds the bootstrap, once and for good. It may have begun already.
    @dev A stream that nobody can cancel and that belongs to this contract, which never gives it away, pays only here.
    @param sablierLockup A Sablier Lockup, exempt from the transfer tax, as this contract must be.
    @param sablierStreamId The stream in it.
    """
    ownable._check_owner()
    assert self._stream == 0, "rewards: stream already bound"
    self._check_stream(ISablierLockup(sablierLockup), sablierStreamId)
    self._store_stream(Stream(lockup=sablierLockup, id=sablierStreamId))
    log StreamBound(lockup=sablierLockup, streamId=sablierStreamId)
    self._store(self._checkpoint())


# --- checks ---


@view
def _check_stream(sablier: ISablierLockup, stream_id: uint256):
    prlx: IPRLX = IPRLX(token)
    assert staticcall sablier.getRecipient(stream_id) == self, "rewards: stream pays somebody else"
    assert staticcall sablier.getUnderlyingToken(stream_id) == token, "rewards: stream is of another token"
    assert not staticcall sablier.isCancelable(stream_id), "rewards: stream is cancelable"
    deposited_wei: uint256 = convert(staticcall sablier.getDepositedAmount(stream_id), uint256)
    refunded_wei: uint256 = convert(staticcall sablier.getRefundedAmount(stream_id), uint256)
    assert deposited_wei == bootstrapAmount and refunded_wei == 0, "rewards: stream is of another amount"
    # What it paid elsewhere, before it belonged to this contract, would never come. What it paid here may be gone again.
    withdrawn_wei: uint256 = convert(staticcall sablier.getWithdrawnAmount(stream_id), uint256)
    assert withdrawn_wei <= self._received_before_binding_wei(), "rewards: stream was paid out elsewhere"
    assert (
        staticcall prlx.isExempt(self) and staticcall prlx.isExempt(sablier.address)
    ), "rewards: not exempt from the transfer tax"


@view
def _received_before_binding_wei() -> uint256:
    """
    @dev All that ever arrived. Without a stream all of it is income, and the newest bucket knows how much came before it.
    """
    pool: Pool = self._load()
    newest: Bucket = self._load_bucket(pool.bucket_tail)
    return newest.before + newest.amount + self._arrived_wei(pool)


# --- every state change: collect, distribute ---


def _checkpoint() -> Pool:
    """
    @dev The caller stores the pool that it gets, changed or not.
    """
    return self._distribute(self._collect(self._load()))


@view
def _preview() -> Pool:
    """
    @dev The pool as `_checkpoint` would give it, but for income, which no node earns before tomorrow.
    """
    pool: Pool = self._load()
    stream: Stream = self._load_stream()
    if self._is_streaming(stream, pool):
        withdrawable_wei: uint256 = self._withdrawable_wei(stream)
        withdrawn_wei: uint256 = self._withdrawn_wei(stream, pool)
        pool = self._with_bootstrap(pool, self._arrived_wei(pool) + withdrawable_wei, withdrawn_wei + withdrawable_wei)
    return self._distributed(pool)[0]


# --- collect ---


def _collect(pool: Pool) -> Pool:
    """
    @dev The stream's own count decides what of the tokens that arrived is bootstrap, because anybody may have it pay
         them: by the balance alone, a withdrawal from outside would become a day's income.
    """
    stream: Stream = self._load_stream()
    withdrawn_wei: uint256 = pool.stream_withdrawn
    if self._is_streaming(stream, pool):
        self._withdraw_from(stream)
        withdrawn_wei = self._withdrawn_wei(stream, pool)
    arrived_wei: uint256 = self._arrived_wei(pool)
    collected: Pool = self._with_bootstrap(pool, arrived_wei, withdrawn_wei)
    bootstrap_wei: uint256 = collected.held - pool.held
    if bootstrap_wei > 0:
        log RewardsFunded(source=SOURCE_BOOTSTRAP, amount=bootstrap_wei, totalHeld=collected.held)
    if arrived_wei > bootstrap_wei:
        collected = self._with_income(collected, arrived_wei - bootstrap_wei)
    return collected


def _withdraw_from(stream: Stream):
    """
    @dev Whether it works never matters: what comes of it is seen in the stream's count. It fails when there is nothing to
         withdraw, or for want of the fee. The fee is asked for only then: else whoever sends this contract one wei of ETH
         would make each later call dearer.
    """
    if self._try_to_withdraw(stream, 0) or self.balance == 0:
        return
    fee_wei: uint256 = self._fee_wei(stream)
    if 0 < fee_wei and fee_wei <= self.balance:
        withdrawn: bool = self._try_to_withdraw(stream, fee_wei)


def _try_to_withdraw(stream: Stream, fee_wei: uint256) -> bool:
    # No byte of an answer is copied, so that a huge one costs nothing here.
    return raw_call(
        stream.lockup,
        abi_encode(stream.id, self, method_id=method_id("withdrawMax(uint256,address)")),
        gas=WITHDRAW_GAS,
        value=fee_wei,
        max_outsize=0,
        revert_on_failure=False,
    )


def _with_income(pool: Pool, income_wei: uint256) -> Pool:
    funded: Pool = pool
    funded.held += income_wei
    funded.bucket_tail = self._add_to_bucket(pool.bucket_tail, income_wei)
    log RewardsFunded(source=SOURCE_INCOME, amount=income_wei, totalHeld=funded.held)
    return funded


def _add_to_bucket(tail: uint256, income_wei: uint256) -> uint256:
    """
    @dev A bucket is paid from the day after its own, so it can still grow as long as its day is not over.
    """
    today: uint256 = block.timestamp // DAY_SECONDS
    newest: Bucket = self._load_bucket(tail)
    if newest.day == today:
        newest.amount += income_wei
        self._store_bucket(tail, newest)
        return tail
    self._store_bucket(tail + 1, Bucket(day=today, amount=income_wei, before=newest.before + newest.amount))
    return tail + 1


@view
def _arrived_wei(pool: Pool) -> uint256:
    return staticcall IERC20(token).balanceOf(self) - pool.held


@view
def _with_bootstrap(pool: Pool, arrived_wei: uint256, withdrawn_wei: uint256) -> Pool:
    """
    @dev A stream that counts backwards, beyond its amount, or more than arrived, is broken, and not believed.
    """
    funded: Pool = pool
    funded.stream_withdrawn = max(pool.stream_withdrawn, min(withdrawn_wei, bootstrapAmount))
    bootstrap_wei: uint256 = min(arrived_wei, funded.stream_withdrawn - pool.stream_withdrawn)
    funded.held += bootstrap_wei
    funded.bootstrap_held += bootstrap_wei
    return funded


# --- the stream, which may be broken ---


@view
def _is_streaming(stream: Stream, pool: Pool) -> bool:
    return stream.lockup != empty(address) and pool.stream_withdrawn < bootstrapAmount


@view
def _withdrawn_wei(stream: Stream, pool: Pool) -> uint256:
    return min(self._ask(stream, method_id("getWithdrawnAmount(uint256)"), pool.stream_withdrawn), bootstrapAmount)


@view
def _withdrawable_wei(stream: Stream) -> uint256:
    if self._fee_wei(stream) > self.balance:
        return 0
    return min(self._ask(stream, method_id("withdrawableAmountOf(uint256)"), 0), bootstrapAmount)


@view
def _fee_wei(stream: Stream) -> uint256:
    return self._ask(stream, method_id("calculateMinFeeWei(uint256)"), max_value(uint256))


@view
def _ask(stream: Stream, method: Bytes[4], otherwise: uint256) -> uint256:
    """
    @dev What a view of the stream answers, or `otherwise` if it fails or answers no number.
    """
    success: bool = False
    answer: Bytes[32] = b""
    success, answer = raw_call(
        stream.lockup,
        concat(method, convert(stream.id, bytes32)),
        gas=READ_GAS,
        max_outsize=32,
        is_static_call=True,
        revert_on_failure=False,
    )
    if success and len(answer) == 32:
        return convert(answer, uint256)
    return otherwise


# --- distribute ---


def _distribute(pool: Pool) -> Pool:
    distributed: Pool = empty(Pool)
    bootstrap_wei: uint256 = 0
    income_wei: uint256 = 0
    distributed, bootstrap_wei, income_wei = self._distributed(pool)
    if bootstrap_wei + income_wei > 0:
        log RewardsDistributed(bootstrap=bootstrap_wei, income=income_wei, index=distributed.index)
    return distributed


@view
def _distributed(pool: Pool) -> (Pool, uint256, uint256):
    """
    @dev The pool after it has paid the active part of the time since the last checkpoint, and what it paid of the bootstrap
         and of income, in wei.
    """
    paid: Pool = pool
    bootstrap_wei: uint256 = 0
    income_wei: uint256 = 0
    active_seconds: uint256 = self._active_seconds(pool)
    if active_seconds > 0:
        bootstrap_wei, paid.bootstrap_carry = self._bootstrap_due(pool, active_seconds)
        income_wei, paid.bucket_head, paid.bucket_elapsed = self._income_due(pool, pool.updated_at + active_seconds)
        paid.bootstrap_held -= bootstrap_wei
        # Rounds down, in the pool's favour, by less than total weight / 10^36 <= 10^-8 wei.
        paid.index += (bootstrap_wei + income_wei) * INDEX_SCALE // pool.total_weight
    paid.updated_at = block.timestamp
    return paid, bootstrap_wei, income_wei


@view
def _active_seconds(pool: Pool) -> uint256:
    """
    @dev Time is active while somebody earns and the last report is fresh, which it is not during a pause: pausing forgets
         the report. These are the first seconds since the last checkpoint, and at most `staleSeconds`.
    """
    until: uint256 = min(block.timestamp, pool.reported_at + staleSeconds)
    if pool.total_weight == 0 or until <= pool.updated_at:
        return 0
    return until - pool.updated_at


@view
def _is_short(pool: Pool) -> bool:
    """
    @dev Whether more bootstrap is due than held, and the stream may have it.
    """
    due_scaled: uint256 = self._bootstrap_due_scaled(pool, self._active_seconds(pool))
    is_short: bool = due_scaled > pool.bootstrap_held * bootstrapSeconds
    return is_short and self._is_streaming(self._load_stream(), pool)


@view
def _bootstrap_due(pool: Pool, active_seconds: uint256) -> (uint256, uint256):
    """
    @dev What the bootstrap pays for so many seconds, in wei, and the new carry. Rounds down and carries the rest on. What
         is due but not held is not made up for: it is paid at the end of the tail.
    """
    due_scaled: uint256 = self._bootstrap_due_scaled(pool, active_seconds)
    due_wei: uint256 = due_scaled // bootstrapSeconds
    if due_wei >= pool.bootstrap_held:
        return pool.bootstrap_held, 0
    return due_wei, due_scaled % bootstrapSeconds


@view
def _bootstrap_due_scaled(pool: Pool, active_seconds: uint256) -> uint256:
    return bootstrapAmount * active_seconds + pool.bootstrap_carry


@view
def _income_due(pool: Pool, until: uint256) -> (uint256, uint256, uint256):
    """
    @dev What buckets pay up to `until`, in wei, the new head, and its new elapsed seconds. A bucket begins when its day
         is over and its predecessor is paid. It rounds down at each checkpoint, but from its own beginning, so that at
         its end it has paid everything.
    """
    paid_wei: uint256 = 0
    head: uint256 = pool.bucket_head
    elapsed: uint256 = pool.bucket_elapsed
    time: uint256 = pool.updated_at
    for _: uint256 in range(BUCKETS_TOUCHED_MAX):
        if head == pool.bucket_tail:
            break
        bucket: Bucket = self._load_bucket(head + 1)
        time = max(time, (bucket.day + 1) * DAY_SECONDS)
        if time >= until:
            break
        active_seconds: uint256 = min(until - time, DAY_SECONDS - elapsed)
        paid_wei += self._bucket_paid(bucket, elapsed + active_seconds) - self._bucket_paid(bucket, elapsed)
        time += active_seconds
        elapsed += active_seconds
        if elapsed == DAY_SECONDS:
            head += 1
            elapsed = 0
    return paid_wei, head, elapsed


@pure
def _bucket_paid(bucket: Bucket, elapsed: uint256) -> uint256:
    return bucket.amount * elapsed // DAY_SECONDS


@view
def _income_held(pool: Pool) -> uint256:
    if pool.bucket_head == pool.bucket_tail:
        return 0
    oldest: Bucket = self._load_bucket(pool.bucket_head + 1)
    newest: Bucket = self._load_bucket(pool.bucket_tail)
    return newest.before + newest.amount - oldest.before - self._bucket_paid(oldest, pool.bucket_elapsed)


@view
def _rate_per_second(pool: Pool) -> uint256:
    if pool.total_weight == 0 or block.timestamp >= pool.reported_at + staleSeconds:
        return 0
    rate: uint256 = 0
    if pool.bootstrap_held > 0 or self._is_streaming(self._load_stream(), pool):
        rate = bootstrapAmount // bootstrapSeconds
    if pool.bucket_head < pool.bucket_tail:
        bucket: Bucket = self._load_bucket(pool.bucket_head + 1)
        if bucket.day < block.timestamp // DAY_SECONDS:
            rate += bucket.amount // DAY_SECONDS
    return rate


# --- nodes ---


def _with_change(change: LivenessChange, pool: Pool) -> Pool:
    node: Node = self._with_registration(change.nodeId, self._load_node(change.nodeId))
    node.online = change.online and not node.retired
    if change.voidedSlots > 0:
        node = self._with_slots_voided(node, change)
    return self._apply(change.nodeId, node, pool)


@view
def _with_registration(node_id: uint256, node: Node) -> Node:
    """
    @dev The locker is asked each time, because it may have been unable to tell of a retirement. Stake and tier of a node
         never change, so its weight is kept.
    """
    registered: Node = node
    owner: address = empty(address)
    stake_wei: uint256 = 0
    hardware_tier: uint256 = 0
    state: uint256 = STATE_NONE
    owner, stake_wei, hardware_tier, state = staticcall ILocker(locker).registration(node_id)
    assert state != STATE_NONE, "rewards: no such node"
    registered.retired = node.retired or state != STATE_ACTIVE
    if node.weight == 0 and not registered.retired:
        registered.weight = stake_wei * MULTIPLIERS_TENTHS[hardware_tier - 1]
    return registered


def _with_slots_voided(node: Node, change: LivenessChange) -> Node:
    assert change.voidedSlots <= VOIDED_SLOTS_MAX, "rewards: too many voided slots"
    voided: Node = node
    # Never more than a day ahead, however often a node is named: a false report must not outlive its reporter's key.
    latest: uint256 = max(node.voidUntil, block.timestamp + VOIDED_SLOTS_MAX * SLOT_SECONDS)
    voided.voidUntil = min(max(block.timestamp, node.voidUntil) + change.voidedSlots * SLOT_SECONDS, latest)
    log SlotsVoided(nodeId=change.nodeId, slots=change.voidedSlots, voidUntil=voided.voidUntil)
    return voided


def _apply(node_id: uint256, node: Node, pool: Pool) -> Pool:
    """
    @dev Stores the node, and moves its weight in or out of the pool if that is what it now comes to. The index is that of
         this block: the debt takes in what the node accrued up to it.
    """
    applied: Node = node
    applied.online = node.online and not node.retired
    applied.earning = applied.online and block.timestamp >= node.voidUntil
    self._store_node(node_id, applied)
    if applied.earning == node.earning:
        return pool
    moved: Pool = pool
    settled_scaled: int256 = convert(node.weight * pool.index, int256)
    if applied.earning:
        self._debts[node_id] += settled_scaled
        moved.total_weight += node.weight
        log NodeOnline(nodeId=node_id, weight=node.weight, totalWeight=moved.total_weight)
    else:
        self._debts[node_id] -= settled_scaled
        moved.total_weight -= node.weight
        log NodeOffline(nodeId=node_id, totalWeight=moved.total_weight)
    return moved


def _claim(node_id: uint256, owner: address, pool: Pool) -> uint256:
    # Rounds down, in the pool's favour; the rest stays with the node.
    amount_wei: uint256 = self._accrued_scaled(node_id, self._load_node(node_id), pool.index) // INDEX_SCALE
    assert amount_wei > 0, "rewards: nothing earned"
    paid: Pool = pool
    paid.held -= amount_wei
    self._debts[node_id] += convert(amount_wei * INDEX_SCALE, int256)
    self._store(paid)
    log RewardsClaimed(nodeId=node_id, owner=owner, amount=amount_wei, totalHeld=paid.held)
    # PRLX reverts when it cannot pay.
    extcall IERC20(token).transfer(owner, amount_wei)
    return amount_wei


@view
def _accrued_scaled(node_id: uint256, node: Node, index: uint256) -> uint256:
    return convert(convert(self._earning_weight(node) * index, int256) - self._debts[node_id], uint256)


@pure
def _earning_weight(node: Node) -> uint256:
    return node.weight if node.earning else 0


# --- roles ---


def _set_liveness(account: address):
    log LivenessChanged(previous=self.liveness, current=account)
    self.liveness = account


def _set_guardian(account: address):
    log GuardianChanged(previous=self.guardian, current=account)
    self.guardian = account


# --- Storage ---


@view
def _load() -> Pool:
    accrual: uint256 = self._accrual
    funds: uint256 = self._funds
    reported: uint256 = self._reported
    return Pool(
        index=accrual & (2 ** 160 - 1),
        bootstrap_held=accrual >> 160,
        held=funds & (2 ** 88 - 1),
        stream_withdrawn=(funds >> 88) & (2 ** 88 - 1),
        bootstrap_carry=(funds >> 176) & (2 ** 32 - 1),
        updated_at=funds >> 208,
        total_weight=reported & (2 ** 96 - 1),
        reported_at=(reported >> 96) & (2 ** 40 - 1),
        reported_batch=(reported >> 136) & (2 ** 32 - 1),
        paused=(reported >> 168) & 1 == 1,
        bucket_elapsed=(reported >> 176) & (2 ** 24 - 1),
        bucket_head=(reported >> 200) & (2 ** 24 - 1),
        bucket_tail=reported >> 224,
    )


def _store(pool: Pool):
    self._accrual = self._fits(pool.index, 160) | (self._fits(pool.bootstrap_held, 88) << 160)
    self._funds = (
        self._fits(pool.held, 88)
        | (self._fits(pool.stream_withdrawn, 88) << 88)
        | (self._fits(pool.bootstrap_carry, 32) << 176)
        | (self._fits(pool.updated_at, 40) << 208)
    )
    self._reported = (
        self._fits(pool.total_weight, 96)
        | (self._fits(pool.reported_at, 40) << 96)
        | (self._fits(pool.reported_batch, 32) << 136)
        | (convert(pool.paused, uint256) << 168)
        | (self._fits(pool.bucket_elapsed, 24) << 176)
        | (self._fits(pool.bucket_head, 24) << 200)
        | (self._fits(pool.bucket_tail, 24) << 224)
    )


@view
def _load_stream() -> Stream:
    word: uint256 = self._stream
    return Stream(lockup=convert(convert(word & (2 ** 160 - 1), uint160), address), id=word >> 160)


def _store_stream(stream: Stream):
    self._stream = convert(stream.lockup, uint256) | (self._fits(stream.id, 96) << 160)


@view
def _load_node(node_id: uint256) -> Node:
    word: uint256 = self._nodes[node_id]
    return Node(
        weight=word & (2 ** 96 - 1),
        voidUntil=(word >> 96) & (2 ** 40 - 1),
        online=(word >> 136) & 1 == 1,
        earning=(word >> 137) & 1 == 1,
        retired=(word >> 138) & 1 == 1,
    )


def _store_node(node_id: uint256, node: Node):
    self._nodes[node_id] = (
        self._fits(node.weight, 96)
        | (self._fits(node.voidUntil, 40) << 96)
        | (convert(node.online, uint256) << 136)
        | (convert(node.earning, uint256) << 137)
        | (convert(node.retired, uint256) << 138)
    )


@view
def _load_bucket(number: uint256) -> Bucket:
    word: uint256 = self._buckets[number]
    return Bucket(day=word & (2 ** 32 - 1), amount=(word >> 32) & (2 ** 88 - 1), before=word >> 120)


def _store_bucket(number: uint256, bucket: Bucket):
    self._buckets[number] = (
        self._fits(bucket.day, 32) | (self._fits(bucket.amount, 88) << 32) | (self._fits(bucket.before, 128) << 120)
    )


@pure
def _fits(number: uint256, bits: uint256) -> uint256:
    assert number >> bits == 0
    return number
