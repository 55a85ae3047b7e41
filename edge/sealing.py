"""Sealing: from journaled readings to one signed, numbered, chained message. Pure but for the signature it is
handed.

`Chain` is what a seal continues: everything that the next one must follow from. The journal stores it in the same
transaction as the seal itself, so a restart continues exactly where the last durable seal ended.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from protocol.enrolment import Enrolment
from protocol.errors import ProtocolError
from protocol.limits import READINGS_PER_SEAL_MAX
from protocol.readings import Reading, encode_readings
from protocol.seal import NO_PREDECESSOR, Seal, encode_seal, join_message, seal_hash, sha256
from protocol.settlement import Netting, first_closed_until


@dataclass(frozen=True)
class Chain:
    """The end of a key epoch's chain of seals. Hash in hex; energy in watt-hours, as a Netting holds it."""

    key_epoch: int
    sequence: int
    last_seal_hash: str
    sealed_at_unix_s: int
    last_reading_unix_s: int
    closed_until_unix_s: int
    production_wh: int
    consumption_wh: int
    surplus_wh: int
    last_production_wh: int
    last_consumption_wh: int


@dataclass(frozen=True)
class Sealed:
    """A message ready for the journal, how many readings it took, and the chain that it leaves."""

    message: bytes
    seal_hash: bytes
    readings: int
    chain: Chain


def first_chain(statement: Enrolment) -> Chain:
    """Where the first seal of an enrolment starts from."""
    return Chain(
        key_epoch=statement.key_epoch,
        sequence=0,
        last_seal_hash=NO_PREDECESSOR.hex(),
        sealed_at_unix_s=statement.valid_from_unix_s,
        last_reading_unix_s=statement.valid_from_unix_s,
        closed_until_unix_s=first_closed_until(statement.valid_from_unix_s),
        production_wh=statement.production_wh,
        consumption_wh=statement.consumption_wh,
        surplus_wh=statement.surplus_wh,
        last_production_wh=statement.production_wh,
        last_consumption_wh=statement.consumption_wh,
    )


def seal_due(first_unix_s: int, count: int, now_unix_s: int, seal_interval_s: int) -> bool:
    """Whether `count` unsealed readings, the first taken at `first_unix_s`, are to be sealed now.

    A seal ends at multiples of the interval, and a reading on one belongs to its past; 0 seals each reading.
    """
    if seal_interval_s == 0 or count >= READINGS_PER_SEAL_MAX:
        return True
    boundary = -(-first_unix_s // seal_interval_s) * seal_interval_s
    return boundary <= now_unix_s


def seal_readings(
    chain: Chain,
    readings: Sequence[Reading],
    now_unix_s: int,
    domain: bytes,
    sign: Callable[[bytes], bytes],
) -> Sealed:
    """Seal as many of the readings as one message holds, oldest first.

    The caller has seen to it that they follow the chain's last reading, that none is later than now, and that
    now is later than the last seal: a broken order is our own mistake.
    """
    ordered = chain.last_reading_unix_s < readings[0].time_unix_s and readings[-1].time_unix_s <= now_unix_s
    if not ordered or now_unix_s <= chain.sealed_at_unix_s:
        raise ValueError("readings, chain and clock are out of order")
    count = min(len(readings), READINGS_PER_SEAL_MAX)
    while True:
        try:
            return _seal(chain, readings[:count], now_unix_s, domain, sign)
        except ProtocolError as error:
            if error.code != "message_too_long" or count == 1:
                raise
            count //= 2


def _seal(
    chain: Chain, readings: Sequence[Reading], now_unix_s: int, domain: bytes, sign: Callable[[bytes], bytes]
) -> Sealed:
    section = encode_readings(list(readings))
    netting = Netting(
        chain.closed_until_unix_s,
        chain.production_wh,
        chain.consumption_wh,
        chain.surplus_wh,
        chain.last_production_wh,
        chain.last_consumption_wh,
    )
    for reading in readings:
        netting.add(reading.time_unix_s, reading.production_wh, reading.consumption_wh)
    seal_bytes = encode_seal(
        Seal(
            domain,
            chain.sequence + 1,
            now_unix_s,
            netting.closed_until_unix_s,
            netting.production_wh,
            netting.consumption_wh,
            netting.surplus_wh,
            bytes.fromhex(chain.last_seal_hash),
            sha256(section),
        )
    )
    digest = seal_hash(seal_bytes)
    after = replace(
        chain,
        sequence=chain.sequence + 1,
        last_seal_hash=digest.hex(),
        sealed_at_unix_s=now_unix_s,
        last_reading_unix_s=readings[-1].time_unix_s,
        closed_until_unix_s=netting.closed_until_unix_s,
        production_wh=netting.production_wh,
        consumption_wh=netting.consumption_wh,
        surplus_wh=netting.surplus_wh,
        last_production_wh=netting.last_production_wh,
        last_consumption_wh=netting.last_consumption_wh,
    )
    return Sealed(join_message(seal_bytes, sign(seal_bytes), section), digest, len(readings), after)
