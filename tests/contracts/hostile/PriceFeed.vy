# pragma version 0.4.3
# SPDX-License-Identifier: AGPL-3.0-only
"""
@title What Sablier asks for the price of the chain's coin, in US dollars with 8 decimals; it is always fresh.
"""

latest: int256


@deploy
def __init__(price: int256):
    self.latest = price


@external
@view
def decimals() -> uint8:
    return 8


@external
@view
def latestRoundData() -> (uint80, int256, uint256, uint256, uint80):
    return 1, self.latest, block.timestamp, block.timestamp, 1
