"""The model's arithmetic: which seals and statements are well formed, and how much a seal may add."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.programs.energy import layout
from tests.programs.energy.layout import Meter
from tests.programs.energy.signing import INTERVAL_S, ZEROS, Seal, Statement

WH_MAX = 2**53 - 1
TIME_MIN_UNIX_S, TIME_MAX_UNIX_S = 1_577_836_800, 4_102_444_800
FUTURE_MAX_S = 300
STATEMENT_AGE_MAX_S = 366 * 86_400
U64_MAX = 2**64 - 1


@dataclass(frozen=True)
class Limits:
    """What `submit_reading` and `write_off` measure a seal by."""

    meter: Meter
    seal: Seal

    @property
    def produced_wh(self) -> int:
        return self.seal.production_wh - self.meter.production_wh

    @property
    def consumed_wh(self) -> int:
        return self.seal.consumption_wh - self.meter.consumption_wh

    @property
    def surplus_wh(self) -> int:
        return self.seal.surplus_wh - self.meter.surplus_wh

    @property
    def net_wh(self) -> int:
        return max(0, self.produced_wh - self.consumed_wh)

    def broken(self) -> set[str]:
        """The rules about how much, given that time goes on."""
        errors = set()
        if min(self.produced_wh, self.consumed_wh, self.surplus_wh) < 0:
            return {"counter_decreased"}
        meter, until = self.meter, self.seal.closed_until_unix_s
        if not fits(meter, self.produced_wh, until - meter.closed_until_unix_s):
            errors.add("over_capacity")
        beyond_wh = self.seal.production_wh - meter.high_production_wh
        goes_once_more = meter.closed_until_unix_s < meter.high_until_unix_s and beyond_wh > 0
        if goes_once_more and not fits(meter, beyond_wh, max(0, until - meter.high_until_unix_s)):
            errors.add("over_capacity")
        if not self.net_wh <= self.surplus_wh <= self.produced_wh:
            errors.add("surplus_out_of_bounds")
        return errors


def fits(meter: Meter, produced_wh: int, elapsed_s: int) -> bool:
    """Production ≤ 110 % of capacity × time + one step of the register, in tenths of watt-seconds."""
    return produced_wh * 36_000 <= meter.capacity_w * elapsed_s * 11 + meter.register_step_wh * 36_000


def sealed(meter: Meter, seal: Seal) -> Meter:
    """The meter once this seal is its last."""
    return replace(
        meter, sequence=seal.sequence, closed_until_unix_s=seal.closed_until_unix_s, production_wh=seal.production_wh,
        consumption_wh=seal.consumption_wh, surplus_wh=seal.surplus_wh,
    )  # fmt: skip


def seal_is_well_formed(seal: Seal) -> bool:
    return (
        seal.magic == b"CWS1"
        and 1 <= seal.sequence <= WH_MAX
        and (seal.sequence == 1) == (seal.previous_seal_hash == ZEROS)
        and TIME_MIN_UNIX_S <= seal.closed_until_unix_s <= seal.sealed_at_unix_s <= TIME_MAX_UNIX_S
        and seal.closed_until_unix_s % INTERVAL_S == 0
        and seal.production_wh <= WH_MAX
        and seal.consumption_wh <= WH_MAX
        and seal.surplus_wh <= seal.production_wh
    )


LETTERS = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789")


def meter_id_is_well_formed(field_bytes: bytes) -> bool:
    name = field_bytes.rstrip(b"\0")
    if not name or name.startswith(b"hub-"):
        return False
    return {name[0], name[-1]} <= LETTERS and set(name) <= LETTERS | {ord("-")}


def statement_is_well_formed(statement: Statement) -> bool:
    return (
        statement.magic == b"CWE1"
        and meter_id_is_well_formed(statement.meter_id)
        and statement.kind in (layout.SOLAR, layout.WIND, layout.BATTERY, layout.GRID_METER)
        and statement.measurement in (1, 2)
        and 1 <= statement.key_epoch < 2**31
        and statement.flags <= (1 if statement.key_epoch == 1 else 3)
        and statement.production_wh <= WH_MAX
        and statement.consumption_wh <= WH_MAX
        and statement.surplus_wh <= statement.production_wh
        and TIME_MIN_UNIX_S <= statement.valid_from_unix_s <= TIME_MAX_UNIX_S
    )
