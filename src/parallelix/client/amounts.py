"""Amounts as a person reads and writes them. Always exact: what is shown is what is held or charged."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

from parallelix.client.errors import ConfigRefused

WEI_DIGITS = 18
SHOWN_AS_WEI_BELOW = 10**12
"""A millionth of a PRLX; smaller amounts would be mostly zeros."""
AMOUNT_DIGITS_MAX = 60


def shown(wei: str | int) -> str:
    """`1.25 PRLX`, or `11000 wei` for a small amount."""
    amount_wei = int(wei)
    if abs(amount_wei) < SHOWN_AS_WEI_BELOW:
        return f"{amount_wei} wei" if amount_wei else "0 PRLX"
    whole, part = divmod(abs(amount_wei), 10**WEI_DIGITS)
    digits = f"{part:0{WEI_DIGITS}d}".rstrip("0")
    sign = "-" if amount_wei < 0 else ""
    return f"{sign}{whole}{'.' if digits else ''}{digits} PRLX"


def typed(wei: int) -> str:
    """`1.25prlx`: one word that `read` takes."""
    return shown(wei).replace(" ", "").lower()


def read(text: str, *, name: str) -> int:
    """Wei, from `100prlx`, `0.5 PRLX` or `5000wei`. Raises `ConfigRefused`, also for a bare number."""
    plain = text.replace("_", "").strip().lower()
    unit = next((each for each in ("prlx", "wei") if plain.endswith(each)), "")
    number = plain.removesuffix(unit).strip()
    try:
        value = Decimal(number) if unit and len(number) <= AMOUNT_DIGITS_MAX else Decimal("NaN")
    except InvalidOperation:
        value = Decimal("NaN")
    if not value.is_finite():
        raise ConfigRefused(f"{name} {text[:40]!r}: expected a number and its unit, such as 100prlx or 5000wei")
    sign, digits, exponent = value.as_tuple()
    assert isinstance(exponent, int)
    shift = exponent + (WEI_DIGITS if unit == "prlx" else 0)
    if sign or shift < 0 or shift > AMOUNT_DIGITS_MAX:
        raise ConfigRefused(f"{name} {text[:40]!r}: expected a positive amount of at most 18 digits after the point")
    return int("".join(map(str, digits))) * 10**shift
