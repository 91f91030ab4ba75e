# pragma version 0.4.3
# pragma evm-version cancun
# SPDX-License-Identifier: AGPL-3.0-only
"""
@title A token that says it takes no tax, and takes one; or says that it failed; or calls back in the middle of a transfer.
@license AGPL-3.0-only
"""

TAX_IN: constant(uint256) = 1
SAY_FALSE: constant(uint256) = 2
CALL_BACK: constant(uint256) = 3

balanceOf: public(HashMap[address, uint256])
mode: public(uint256)
callTarget: public(address)
callData: public(Bytes[132])
callsTried: public(uint256)
callsDone: public(uint256)


@deploy
def __init__():
    self.balanceOf[msg.sender] = 100_000_000 * 10**18


@external
def behave(mode: uint256):
    self.mode = mode


@external
def callBack(target: address, data: Bytes[132]):
    self.mode = CALL_BACK
    self.callTarget = target
    self.callData = data


@view
@external
def isExempt(account: address) -> bool:
    return True


@view
@external
def taxRecipient() -> address:
    return self


@external
def approve(spender: address, amount: uint256) -> bool:
    return True


@external
def transfer(receiver: address, amount: uint256) -> bool:
    return self._move(msg.sender, receiver, amount)


@external
def transferFrom(sender: address, receiver: address, amount: uint256) -> bool:
    return self._move(sender, receiver, amount)


def _move(sender: address, receiver: address, amount: uint256) -> bool:
    if self.mode == SAY_FALSE:
        return False
    if self.mode == CALL_BACK:
        self.mode = 0
        done: bool = raw_call(self.callTarget, self.callData, max_outsize=0, revert_on_failure=False)
        self.callsTried += 1
        if done:
            self.callsDone += 1
    arrives: uint256 = amount
    if self.mode == TAX_IN:
        arrives = amount - amount * 4 // 100
    self.balanceOf[sender] -= amount
    self.balanceOf[receiver] += arrives
    return True
