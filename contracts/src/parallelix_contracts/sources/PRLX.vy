# pragma version 0.4.3
# pragma nonreentrancy on
# SPDX-License-Identifier: AGPL-3.0-only
"""
@title PRLX, the token of ParalleliX
@custom:contract-name PRLX
@license GNU Affero General Public License v3.0 only
@notice 100,000,000 PRLX, all of them minted once, at deployment, to the deployer. A transfer between two accounts of which
        neither is exempt pays 4 % of its amount to a tax recipient that nobody can ever change.
@dev Rules, none of which any key can bend:
     - the supply is constant: minting and burning are not exported;
     - the tax is a constant, its recipient an immutable, and it is taken at most once a transfer;
     - an exemption can be added and never removed, so what an exempt contract holds can never be taxed on its way out;
     - nothing pauses or blocks a transfer.
     The token calls no other contract.
"""

from ethereum.ercs import IERC20
from ethereum.ercs import IERC20Detailed
from snekmate.auth import ownable
from snekmate.auth import ownable_2step
from snekmate.tokens import erc20
from snekmate.tokens.interfaces import IERC20Permit
from snekmate.utils.interfaces import IERC5267

implements: IERC20
implements: IERC20Detailed
implements: IERC20Permit
implements: IERC5267

initializes: ownable
initializes: ownable_2step[ownable := ownable]
initializes: erc20[ownable := ownable]

# Left out of erc20: transfer and transferFrom, which know no tax; mint, burn, burn_from, is_minter and set_minter, because
# the supply is fixed; its one-step transfer_ownership. Left out everywhere: renounce_ownership, because a slip would leave
# the network without anybody to exempt its next contract.
exports: (
    erc20.DOMAIN_SEPARATOR,
    erc20.allowance,
    erc20.approve,
    erc20.balanceOf,
    erc20.decimals,
    erc20.eip712Domain,
    erc20.name,
    erc20.nonces,
    erc20.permit,
    erc20.symbol,
    erc20.totalSupply,
    ownable_2step.accept_ownership,
    ownable_2step.owner,
    ownable_2step.pending_owner,
    ownable_2step.transfer_ownership,
)


# @dev From now on no transfer from or to `account` is taxed.
event ExemptionAdded:
    account: indexed(address)


# @dev In wei: 100,000,000 PRLX.
SUPPLY: constant(uint256) = 100_000_000 * 10 ** 18

# @dev The tax, in hundredths of a percent.
TAX_BPS: public(constant(uint256)) = 400

# @dev One wei in so many is tax. 400 divides 10,000, so dividing by this rounds exactly as `amount * 400 // 10_000` does,
# and no amount overflows it.
TAX_DIVISOR: constant(uint256) = 10_000 // TAX_BPS

TAX_RECIPIENT: immutable(address)

# @dev Entries only ever change from False to True.
exempt: HashMap[address, bool]


@deploy
def __init__(taxRecipient: address):
    """
    @notice Mints the whole supply to the deployer, who is exempt, since it hands the supply out, and owns the token.
    @param taxRecipient Who receives the tax, for good. It is exempt itself.
    """
    assert taxRecipient != empty(address), "prlx: zero address"

    ownable.__init__()
    ownable_2step.__init__()
    erc20.__init__("ParalleliX", "PRLX", 18, "ParalleliX", "1")

    TAX_RECIPIENT = taxRecipient
    erc20._mint(msg.sender, SUPPLY)
    self._add_exemption(msg.sender)
    if taxRecipient != msg.sender:
        self._add_exemption(taxRecipient)


# --- anyone ---


@external
def transfer(receiver: address, amount: uint256) -> bool:
    """
    @notice Takes `amount` from the caller; `receiver` gets it less the tax, which is `taxOn(caller, receiver, amount)`.
    @param receiver Who receives; not the zero address.
    @param amount What leaves the caller, in wei.
    @return bool Always True: a transfer that fails reverts.
    """
    self._transfer_taxed(msg.sender, receiver, amount)
    return True


@external
def transferFrom(sender: address, receiver: address, amount: uint256) -> bool:
    """
    @notice Takes `amount` from `sender` and from what it allowed the caller; `receiver` gets it less the tax.
    @dev The allowance is spent by the whole amount, tax included. An allowance of 2^256 - 1 is never spent.
    @param sender Whose tokens move.
    @param receiver Who receives; not the zero address.
    @param amount What leaves `sender`, in wei.
    @return bool Always True: a transfer that fails reverts.
    """
    erc20._spend_allowance(sender, msg.sender, amount)
    self._transfer_taxed(sender, receiver, amount)
    return True


# --- views ---


@external
@view
def taxRecipient() -> address:
    """
    @notice Who receives the tax; the same for as long as the token exists.
    """
    return TAX_RECIPIENT


@external
@view
def isExempt(account: address) -> bool:
    """
    @notice Whether transfers from and to an account pay no tax; once True, for good.
    @param account Anybody.
    """
    return self.exempt[account]


@external
@view
def taxOn(sender: address, receiver: address, amount: uint256) -> uint256:
    """
    @notice What a transfer would pay as tax.
    @param sender Who would pay.
    @param receiver Who would receive the rest.
    @param amount What would leave `sender`, in wei.
    @return uint256 The part of `amount` that would be tax, in wei.
    """
    return self._tax_on(sender, receiver, amount)


# --- the owner ---


@external
def addExemption(account: address):
    """
    @notice Frees all transfers from and to `account` from the tax, for good.
    @param account A contract that holds other people's tokens, such as the locker of stakes.
    """
    ownable._check_owner()
    assert account != empty(address), "prlx: zero address"
    assert not self.exempt[account], "prlx: already exempt"
    self._add_exemption(account)


# --- internal ---


@internal
def _add_exemption(account: address):
    self.exempt[account] = True
    log ExemptionAdded(account=account)


@internal
def _transfer_taxed(sender: address, receiver: address, amount: uint256):
    tax: uint256 = self._tax_on(sender, receiver, amount)
    if tax > 0:
        erc20._transfer(sender, TAX_RECIPIENT, tax)
    erc20._transfer(sender, receiver, amount - tax)


@internal
@view
def _tax_on(sender: address, receiver: address, amount: uint256) -> uint256:
    """
    @dev Rounds down, in the payer's favour. Stops at an exempt sender: what pays principal out reads one slot less.
    """
    if self.exempt[sender] or self.exempt[receiver]:
        return 0
    return amount // TAX_DIVISOR
