"""A community on a ledger: its keys, members and meters, and the calls that each would honestly make."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from solders.instruction import Instruction
from solders.keypair import Keypair
from solders.pubkey import Pubkey

from tests.programs.energy import calls, layout
from tests.programs.energy.calls import Call, call
from tests.programs.energy.layout import Addresses, Config, Meter, User
from tests.programs.energy.ledger import START_UNIX_S, Ledger, Outcome, deploy, keypair, program_data_of
from tests.programs.energy.signing import INTERVAL_S, ZEROS, Seal, Signed, Statement, ed25519, sign
from tests.programs.energy.token_2022 import (
    MINT_TOKENS,
    balance_units,
    create_mint,
    create_token_account,
    mint_to,
    set_authority,
    supply_units,
    token_account,
)

DOMAIN = hashlib.sha256(b"a community").digest()[:8]
CAPACITY_W_MAX, REGISTER_STEP_WH_MAX = 1_000_000, 1_000
CAPACITY_W, REGISTER_STEP_WH = 10_000, 100
BUSINESS_ID = bytes(range(16))
BASE_WH = (5_000, 7_000, 1_000)
"""Counters with which a meter is enrolled unless a test says others."""


@dataclass(frozen=True)
class Keys:
    """Who is who."""

    authority: Keypair = field(default_factory=lambda: keypair("authority"))
    hub: Keypair = field(default_factory=lambda: keypair("hub"))
    issuer: Keypair = field(default_factory=lambda: keypair("issuer"))
    validator: Keypair = field(default_factory=lambda: keypair("validator"))
    stranger: Keypair = field(default_factory=lambda: keypair("stranger"))


@dataclass
class Device:
    """A meter as its own key sees it."""

    meter_id: str
    owner: Keypair
    key: Keypair
    kind: int = layout.SOLAR


class Community:
    """One deployment on one ledger."""

    def __init__(self, ledger: Ledger, program: Keypair, mint: Keypair, keys: Keys | None = None) -> None:
        self.ledger = ledger
        self.program_key = program
        self.program = program.pubkey()
        self.mint_key = mint
        self.mint = mint.pubkey()
        self.keys = keys or Keys()
        self.addresses = Addresses(self.program)
        self.config = self.addresses.config()

    # -- what is there

    def read_config(self) -> Config:
        return Config.decode(self.ledger.data(self.config))

    def read_user(self, owner: Keypair) -> User:
        return User.decode(self.ledger.data(self.addresses.user(owner.pubkey())))

    def read_meter(self, meter_id: str) -> Meter:
        return Meter.decode(self.ledger.data(self.addresses.meter(meter_id)))

    def balance_units(self, owner: Keypair) -> int:
        return balance_units(self.ledger.data(self.grid_account(owner)))

    def supply_units(self) -> int:
        return supply_units(self.ledger.data(self.mint))

    def grid_account(self, owner: Keypair) -> Pubkey:
        return token_account(owner.pubkey(), self.mint)

    # -- calls

    def initialize(self) -> Call:
        keys = self.keys
        data = DOMAIN + b"".join(bytes(each.pubkey()) for each in (keys.hub, keys.issuer, keys.validator))
        return call(
            self.program, calls.INITIALIZE, data + calls.limits(CAPACITY_W_MAX, REGISTER_STEP_WH_MAX),
            authority=keys.authority.pubkey(), config=self.config, grid_mint=self.mint,
            program_data=program_data_of(self.program),
        )  # fmt: skip

    def register_user(self, owner: Keypair, kind: int = layout.PROSUMER) -> Call:
        return call(
            self.program, calls.REGISTER_USER, bytes([kind]),
            hub=self.keys.hub.pubkey(), wallet=owner.pubkey(), config=self.config,
            user=self.addresses.user(owner.pubkey()),
        )  # fmt: skip

    def statement(self, device: Device, **changes: object) -> Statement:
        production_wh, consumption_wh, surplus_wh = BASE_WH
        honest = Statement(
            b"CWE1", DOMAIN, device.meter_id.encode().ljust(32, b"\0"), device.kind, 1, 0, 1,
            bytes(device.owner.pubkey()), bytes(device.key.pubkey()), production_wh, consumption_wh, surplus_wh,
            START_UNIX_S - 10 * INTERVAL_S + 17, ZEROS,
        )  # fmt: skip
        return replace(honest, **changes)  # type: ignore[arg-type]

    def register_meter(
        self, device: Device, capacity_w: int = CAPACITY_W, register_step_wh: int = REGISTER_STEP_WH
    ) -> Call:
        return call(
            self.program, calls.REGISTER_METER, calls.limits(capacity_w, register_step_wh),
            hub=self.keys.hub.pubkey(), owner=device.owner.pubkey(), config=self.config,
            user=self.addresses.user(device.owner.pubkey()), meter=self.addresses.meter(device.meter_id),
            meter_key=self.addresses.meter_key(device.key.pubkey()), grid_account=self.grid_account(device.owner),
        )  # fmt: skip

    def rotation(self, device: Device, key: Keypair, **changes: object) -> Statement:
        """The statement of the next key, from the meter's last counters on."""
        meter = self.read_meter(device.meter_id)
        honest = self.statement(
            replace(device, key=key), key_epoch=meter.key_epoch + 1, kind=meter.kind,
            production_wh=meter.production_wh, consumption_wh=meter.consumption_wh, surplus_wh=meter.surplus_wh,
            valid_from_unix_s=meter.closed_until_unix_s, last_seal_hash=b"\x07" * 32,
        )  # fmt: skip
        return replace(honest, **changes)  # type: ignore[arg-type]

    def rotate(self, device: Device, key: Keypair) -> Call:
        return call(
            self.program, calls.ROTATE_METER_KEY,
            hub=self.keys.hub.pubkey(), config=self.config, meter=self.addresses.meter(device.meter_id),
            meter_key=self.addresses.meter_key(key.pubkey()),
        )  # fmt: skip

    def seal(self, device: Device, delta: Sequence[int] = (1_000, 200, 800), **changes: object) -> Seal:
        """The next seal: so much more production, consumption and surplus, an interval later."""
        meter = self.read_meter(device.meter_id)
        closed_until_unix_s = meter.closed_until_unix_s + INTERVAL_S
        honest = Seal(
            b"CWS1", DOMAIN, meter.sequence + 1, closed_until_unix_s + 5, closed_until_unix_s,
            meter.production_wh + delta[0], meter.consumption_wh + delta[1], meter.surplus_wh + delta[2],
            ZEROS if meter.sequence == 0 else b"\x09" * 32, b"\x0a" * 32,
        )  # fmt: skip
        return replace(honest, **changes)  # type: ignore[arg-type]

    def submit(self, device: Device, business_id: bytes = BUSINESS_ID) -> Call:
        return call(self.program, calls.SUBMIT_READING, business_id, **self._sealed(device))

    def settle(self, device: Device, business_id: bytes = BUSINESS_ID) -> Call:
        return call(
            self.program, calls.SETTLE, business_id,
            hub=self.keys.hub.pubkey(), config=self.config, meter=self.addresses.meter(device.meter_id),
            grid_mint=self.mint, grid_account=self.grid_account(device.owner),
        )  # fmt: skip

    def write_off(self, device: Device, production_wh: int, surplus_wh: int, business_id: bytes = BUSINESS_ID) -> Call:
        data = business_id + struct.pack("<QQ", production_wh, surplus_wh)
        return call(self.program, calls.WRITE_OFF, data, **self._sealed(device))

    def set_status(self, device: Device, state: int) -> Call:
        accounts = self._sealed(device)
        return call(self.program, calls.SET_METER_STATUS, bytes([state]), **accounts)

    def deactivate(self, device: Device, authority: Keypair | None = None) -> Call:
        return call(
            self.program, calls.DEACTIVATE_METER,
            authority=(authority or self.keys.hub).pubkey(), config=self.config,
            meter=self.addresses.meter(device.meter_id), user=self.addresses.user(device.owner.pubkey()),
        )  # fmt: skip

    def pause(self, paused: int, authority: Keypair | None = None) -> Call:
        return call(
            self.program, calls.PAUSE, bytes([paused]),
            authority=(authority or self.keys.authority).pubkey(), config=self.config,
        )  # fmt: skip

    def configure(
        self, admin: Keypair | None = None, new_admin: Keypair | None = None, hub: Pubkey | None = None,
        issuer: Pubkey | None = None, validator: Pubkey | None = None,
        capacity_w_max: int = CAPACITY_W_MAX, register_step_wh_max: int = REGISTER_STEP_WH_MAX,
    ) -> Call:  # fmt: skip
        keys = self.keys
        new = (new_admin or keys.authority).pubkey()
        chosen = (hub or keys.hub.pubkey(), issuer or keys.issuer.pubkey(), validator or keys.validator.pubkey())
        data = bytes(new) + b"".join(map(bytes, chosen)) + calls.limits(capacity_w_max, register_step_wh_max)
        return call(
            self.program, calls.CONFIGURE, data,
            admin=(admin or keys.authority).pubkey(), config=self.config, new_admin=new,
        )  # fmt: skip

    def _sealed(self, device: Device) -> dict[str, Pubkey]:
        return {
            "hub": self.keys.hub.pubkey(),
            "config": self.config,
            "meter": self.addresses.meter(device.meter_id),
        }

    # -- the honest way through them

    def enrol(self, device: Device, **changes: object) -> Outcome:
        """Register a meter (its owner is registered already)."""
        signed = sign(device.key, self.statement(device, **changes).encode())
        return self.send([ed25519(signed), self.register_meter(device)])

    def sealed(self, device: Device, *delta: int, **changes: object) -> Signed:
        return sign(device.key, self.seal(device, delta or (1_000, 200, 800), **changes).encode())

    def submit_once(self, device: Device, *delta: int, **changes: object) -> Outcome:
        return self.send([ed25519(self.sealed(device, *delta, **changes)), self.submit(device)])

    def settle_once(self, device: Device) -> Outcome:
        return self.send([self.settle(device)])

    def rotate_once(self, device: Device, key: Keypair, endorser: Keypair | None = None, **changes: object) -> Outcome:
        message = self.rotation(device, key, **changes).encode()
        endorsed = ed25519(sign(key, message)), ed25519(sign(endorser or device.key, message))
        return self.send([*endorsed, self.rotate(device, key)])

    def send(self, acts: Sequence[Instruction | Call]) -> Outcome:
        return self.ledger.send([each.instruction() if isinstance(each, Call) else each for each in acts])


def must(outcome: Outcome) -> Outcome:
    """The outcome, which is success."""
    assert outcome.accepted, (outcome.error, outcome.logs)
    return outcome


def deployed(code: bytes, name: str = "") -> Community:
    """The program on a new ledger and a mint that it may have, nothing initialized."""
    program, mint = keypair(f"program{name}"), keypair(f"mint{name}")
    community = Community(Ledger(program.pubkey()), program, mint)
    keys, ledger = community.keys, community.ledger
    for each in (keypair("payer"), keys.authority, keys.hub, keys.stranger):
        ledger.airdrop(each.pubkey())
    deploy(ledger, program.pubkey(), keys.authority, code)
    make_mint(community)
    return community


def make_mint(
    community: Community, extension: str | None = None, freeze_authority: Pubkey | None = None,
    decimals: int = layout.DECIMALS, named: bool = True, minted_units: int = 0, authority: Pubkey | None = None,
) -> None:  # fmt: skip
    """Create the community's mint; Config becomes the authority unless another is named."""
    ledger, maker, mint = community.ledger, community.keys.authority, community.mint
    instructions = create_mint(
        maker.pubkey(), mint, ledger.rent(600), extension, decimals, freeze_authority, named
    )  # fmt: skip
    must(ledger.send(instructions))
    if minted_units:
        owner = maker.pubkey()
        account = token_account(owner, mint)
        must(ledger.send([create_token_account(owner, owner, mint), mint_to(mint, account, owner, minted_units)]))
    handed = set_authority(mint, maker.pubkey(), MINT_TOKENS, authority or community.config)
    must(ledger.send([handed]))


def initialized(code: bytes, name: str = "") -> Community:
    """A running community with two members, one solar meter of the first and one wind meter of the second."""
    community = deployed(code, name)
    must(community.send([community.initialize()]))
    for device in (ADA, OTTO):
        must(community.send([community.register_user(device.owner)]))
        hub = community.keys.hub
        must(community.ledger.send([create_token_account(hub.pubkey(), device.owner.pubkey(), community.mint)]))
        must(community.enrol(device))
    return community


ADA = Device("ada-roof", keypair("ada"), keypair("ada's meter"))
OTTO = Device("otto-mill", keypair("otto"), keypair("otto's meter"), layout.WIND)
