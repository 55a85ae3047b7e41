"""Messages and message orders that a hub must survive. Every function is pure and seeded: it returns bytes.

`BAD_MESSAGES` turns one genuine message into one that breaks exactly one rule; all but the first few are
validly signed by the meter's own key, so only the rule itself can stop them.
"""

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from nacl.signing import SigningKey

from protocol import msgpack
from protocol.limits import MESSAGE_BYTES_MAX, SETTLEMENT_INTERVAL_S
from protocol.readings import FLAG_AFTER_GAP, Reading, decode_readings, encode_readings
from protocol.seal import DOMAIN_BYTES, HASH_BYTES, LAYOUT, SEAL_BYTES, SIGNATURE_BYTES, sha256
from simulators.sealing import SealedMessage, seeded_key

SEAL_FIELDS = (
    "magic",
    "domain",
    "sequence",
    "sealed_at_unix_s",
    "closed_until_unix_s",
    "production_wh",
    "consumption_wh",
    "surplus_wh",
    "previous_seal_hash",
    "readings_hash",
)
DAY_S = 86_400
IMPOSSIBLE_WH = 10_000_000
"""More than any home's connection carries within a seal."""

BadMessage = Callable[[SigningKey, bytes, random.Random], bytes]


def reseal(key: SigningKey, message: bytes, section: bytes | None = None, **changes: Any) -> bytes:
    """The message with seal fields (SEAL_FIELDS) or its readings section changed, signed again by `key`.

    Nothing is checked: this writes what the protocol's own encoder refuses to write.
    """
    fields = dict(zip(SEAL_FIELDS, struct.unpack(LAYOUT, message[:SEAL_BYTES]), strict=True))
    if section is None:
        section = section_of(message)
    else:
        fields["readings_hash"] = sha256(section)
    fields.update(changes)
    seal = struct.pack(LAYOUT, *fields.values())
    return seal + key.sign(seal).signature + section


def section_of(message: bytes) -> bytes:
    """The readings section of a message."""
    return message[SEAL_BYTES + SIGNATURE_BYTES :]


def field_of(message: bytes, name: str) -> Any:
    """One field of a message's seal."""
    return struct.unpack(LAYOUT, message[:SEAL_BYTES])[SEAL_FIELDS.index(name)]


def bad_signature(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """One bit of the signature is flipped."""
    return _flip(message, SEAL_BYTES + rng.randrange(SIGNATURE_BYTES), rng)


def tampered_seal(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """A counter is raised without signing again."""
    changed = reseal(key, message, production_wh=field_of(message, "production_wh") + 1)
    signature = message[SEAL_BYTES : SEAL_BYTES + SIGNATURE_BYTES]
    return changed[:SEAL_BYTES] + signature + section_of(message)


def foreign_key(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """Signed, but by somebody else."""
    return reseal(seeded_key(f"stranger/{rng.random()}"), message)


def tampered_readings(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """A bit of the readings section is flipped: the seal does not bind it."""
    first = SEAL_BYTES + SIGNATURE_BYTES
    return _flip(message, rng.randrange(first, len(message)), rng)


def truncated(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """Cut off anywhere."""
    return message[: rng.randrange(len(message))]


def too_long(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """One byte more than a message may have."""
    return message + bytes(MESSAGE_BYTES_MAX + 1 - len(message))


def garbage(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """Random bytes of the same length."""
    return rng.randbytes(len(message))


def wrong_magic(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """A protocol version that does not exist."""
    return reseal(key, message, magic=b"CWS9")


def wrong_domain(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """Sealed for another deployment."""
    return reseal(key, message, domain=rng.randbytes(DOMAIN_BYTES))


def future(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """Readings and seal from a day ahead."""
    shift_s = DAY_S + SETTLEMENT_INTERVAL_S
    readings = [_shifted(reading, time_s=shift_s) for reading in decode_readings(section_of(message))]
    return reseal(
        key,
        message,
        section=encode_readings(readings),
        sealed_at_unix_s=field_of(message, "sealed_at_unix_s") + shift_s,
        closed_until_unix_s=field_of(message, "closed_until_unix_s") + shift_s,
    )


def never_set_clock(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """Sealed in 1970."""
    return reseal(key, message, sealed_at_unix_s=0, closed_until_unix_s=0)


def open_interval(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """Counters as of an instant at which no settlement interval ends."""
    return reseal(key, message, closed_until_unix_s=field_of(message, "closed_until_unix_s") - 1)


def surplus_beyond_production(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """More surplus than was ever produced."""
    return reseal(key, message, surplus_wh=field_of(message, "production_wh") + 1)


def invented_surplus(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """A surplus that the readings do not bear out, within all other limits."""
    return reseal(key, message, surplus_wh=field_of(message, "surplus_wh") + rng.randint(1, 50))


def impossible_energy(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """Every counter jumps by more than the home's connection can carry."""
    readings = [_shifted(reading, production_wh=IMPOSSIBLE_WH) for reading in decode_readings(section_of(message))]
    return reseal(
        key,
        message,
        section=encode_readings(readings),
        production_wh=field_of(message, "production_wh") + IMPOSSIBLE_WH,
        surplus_wh=field_of(message, "surplus_wh") + IMPOSSIBLE_WH,
    )


def fallen_counter(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """Production below what the enrolment started from."""
    return reseal(key, message, production_wh=1, consumption_wh=1, surplus_wh=0)


def broken_chain(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """Names a predecessor that never was."""
    return reseal(key, message, previous_seal_hash=rng.randbytes(HASH_BYTES))


def sequence_zero(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """A number before the first."""
    return reseal(key, message, sequence=0)


def readings_not_messagepack(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """A signed section of noise."""
    return reseal(key, message, section=b"\xc1" + rng.randbytes(40))


def readings_of_wrong_shape(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """A signed section whose columns do not fit each other."""
    columns = msgpack.unpack(section_of(message))
    if not isinstance(columns, list):
        raise TypeError("not a genuine message")
    return reseal(key, message, section=msgpack.pack([*columns[:3], [60], [], [], *columns[6:]]))


def readings_beyond_the_seal(key: SigningKey, message: bytes, rng: random.Random) -> bytes:
    """The readings go on for a day after the seal was made."""
    readings = [_shifted(reading, time_s=DAY_S) for reading in decode_readings(section_of(message))]
    return reseal(key, message, section=encode_readings(readings))


BAD_MESSAGES: dict[str, BadMessage] = {
    function.__name__: function
    for function in (
        garbage,
        truncated,
        too_long,
        bad_signature,
        tampered_seal,
        tampered_readings,
        foreign_key,
        wrong_magic,
        wrong_domain,
        future,
        never_set_clock,
        open_interval,
        surplus_beyond_production,
        invented_surplus,
        impossible_energy,
        fallen_counter,
        broken_chain,
        sequence_zero,
        readings_not_messagepack,
        readings_of_wrong_shape,
        readings_beyond_the_seal,
    )
}


def fork(key: SigningKey, message: bytes) -> bytes:
    """A second seal with the same sequence and energy but another section, as valid as the first:
    equivocation."""
    readings = decode_readings(section_of(message))
    readings[-1].flags ^= FLAG_AFTER_GAP
    return reseal(key, message, section=encode_readings(readings))


def with_duplicates(messages: list[SealedMessage], share: float, rng: random.Random) -> list[SealedMessage]:
    """The messages, a share of them again at any later point."""
    last = len(messages)
    places = [(float(place), message) for place, message in enumerate(messages)]
    places += [(rng.uniform(place, last), message) for place, message in places if rng.random() < share]
    return [message for _, message in sorted(places, key=lambda pair: pair[0])]


def reordered(messages: list[SealedMessage], window: int, rng: random.Random) -> list[SealedMessage]:
    """The messages, none of them more than `window` places late."""
    places = [(place + rng.uniform(0, window), place) for place in range(len(messages))]
    return [messages[place] for _, place in sorted(places)]


def with_gap(messages: list[SealedMessage], first: int, last: int) -> tuple[list[SealedMessage], list[SealedMessage]]:
    """What is sent at once, and the sequences first … last to send later."""
    missing = [message for message in messages if first <= message.sequence <= last]
    return [message for message in messages if not first <= message.sequence <= last], missing


@dataclass(frozen=True)
class Mischief:
    """What to do to one meter's messages. Shares are from 0 to 1."""

    bad_kinds: tuple[str, ...] = ()
    bad_share: float = 0.1
    duplicate_share: float = 0.0
    reorder_window: int = 0
    gap: tuple[int, int] | None = None
    fork_sequence: int | None = None


def misbehave(messages: list[SealedMessage], key: SigningKey, mischief: Mischief, seed: str) -> list[SealedMessage]:
    """The messages of one meter with the mischief done to them; every genuine one is still among them.

    A bad message comes right before the genuine one that it imitates, a fork right after.
    Raises KeyError for a kind that is not in BAD_MESSAGES.
    """
    rng = random.Random(seed)
    out: list[SealedMessage] = []
    for message in messages:
        if mischief.bad_kinds and rng.random() < mischief.bad_share:
            kind = rng.choice(mischief.bad_kinds)
            out.append(replace(message, readings=0, message=BAD_MESSAGES[kind](key, message.message, rng)))
        out.append(message)
        if message.sequence == mischief.fork_sequence:
            out.append(replace(message, readings=0, message=fork(key, message.message)))
    out, late = with_gap(out, *mischief.gap) if mischief.gap else (out, [])
    if mischief.reorder_window:
        out = reordered(out, mischief.reorder_window, rng)
    return with_duplicates(out + late, mischief.duplicate_share, rng)


def _flip(message: bytes, at: int, rng: random.Random) -> bytes:
    changed = bytearray(message)
    changed[at] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _shifted(reading: Reading, time_s: int = 0, production_wh: int = 0) -> Reading:
    return Reading(
        reading.time_unix_s + time_s,
        reading.production_wh + production_wh,
        reading.consumption_wh,
        reading.power_w,
        reading.voltage_dv,
        reading.frequency_mhz,
        reading.flags,
    )
