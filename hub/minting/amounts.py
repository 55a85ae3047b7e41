"""GRID as people and programs read it: units are strings, since JSON's numbers end at 2⁵³."""

from __future__ import annotations

from hub.minting.rules import UNITS_PER_WH

WH_PER_GRID = 1_000


def units(energy_wh: int) -> str:
    """The GRID that so much energy is, in base units."""
    return str(energy_wh * UNITS_PER_WH)


def grid(energy_wh: int) -> str:
    """The same in GRID, with the decimals that a watt-hour needs."""
    whole, rest = divmod(energy_wh, WH_PER_GRID)
    return f"{whole}.{rest:03d}".rstrip("0").rstrip(".")
