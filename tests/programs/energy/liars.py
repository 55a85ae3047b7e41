"""Who takes part in random histories, and how what they send differs from what an honest hub would."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st
from solders.instruction import Instruction
from solders.pubkey import Pubkey

from tests.programs.energy.calls import Call
from tests.programs.energy.ledger import KEYPAIRS, keypair
from tests.programs.energy.signing import Signed, ed25519, sign

OWNERS = [keypair(name) for name in ("ada", "otto", "emmy", "lise", "max", "mallory")]
HUBS = [keypair("hub"), keypair("second hub")]
ADMINS = [keypair("authority"), keypair("second admin")]
STRANGER = keypair("stranger")
METER_KEYS = [keypair("ada's meter"), keypair("otto's meter"), *(keypair(f"meter key {n}") for n in range(40))]
METER_IDS = ["ada-roof", "otto-mill", *(f"meter-{number}" for number in range(6))]
EVERYBODY = {each.pubkey(): each for each in (*OWNERS, *HUBS, *ADMINS, STRANGER, *METER_KEYS)}

COMPUTE_BUDGET = Instruction(
    Pubkey.from_string("ComputeBudget111111111111111111111111111111"), b"\x02\x40\x0d\x03\0", []
)

few = st.integers(0, 3)
which = st.integers(0, 10**6)


def now_and_then(values: Sequence[Any], often: Any = "") -> st.SearchStrategy[Any]:
    """Mostly the ordinary thing."""
    return st.integers(0, 12).flatmap(lambda number: st.sampled_from(values) if number == 7 else st.just(often))


@dataclass(frozen=True)
class Fault:
    """What is wrong with a call: nothing, if `kind` is empty."""

    kind: str
    place: int
    other: int


faults = st.builds(
    Fault,
    now_and_then(["swapped", "swapped", "unsigned", "read only", "too few", "longer", "shorter", "unknown"]),
    which,
    which,
)
lies = now_and_then(["absent", "earlier", "foreign key", "two", "forged", "message longer", "magic", "domain"])


@dataclass(frozen=True)
class Quarter:
    """What a meter seals next: honest figures, but for one twist."""

    produced_wh: int
    consumed_wh: int
    all_is_surplus: bool
    intervals: int
    sequences: int
    twist: str


quarters = st.builds(
    Quarter,
    produced_wh=st.integers(0, 2_850),
    consumed_wh=st.sampled_from([0, 0, 10, 500, 3_000]),
    all_is_surplus=st.booleans(),
    intervals=st.sampled_from([1, 1, 2, 4]),
    sequences=st.sampled_from([1, 1, 1, 2]),
    twist=now_and_then([
        "too little", "too much", "over capacity", "same interval", "same sequence", "odd time", "sealed before",
        "production falls", "consumption falls", "predecessor", "future",
    ]),
)  # fmt: skip


@dataclass(frozen=True)
class Turn:
    """How a new key's statement differs from where the old one stood, and who endorses it."""

    back: tuple[int, int, int]
    intervals_back: int
    ahead: str
    epochs: int
    other: str
    endorser: str
    endorsed: str


turns = st.builds(
    Turn,
    back=st.tuples(few, few, few),
    intervals_back=st.sampled_from([0, 0, 1, 3, 96]),
    ahead=now_and_then(["production", "consumption", "time"]),
    epochs=now_and_then([0, 2], 1),
    other=now_and_then(["kind", "measurement", "owner", "meter"]),
    endorser=st.sampled_from(["old", "owner", "old", "owner", "old", "owner", "stranger", "new"]),
    endorsed=now_and_then(["first", "other words"]),
)


def spoiled(honest: Call, fault: Fault, candidates: Sequence[Pubkey]) -> Call:
    """The call with its fault; a swapped account is one of the candidates."""
    name, meta = honest.metas[fault.place % len(honest.metas)]
    other = candidates[fault.other % len(candidates)]
    return {
        "": lambda: honest,
        "swapped": lambda: honest.with_account(name, other, signs=meta.is_signer and other in KEYPAIRS),
        "unsigned": lambda: honest.unsigned(name),
        "read only": lambda: honest.read_only(name),
        "too few": lambda: honest.first(fault.other % len(honest.metas)),
        "longer": lambda: honest.with_data(honest.data + b"\0"),
        "shorter": lambda: honest.with_data(honest.data[:-1]),
        "unknown": lambda: replace(honest, number=11 + fault.other % 245),
    }[fault.kind]()


def signature(signed: Signed, lie: str) -> list[Instruction]:
    """The Ed25519 instruction, or what a thief or a muddle has instead of it."""
    signer = KEYPAIRS[Pubkey(signed.key)]
    forged = replace(signed, message=signed.message[:-1] + bytes([signed.message[-1] ^ 1]))
    return {
        "": [ed25519(signed)],
        "absent": [],
        "earlier": [ed25519(signed), COMPUTE_BUDGET],
        "foreign key": [ed25519(sign(STRANGER, signed.message))],
        "two": [ed25519(signed, signed)],
        "forged": [ed25519(forged)],
        "message longer": [ed25519(sign(signer, signed.message + b"\0"))],
        "magic": [ed25519(sign(signer, b"XXXX" + signed.message[4:]))],
        "domain": [ed25519(sign(signer, signed.message[:4] + b"elsewher" + signed.message[12:]))],
    }[lie]
