"""What can go wrong between a meter's wheel and the agent, drawn from a seed."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.flows.year_of_faults.meters import REGISTERS, Corruption, Model, Raw, no_answer, refuses

Make = Callable[[random.Random, Model, list[str]], Corruption]

READ_FAULTS: dict[str, float] = {
    "bit_flip": 40,
    "bit_flips": 6,
    "power_bit_flip": 3,
    "spike": 12,
    "zero": 10,
    "no_value": 4,
    "no_answer": 8,
    "exception": 6,
    "word_order": 5,
    "stuck_bit": 1,
}
"""Weights of the faults of single rounds; the last shows every read of a round the same."""
SPELLS: dict[str, float] = {
    "boot_zeros": 0.3,
    "far_spike": 0.5,
    "word_order_spell": 0.3,
    "silence": 0.5,
    "frozen": 0.25,
    "stale": 0.15,
}
"""Those that last for some rounds."""
EVENTS: dict[str, float] = {
    "reset": 0.10,
    "replacement": 0.05,
    "restart": 2,
    "power_cut": 0.15,
    "clock_forward": 0.15,
    "clock_back": 0.15,
    "leap_second": 0.3,
    "clock_wild": 0.08,
    "no_rtc": 0.06,
    "late": 0.8,
}
"""What happens to the meter, the device or its clock."""
WEIGHTS: Mapping[str, float] = {**READ_FAULTS, **SPELLS, **EVENTS}
FLAT_WEIGHTS: Mapping[str, float] = {kind: weight**0.4 for kind, weight in WEIGHTS.items()}
"""For a few days: what is rare in a year comes often enough to tell a rule from its absence."""
STUCK_MORE_WH = 1_500
"""A bit that is wrong in every read of one reading, by so much more than the meter's power may explain: of less, nobody
could say that the home did not draw it."""
BOOT_MAX_S = 540
"""A meter that says zero for longer is believed to have been reset, until it returns."""
STALE_MAX_S = 480
"""A meter that repeats itself unnoticed for longer may have counted more than one interval can hold."""
FAR_WH = (10**7, 10**9)


@dataclass(frozen=True)
class Fault:
    """One fault: its kind and for how many rounds it lasts."""

    kind: str
    rounds: int = 1


def draw(rng: random.Random, interval_s: int, weights: Mapping[str, float]) -> Fault:
    kind = rng.choices(list(weights), list(weights.values()))[0]
    rounds = {
        "boot_zeros": lambda: rng.randint(1, max(1, BOOT_MAX_S // interval_s)),
        "far_spike": lambda: rng.randint(1, 30),
        "word_order_spell": lambda: rng.randint(2, 30),
        "silence": lambda: rng.randint(1, 60),
        "frozen": lambda: rng.randint(5, 180),
        "stale": lambda: rng.randint(2, max(2, STALE_MAX_S // interval_s)),
        "clock_wild": lambda: rng.randint(1, 10),
        "no_rtc": lambda: rng.randint(1, 10),
    }.get(kind, lambda: 1)()
    return Fault(kind, rounds)


def corruption(kind: str, rng: random.Random, model: Model, names: list[str]) -> Corruption | None:
    """What this fault makes of the reads of a round; None if it leaves the bytes alone."""
    if kind in ("no_answer", "silence"):
        dead = rng.randint(1, 3) if kind == "no_answer" else 99
        return lambda raw, number: no_answer(raw, number) if number < dead else raw
    if kind == "exception":
        busy = rng.randint(1, 3)
        return lambda raw, number: refuses(raw, number) if number < busy else raw
    if kind in ("word_order", "word_order_spell"):
        return lambda raw, _number: {key: _exchanged(data) for key, data in raw.items()}
    make = _MAKERS.get(kind)
    return make(rng, model, names) if make else None


def _bit_flip(rng: random.Random, _model: Model, names: list[str]) -> Corruption:
    """One bit of one energy register, in one of the reads."""
    which, at, bit = REGISTERS[rng.choice(names)], rng.choice((0, 1)), rng.randrange(64)
    return lambda raw, number: _flipped(raw, which, bit) if number == at else raw


def _bit_flips(rng: random.Random, _model: Model, names: list[str]) -> Corruption:
    """A noisy line: a different bit in each of the first reads."""
    bits = rng.sample(range(16), rng.randint(2, 3))  # never the same twice: that would be the meter's own word
    flips = [(REGISTERS[rng.choice(names)], bit) for bit in bits]
    return lambda raw, number: _flipped(raw, *flips[number]) if number < len(flips) else raw


def _power_bit_flip(rng: random.Random, _model: Model, names: list[str]) -> Corruption:
    which, bit = (REGISTERS[rng.choice(names)][0], "power"), rng.randrange(32)
    return lambda raw, _number: _flipped(raw, which, bit)


def _spike(rng: random.Random, model: Model, names: list[str]) -> Corruption:
    """One read says something that a home might have drawn, or not at all."""
    which, at = REGISTERS[rng.choice(names)], rng.choice((0, 1))
    data = model.energy(rng.choice((rng.randrange(10**4, 10**8), rng.randrange(10**6))))
    return lambda raw, number: {**raw, which: data} if number == at else raw


def _zero(rng: random.Random, _model: Model, names: list[str]) -> Corruption:
    which, at = REGISTERS[rng.choice(names)], rng.choice((0, 1))
    return lambda raw, number: {**raw, which: bytes(len(raw[which]))} if number == at else raw


def _no_value(rng: random.Random, model: Model, names: list[str]) -> Corruption:
    which, reads = REGISTERS[rng.choice(names)], rng.randint(1, 4)
    return lambda raw, number: {**raw, which: model.no_value} if number < reads else raw


def _boot_zeros(_rng: random.Random, _model: Model, names: list[str]) -> Corruption:
    return lambda raw, _number: {**raw, **{REGISTERS[name]: bytes(len(raw[REGISTERS[name]])) for name in names}}


_MAKERS: dict[str, Make] = {
    "bit_flip": _bit_flip,
    "bit_flips": _bit_flips,
    "power_bit_flip": _power_bit_flip,
    "spike": _spike,
    "zero": _zero,
    "no_value": _no_value,
    "boot_zeros": _boot_zeros,
}


def instead(which: tuple[str, str], data: bytes) -> Corruption:
    """Every read shows the same wrong value."""
    return lambda raw, _number: {**raw, which: data}


def _flipped(raw: Raw, which: tuple[str, str], bit: int) -> Raw:
    data = bytearray(raw[which])
    bit %= 8 * len(data)
    data[bit // 8] ^= 1 << bit % 8
    return {**raw, which: bytes(data)}


def _exchanged(data: bytes) -> bytes:
    return b"".join(data[i : i + 2] for i in range(len(data) - 2, -2, -2))
