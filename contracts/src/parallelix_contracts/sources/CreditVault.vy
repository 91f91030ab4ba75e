# pragma version 0.4.3
# pragma nonreentrancy on
# SPDX-License-Identifier: AGPL-3.0-only
"""
@title ParalleliX CreditVault
@license GNU Affero General Public License v3.0 only
@notice Holds what requesters deposit for work that is metered off-chain. The settler moves what was spent to operators,
        treasury and infrastructure (85 / 10 / 5). A requester leaves at once with the settler's clearance, and alone
        after the withdrawal delay, whatever the settler, the guardian and the owner do.
@dev Rules that the rest leans on:
     1. `totalDeposits` is the sum of all deposits, and never more than the vault's balance of the token.
     2. An open withdrawal request is part of the deposit, never on top of it: it is cut to the deposit whenever the
        deposit falls, and a later deposit does not widen it. So `pendingWithdrawal` is exactly what a request kept in
        reserve can take out without notice, and the coordinator must not let that part be spent. Whoever mirrors events
        cuts the request to the `deposit` of each `SpendSettled` and `Withdrawn`.
     3. What is settled of an account only grows, and only by what was really taken. A figure that is too high takes at
        most a day's limit, and later, honest figures are stale until they have caught up with it.
     4. Batches take at most the account's limit in a UTC day. Within a day that limit only rises.
     5. Nothing that the pause stops stands between an account and its deposit.
     The worst that a stolen settler key does: it moves, per account, one day's limit in each UTC day to the three fixed
     receivers, so at most two limits before an account that leaves at once is out; and it clears an accomplice to
     withdraw the accomplice's own unsettled spending. Every day that the guardian pauses earlier, the first is less.
     The token must be PRLX: transfers never block, and the supply (10^26 wei) fits the packed fields below.
"""

from ethereum.ercs import IERC20
from snekmate.auth import ownable
from snekmate.auth import ownable_2step
from snekmate.utils import ecdsa
from snekmate.utils import eip712_domain_separator

from .interfaces import IPRLX

initializes: ownable
initializes: ownable_2step[ownable := ownable]
initializes: eip712_domain_separator

# `renounce_ownership` is left out: nobody may leave the network without an owner by a slip.
exports: (
    ownable_2step.owner,
    ownable_2step.pending_owner,
    ownable_2step.transfer_ownership,
    ownable_2step.accept_ownership,
    eip712_domain_separator.eip712Domain,
)


struct Spend:
    account: address
    cumulativeSpent: uint256


struct Books:
    deposit: uint256
    settled: uint256


struct Outflow:
    settled_today: uint256
    day: uint256
    requested: uint256
    available_at: uint256


struct Limit:
    is_set: bool
    limit: uint256
    lowered: uint256
    lowered_from_day: uint256


event Deposited:
    account: indexed(address)
    amount: uint256
    deposit: uint256


event WithdrawalRequested:
    account: indexed(address)
    amount: uint256
    availableAt: uint256


event WithdrawalCancelled:
    account: indexed(address)


event Withdrawn:
    account: indexed(address)
    amount: uint256
    deposit: uint256
    nonce: uint256
    cleared: bool


event DailyLimitSet:
    account: indexed(address)
    limit: uint256
    effectiveFrom: uint256


event SpendSettled:
    account: indexed(address)
    amount: uint256
    cumulativeSettled: uint256
    deposit: uint256


event SettlementShort:
    account: indexed(address)
    cumulativeSpent: uint256
    settled: uint256
    reason: uint256


event SpendSplit:
    operators: uint256
    treasury: uint256
    infrastructure: uint256


event SurplusRecovered:
    amount: uint256


event SettlerChanged:
    previous: indexed(address)
    current: indexed(address)


event GuardianChanged:
    previous: indexed(address)
    current: indexed(address)


event Paused:
    account: indexed(address)


event Unpaused:
    account: indexed(address)


DAY_SECONDS: constant(uint256) = 86_400

# A day: long enough to settle what was spent, and the longest that a requester was promised to wait.
WITHDRAWAL_DELAY_SECONDS_MAX: constant(uint256) = 86_400

# One transaction may use 2^24 gas (EIP-7825): 500 accounts need half of that; of new ones, 480 fit.
ENTRIES_MAX: constant(uint256) = 500

# The most that its packed field holds, and 792 times the supply: whoever wants no limit sets this one.
DAILY_LIMIT_MAX: constant(uint256) = 2**96 - 1

TREASURY_PERCENT: constant(uint256) = 10
INFRASTRUCTURE_PERCENT: constant(uint256) = 5

# Why an entry of a settlement was cut short.
REASON_STALE: constant(uint256) = 1
REASON_DEPOSIT: constant(uint256) = 2
REASON_DAILY_LIMIT: constant(uint256) = 3

MASK_24: constant(uint256) = 2**24 - 1
MASK_96: constant(uint256) = 2**96 - 1

CLEARANCE_TYPEHASH: constant(bytes32) = keccak256(
    "Clearance(address account,uint256 amount,uint256 cumulativeSpent,uint256 nonce,uint256 expiry)"
)

token: public(immutable(address))
rewards: public(immutable(address))
treasury: public(immutable(address))
infrastructure: public(immutable(address))
withdrawalDelaySeconds: public(immutable(uint256))
defaultDailyLimit: public(immutable(uint256))

settler: public(address)
guardian: public(address)
paused: public(bool)

totalDeposits: public(uint256)
nonces: public(HashMap[address, uint256])

# Packed, so that settling an account writes two slots and reads one more. Low bits first:
# deposit 96 | settled 160
books: HashMap[address, uint256]
# settled today 96 | day 24 | requested 96 | available at 40
outflows: HashMap[address, uint256]
# limit 96 | lowered limit 96 | day from which the lowered one holds 24 | is set 1
limits: HashMap[address, uint256]


@deploy
def __init__(
    prlx: address,
    rewardsAccount: address,
    treasuryAccount: address,
    infrastructureAccount: address,
    firstSettler: address,
    firstGuardian: address,
    delaySeconds: uint256,
    dailyLimitUnlessSet: uint256,
):
    """
    @notice Creates an empty vault; the deployer owns it.
    @param prlx The PRLX token.
    @param rewardsAccount Receives the operators' share; fixed for good, like the next two.
    @param treasuryAccount Receives 10 % and any surplus.
    @param infrastructureAccount Receives 5 %.
    @param firstSettler Signs clearances and settles batches.
    @param firstGuardian May pause deposits and settlement.
    @param delaySeconds Seconds between a withdrawal request and its payment, 1 to 86,400.
    @param dailyLimitUnlessSet Wei a day that batches may settle of an account that set no limit.
    """
    for account: address in [prlx, rewardsAccount, treasuryAccount, infrastructureAccount, firstSettler, firstGuardian]:
        assert account != empty(address), "vault: zero address"
    assert self not in [rewardsAccount, treasuryAccount, infrastructureAccount], "vault: would pay itself"
    assert 1 <= delaySeconds and delaySeconds <= WITHDRAWAL_DELAY_SECONDS_MAX, "vault: withdrawal delay out of range"
    assert dailyLimitUnlessSet <= DAILY_LIMIT_MAX, "vault: daily limit out of range"
    ownable.__init__()
    ownable_2step.__init__()
    eip712_domain_separator.__init__("ParalleliX CreditVault", "1")
    token = prlx
    rewards = rewardsAccount
    treasury = treasuryAccount
    infrastructure = infrastructureAccount
    withdrawalDelaySeconds = delaySeconds
    defaultDailyLimit = dailyLimitUnlessSet
    self._set_settler(firstSettler)
    self._set_guardian(firstGuardian)


# Anyone


@external
def deposit(amount: uint256):
    """
    @notice Moves `amount` of the caller's tokens into the caller's deposit.
    @dev Books what arrived, not what was sent.
    @param amount Wei, which the caller has allowed the vault to take.
    """
    self._deposit(msg.sender, amount)


@external
def depositWithPermit(amount: uint256, deadline: uint256, v: uint8, r: bytes32, s: bytes32):
    """
    @notice Deposits with a signed EIP-2612 permit in place of an earlier approval.
    @dev The permit may fail: anyone can send it first, which uses it up and leaves the allowance. So the allowance
         decides, with the token's own error.
    @param amount Wei to deposit, the same as the permit's value.
    @param deadline The permit's last second, Unix time.
    @param v The permit's signature, as are `r` and `s`.
    """
    permitted: bool = raw_call(
        token,
        abi_encode(
            msg.sender,
            self,
            amount,
            deadline,
            v,
            r,
            s,
            method_id=method_id("permit(address,address,uint256,uint256,uint8,bytes32,bytes32)"),
        ),
        revert_on_failure=False,
    )
    self._deposit(msg.sender, amount)


@external
def withdrawWithClearance(
    amount: uint256, cumulativeSpent: uint256, nonce: uint256, expiry: uint256, v: uint8, r: bytes32, s: bytes32
):
    """
    @notice Settles the caller's spending and pays out `amount` at once, with the settler's signature. Never paused.
    @dev No daily limit: the account itself consents to `cumulativeSpent`. A batch may have settled more meanwhile, then
         nothing is left to settle. One clearance at most per nonce is ever paid.
    @param amount Wei to pay out.
    @param cumulativeSpent Wei that the account has spent since its first deposit.
    @param nonce The account's next nonce.
    @param expiry The last second at which the clearance holds, Unix time.
    @param v The settler's signature, as are `r` and `s`.
    """
    assert amount > 0, "vault: amount is zero"
    assert block.timestamp <= expiry, "vault: clearance has expired"
    assert nonce == self.nonces[msg.sender], "vault: clearance nonce is not the next"
    self._check_clearance(msg.sender, amount, cumulativeSpent, nonce, expiry, v, r, s)
    self._withdraw_cleared(msg.sender, amount, cumulativeSpent, nonce)


@external
def requestWithdrawal(amount: uint256):
    """
    @notice Asks for `amount` without anybody's consent; `withdraw` pays it after the delay. Replaces an earlier
            request, and the clock starts again. Never paused.
    @dev Asks for at most the deposit in place of refusing: otherwise a settler could keep an account from ever asking
         for everything, by settling one wei in front of each attempt.
    @param amount Wei; anything above the deposit means all of it.
    """
    assert amount > 0, "vault: amount is zero"
    self._request_withdrawal(msg.sender, amount)


@external
def cancelWithdrawal():
    """
    @notice Takes the caller's withdrawal request back. Never paused.
    """
    self._cancel_withdrawal(msg.sender)


@external
def withdraw():
    """
    @notice Pays the caller's request once the delay is over, or what settlement has left of it. Never paused.
    """
    self._withdraw_requested(msg.sender)


@external
def setDailyLimit(limit: uint256):
    """
    @notice Sets how much a day batches may settle of the caller's deposit. Raising acts at once. Lowering acts from the
            first UTC midnight that is at least the withdrawal delay and a day away: nobody escapes with it from
            spending already made any sooner than a withdrawal would.
    @param limit Wei a UTC day, at most 2^96 - 1.
    """
    assert limit <= DAILY_LIMIT_MAX, "vault: daily limit out of range"
    self._set_daily_limit(msg.sender, limit)


@external
def recoverSurplus() -> uint256:
    """
    @notice Sends to the treasury what was sent here by a plain transfer and so belongs to no deposit.
    @return Wei sent.
    """
    surplus: uint256 = staticcall IERC20(token).balanceOf(self) - self.totalDeposits
    assert surplus > 0, "vault: no surplus"
    log SurplusRecovered(amount=surplus)
    self._pay(treasury, surplus)
    return surplus


# Views


@external
@view
def deposits(account: address) -> uint256:
    """
    @notice What the account has here, requested withdrawals included, spending not yet settled not taken off.
    @return Wei.
    """
    return self._load_books(account).deposit


@external
@view
def settled(account: address) -> uint256:
    """
    @notice What was ever taken from the account's deposits for its spending.
    @return Wei.
    """
    return self._load_books(account).settled


@external
@view
def settledToday(account: address) -> uint256:
    """
    @notice What batches have taken from the account in this UTC day.
    @return Wei.
    """
    return self._load_outflow_of_day(account, self._today()).settled_today


@external
@view
def pendingWithdrawal(account: address) -> (uint256, uint256):
    """
    @notice The account's open withdrawal request, never more than its deposit.
    @return Wei, and the second from which `withdraw` pays them; 0 and 0 without a request. Wei are 0 beside a time
            when settlement has left nothing.
    """
    outflow: Outflow = self._load_outflow(account)
    return outflow.requested, outflow.available_at


@external
@view
def dailyLimit(account: address) -> uint256:
    """
    @notice How much of the account's deposit batches may settle in this UTC day, unless the account raises it.
    @return Wei.
    """
    return self._daily_limit(account, self._today())


@external
@view
def pendingDailyLimit(account: address) -> (uint256, uint256):
    """
    @notice The lower limit that the account has set and that does not act yet.
    @return Wei a day, and the second from which it acts; 0 and 0 when none is waiting.
    """
    limit: Limit = self._load_limit(account)
    if limit.lowered_from_day <= self._today():
        return 0, 0
    return limit.lowered, limit.lowered_from_day * DAY_SECONDS


@external
@view
def DOMAIN_SEPARATOR() -> bytes32:
    """
    @notice The EIP-712 domain that clearances are signed in, for the present chain id.
    @return The 32-byte separator.
    """
    return eip712_domain_separator._domain_separator_v4()


# Settler


@external
def settle(entries: DynArray[Spend, ENTRIES_MAX]):
    """
    @notice Takes what accounts have spent from their deposits and splits it. An entry that is stale, beyond the deposit
            or beyond the day's limit is cut short with an event; the others go on.
    @dev Nothing in an entry can make the call revert: figures up to 2^256 - 1 are only compared and subtracted from.
    @param entries Account and wei spent since its first deposit; an account named twice is settled twice, in order.
    """
    assert msg.sender == self.settler, "vault: caller is not the settler"
    assert not self.paused, "vault: settlement is paused"
    self._settle(entries)


# Guardian


@external
def pause():
    """
    @notice Stops deposits and batches; no exit. Guardian or owner.
    """
    assert msg.sender in [self.guardian, ownable.owner], "vault: caller is not the guardian"
    assert not self.paused, "vault: already paused"
    self.paused = True
    log Paused(account=msg.sender)


# Owner


@external
def unpause():
    """
    @notice Lets deposits and batches go on.
    """
    ownable._check_owner()
    assert self.paused, "vault: not paused"
    self.paused = False
    log Unpaused(account=msg.sender)


@external
def setSettler(current: address):
    """
    @notice Replaces the settler at once; every clearance that the previous one signed is void.
    @param current The new settler.
    """
    ownable._check_owner()
    assert current != empty(address), "vault: zero address"
    self._set_settler(current)


@external
def setGuardian(current: address):
    """
    @notice Replaces the guardian at once.
    @param current The new guardian.
    """
    ownable._check_owner()
    assert current != empty(address), "vault: zero address"
    self._set_guardian(current)


# Internal: money


@internal
def _deposit(account: address, amount: uint256):
    assert amount > 0, "vault: amount is zero"
    assert not self.paused, "vault: deposits are paused"
    assert staticcall IPRLX(token).isExempt(self), "vault: not exempt from the transfer tax"
    before: uint256 = staticcall IERC20(token).balanceOf(self)
    assert extcall IERC20(token).transferFrom(account, self, amount), "vault: token transfer failed"
    received: uint256 = staticcall IERC20(token).balanceOf(self) - before
    books: Books = self._load_books(account)
    books.deposit += received
    self._store_books(account, books)
    self.totalDeposits += received
    log Deposited(account=account, amount=received, deposit=books.deposit)


@internal
def _withdraw_cleared(account: address, amount: uint256, cumulative_spent: uint256, nonce: uint256):
    books: Books = self._load_books(account)
    owed: uint256 = self._minus_or_zero(cumulative_spent, books.settled)
    # Subtracting, since the sum of two signed figures may not fit.
    assert owed <= books.deposit and amount <= books.deposit - owed, "vault: clearance exceeds the deposit"
    self.nonces[account] = nonce + 1
    books.settled += owed
    books.deposit -= owed
    if owed > 0:
        log SpendSettled(account=account, amount=owed, cumulativeSettled=books.settled, deposit=books.deposit)
    books.deposit -= amount
    self._store_books(account, books)
    self._cut_request(account, books.deposit)
    self.totalDeposits -= owed + amount
    log Withdrawn(account=account, amount=amount, deposit=books.deposit, nonce=nonce, cleared=True)
    self._split(owed)
    self._pay(account, amount)


@internal
def _request_withdrawal(account: address, amount: uint256):
    outflow: Outflow = self._load_outflow(account)
    outflow.requested = min(amount, self._load_books(account).deposit)
    assert outflow.requested > 0, "vault: nothing left to withdraw"
    outflow.available_at = block.timestamp + withdrawalDelaySeconds
    self._store_outflow(account, outflow)
    log WithdrawalRequested(account=account, amount=outflow.requested, availableAt=outflow.available_at)


@internal
def _cancel_withdrawal(account: address):
    outflow: Outflow = self._load_outflow(account)
    assert outflow.available_at != 0, "vault: no withdrawal was requested"
    outflow.requested = 0
    outflow.available_at = 0
    self._store_outflow(account, outflow)
    log WithdrawalCancelled(account=account)


@internal
def _withdraw_requested(account: address):
    outflow: Outflow = self._load_outflow(account)
    assert outflow.available_at != 0, "vault: no withdrawal was requested"
    assert block.timestamp >= outflow.available_at, "vault: withdrawal delay is not over"
    amount: uint256 = outflow.requested
    assert amount > 0, "vault: nothing left to withdraw"
    outflow.requested = 0
    outflow.available_at = 0
    self._store_outflow(account, outflow)
    books: Books = self._load_books(account)
    books.deposit -= amount
    self._store_books(account, books)
    self.totalDeposits -= amount
    log Withdrawn(account=account, amount=amount, deposit=books.deposit, nonce=0, cleared=False)
    self._pay(account, amount)


@internal
def _settle(entries: DynArray[Spend, ENTRIES_MAX]):
    today: uint256 = self._today()
    total: uint256 = 0
    for entry: Spend in entries:
        total += self._settle_entry(entry.account, entry.cumulativeSpent, today)
    self.totalDeposits -= total
    self._split(total)


@internal
def _settle_entry(account: address, cumulative_spent: uint256, today: uint256) -> uint256:
    books: Books = self._load_books(account)
    if cumulative_spent <= books.settled:
        self._cut_short(account, cumulative_spent, books.settled, REASON_STALE)
        return 0
    outflow: Outflow = self._load_outflow_of_day(account, today)
    owed: uint256 = cumulative_spent - books.settled
    left_today: uint256 = self._minus_or_zero(self._daily_limit(account, today), outflow.settled_today)
    taken: uint256 = min(owed, min(books.deposit, left_today))
    if taken > 0:
        books.deposit -= taken
        books.settled += taken
        self._store_books(account, books)
        outflow.settled_today += taken
        outflow.requested = min(outflow.requested, books.deposit)
        self._store_outflow(account, outflow)
        log SpendSettled(account=account, amount=taken, cumulativeSettled=books.settled, deposit=books.deposit)
    if taken < owed:
        reason: uint256 = REASON_DEPOSIT if books.deposit == 0 else REASON_DAILY_LIMIT
        self._cut_short(account, cumulative_spent, books.settled, reason)
    return taken


@internal
def _cut_short(account: address, cumulative_spent: uint256, settled: uint256, reason: uint256):
    log SettlementShort(account=account, cumulativeSpent=cumulative_spent, settled=settled, reason=reason)


@internal
def _cut_request(account: address, deposit: uint256):
    outflow: Outflow = self._load_outflow(account)
    if outflow.requested > deposit:
        outflow.requested = deposit
        self._store_outflow(account, outflow)


@internal
def _split(total: uint256):
    if total == 0:
        return
    # Both round down, for the operators: they receive the rest, less than two wei more than their 85 %.
    to_treasury: uint256 = total * TREASURY_PERCENT // 100
    to_infrastructure: uint256 = total * INFRASTRUCTURE_PERCENT // 100
    to_operators: uint256 = total - to_treasury - to_infrastructure
    log SpendSplit(operators=to_operators, treasury=to_treasury, infrastructure=to_infrastructure)
    self._pay(rewards, to_operators)
    self._pay(treasury, to_treasury)
    self._pay(infrastructure, to_infrastructure)


@internal
def _pay(receiver: address, amount: uint256):
    assert extcall IERC20(token).transfer(receiver, amount), "vault: token transfer failed"


# Internal: rules


@internal
@view
def _check_clearance(
    account: address,
    amount: uint256,
    cumulative_spent: uint256,
    nonce: uint256,
    expiry: uint256,
    v: uint8,
    r: bytes32,
    s: bytes32,
):
    digest: bytes32 = eip712_domain_separator._hash_typed_data_v4(
        keccak256(abi_encode(CLEARANCE_TYPEHASH, account, amount, cumulative_spent, nonce, expiry))
    )
    signer: address = ecdsa._recover_vrs(
        digest, convert(v, uint256), convert(r, uint256), convert(s, uint256)
    )
    assert signer == self.settler, "vault: clearance is not from the settler"


@internal
def _set_daily_limit(account: address, limit: uint256):
    today: uint256 = self._today()
    current: uint256 = self._daily_limit(account, today)
    if limit >= current:
        self._store_limit(account, Limit(is_set=True, limit=limit, lowered=0, lowered_from_day=0))
        log DailyLimitSet(account=account, limit=limit, effectiveFrom=block.timestamp)
        return
    # Rounded up to a midnight, so that what batches may settle of a day never falls within it.
    from_day: uint256 = (block.timestamp + withdrawalDelaySeconds + 2 * DAY_SECONDS - 1) // DAY_SECONDS
    self._store_limit(account, Limit(is_set=True, limit=current, lowered=limit, lowered_from_day=from_day))
    log DailyLimitSet(account=account, limit=limit, effectiveFrom=from_day * DAY_SECONDS)


@internal
@view
def _daily_limit(account: address, day: uint256) -> uint256:
    limit: Limit = self._load_limit(account)
    if not limit.is_set:
        return defaultDailyLimit
    if limit.lowered_from_day != 0 and day >= limit.lowered_from_day:
        return limit.lowered
    return limit.limit


@internal
def _set_settler(current: address):
    log SettlerChanged(previous=self.settler, current=current)
    self.settler = current


@internal
def _set_guardian(current: address):
    log GuardianChanged(previous=self.guardian, current=current)
    self.guardian = current


@internal
@view
def _today() -> uint256:
    return block.timestamp // DAY_SECONDS


@internal
@pure
def _minus_or_zero(minuend: uint256, subtrahend: uint256) -> uint256:
    return minuend - min(minuend, subtrahend)


# Internal: packed storage


# The casts that narrow are checked, so that a value too large reverts and is never cut. With PRLX they cannot fail on
# a way out: a deposit is at most the supply, and a request, a day's settlement and a limit are bounded above it.


@internal
@view
def _load_books(account: address) -> Books:
    word: uint256 = self.books[account]
    return Books(deposit=word & MASK_96, settled=word >> 96)


@internal
def _store_books(account: address, books: Books):
    self.books[account] = convert(convert(books.deposit, uint96), uint256) | (
        convert(convert(books.settled, uint160), uint256) << 96
    )


@internal
@view
def _load_outflow(account: address) -> Outflow:
    word: uint256 = self.outflows[account]
    return Outflow(
        settled_today=word & MASK_96,
        day=(word >> 96) & MASK_24,
        requested=(word >> 120) & MASK_96,
        available_at=word >> 216,
    )


@internal
@view
def _load_outflow_of_day(account: address, today: uint256) -> Outflow:
    outflow: Outflow = self._load_outflow(account)
    if outflow.day != today:
        outflow.day = today
        outflow.settled_today = 0
    return outflow


@internal
def _store_outflow(account: address, outflow: Outflow):
    self.outflows[account] = (
        convert(convert(outflow.settled_today, uint96), uint256)
        | (convert(convert(outflow.day, uint24), uint256) << 96)
        | (convert(convert(outflow.requested, uint96), uint256) << 120)
        | (convert(convert(outflow.available_at, uint40), uint256) << 216)
    )


@internal
@view
def _load_limit(account: address) -> Limit:
    word: uint256 = self.limits[account]
    return Limit(
        is_set=word >> 216 == 1,
        limit=word & MASK_96,
        lowered=(word >> 96) & MASK_96,
        lowered_from_day=(word >> 192) & MASK_24,
    )


@internal
def _store_limit(account: address, limit: Limit):
    self.limits[account] = (
        convert(convert(limit.limit, uint96), uint256)
        | (convert(convert(limit.lowered, uint96), uint256) << 96)
        | (convert(convert(limit.lowered_from_day, uint24), uint256) << 192)
        | (convert(limit.is_set, uint256) << 216)
    )
