"""What may be registered on the chain, and for how much the hub pays the rent of it. Pure.

Everything that the program would refuse is refused here first, by name, so that nobody is asked to sign in vain; the
program checks it all again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from solders.pubkey import Pubkey

from hub.chain.accounts import (
    METER_BYTES,
    METER_KEY_BYTES,
    USER_BYTES,
    ConfigAccount,
    ConfigState,
    MeterAccount,
    MeterState,
    UserAccount,
    UserKind,
)
from hub.chain.token_2022 import GRID_ACCOUNT_BYTES
from hub.errors import (
    ChainNotReady,
    MeterAlreadyOnChain,
    MeterCapacityRefused,
    MeterOwnedByAnother,
    MeterRetired,
    ProgramPaused,
    SponsorshipUsedUp,
    SponsorshipUsedUpToday,
    StatementOfAnotherDomain,
    UserAlreadyOnChain,
    UserNotOnChain,
)
from hub.permissions import Role
from hub.registry.rules import RETIRED
from protocol.enrolment import Enrolment

USER_KIND: Final = "user.register"
METER_KIND: Final = "meter.register"
"""Kinds of intents, and of registrations."""

WALLET_VALID_FOR_S: Final = 15 * 60
"""How long a member may take to sign; the transaction is built again as often as that needs."""

USER_COMPUTE_UNITS: Final = 60_000
METER_COMPUTE_UNITS: Final = 200_000
"""Deriving an address may take several tries of 1,500 units, the associated token program some 30,000."""

RENT_LAMPORTS_PER_BYTE: Final = 6_960
ACCOUNT_OVERHEAD_BYTES: Final = 128
"""What a cluster asks for an account that is free of rent: two years of 3,480 lamports a byte and year."""

USER_KINDS: Final = {Role.PROSUMER: UserKind.PROSUMER, Role.CONSUMER: UserKind.CONSUMER}
ACCOUNT_STATES: Final = {
    MeterState.ACTIVE: "active",
    MeterState.SUSPENDED: "suspended",
    MeterState.DEACTIVATED: "deactivated",
}
USER_ACTIVE: Final = 1


@dataclass(frozen=True)
class Terms:
    """For which program registrations are made, and how many lamports the hub pays: for a member in all, for all in a
    day."""

    program_id: Pubkey
    domain: bytes
    member_lamports_max: int
    day_lamports_max: int


def rent_lamports(account_bytes: int) -> int:
    """What an account of so many bytes must hold to stay."""
    return (ACCOUNT_OVERHEAD_BYTES + account_bytes) * RENT_LAMPORTS_PER_BYTE


USER_RENT_LAMPORTS: Final = rent_lamports(USER_BYTES)
METER_RENT_LAMPORTS: Final = (
    rent_lamports(METER_BYTES) + rent_lamports(METER_KEY_BYTES) + rent_lamports(GRID_ACCOUNT_BYTES)
)
"""With the owner's account of GRID, which may be there already: it is counted each time, for its owner may close it."""


def check_program(config: ConfigAccount | None, domain: bytes) -> ConfigAccount:
    """The Config under which something can be registered now. Raises ChainNotReady, ProgramPaused."""
    if config is None:
        raise ChainNotReady("the hub has not read the program's Config yet")
    if config.domain != domain:
        raise ChainNotReady("the program serves another community")
    if config.state is ConfigState.PAUSED:
        raise ProgramPaused
    return config


def check_user(user: UserAccount | None) -> None:
    """Whether a wallet may become a User. Raises UserAlreadyOnChain."""
    if user is not None:
        raise UserAlreadyOnChain(str(user.address))


def check_meter(
    statement: Enrolment,
    state: str,
    capacity_w: int,
    register_step_wh: int,
    owner: UserAccount | None,
    meter: MeterAccount | None,
    config: ConfigAccount,
) -> None:
    """Whether a meter may become its owner's on the chain, by the statement of its first key.

    Raises MeterAlreadyOnChain, MeterOwnedByAnother, MeterRetired, StatementOfAnotherDomain, UserNotOnChain,
    MeterCapacityRefused.
    """
    if meter is not None and meter.owner != statement.owner:
        raise MeterOwnedByAnother(str(Pubkey.from_bytes(meter.owner)))
    if meter is not None:
        raise MeterAlreadyOnChain(str(meter.address))
    if state == RETIRED:
        raise MeterRetired(statement.meter_id)
    if statement.domain != config.domain:
        raise StatementOfAnotherDomain(f"its statement is of {statement.domain.hex()}, not of {config.domain.hex()}")
    if owner is None or owner.state != USER_ACTIVE:
        raise UserNotOnChain
    if not 0 < capacity_w <= config.capacity_w_max:
        raise MeterCapacityRefused(f"it can produce {capacity_w} W; the chain takes 1 to {config.capacity_w_max} W")
    if not 0 < register_step_wh <= config.register_step_wh_max:
        raise MeterCapacityRefused(
            f"its register steps by {register_step_wh} Wh; the chain takes 1 to {config.register_step_wh_max} Wh"
        )


def check_sponsorship(lamports: int, member_lamports: int, day_lamports: int, terms: Terms) -> None:
    """Whether the hub pays so much more. Raises SponsorshipUsedUp, SponsorshipUsedUpToday."""
    if member_lamports + lamports > terms.member_lamports_max:
        raise SponsorshipUsedUp(
            f"{member_lamports} of {terms.member_lamports_max} lamports are spent, {lamports} needed"
        )
    if day_lamports + lamports > terms.day_lamports_max:
        raise SponsorshipUsedUpToday
