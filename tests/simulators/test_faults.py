"""What a faulty meter shows is a pure function of time; the energy that flowed is not touched by it."""

import math
import struct
from itertools import pairwise

import pytest

from simulators.meters.faults import Fault, Kind, Schedule
from simulators.meters.measured import Measured
from simulators.meters.meter import Meter
from simulators.meters.models import MODELS
from simulators.meters.registers import Read, Refusal

START = 1_795_176_000
HOUR = 3_600
END = START + 24 * HOUR
SDM_ENERGY = Read(4, 0x48, 4)
EM24_IMPORT = Read(4, 0x3E, 2)
ABB_IMPORT = Read(3, 0x5000, 4)


def truth(moment: int) -> Measured:
    """One watt-hour a second in, one in ten seconds out, from 10 MWh and 5 MWh."""
    return Measured(10_000_000 + moment - START, 5_000_000 + (moment - START) // 10, 3_600, moment, seed=7)


def meter(model: str, *faults: Fault) -> Meter:
    return Meter(MODELS[model], 1, truth, Schedule(faults, seed=11))


def words(of: Meter, read: Read, moment: int) -> tuple[int, ...]:
    found = of.read(read, moment).words
    assert isinstance(found, tuple)
    return found


def sdm_wh(of: Meter, moment: int) -> tuple[int, int]:
    imported, exported = struct.unpack(">2f", struct.pack(">4H", *words(of, SDM_ENERGY, moment)))
    return round(imported * 1_000), round(exported * 1_000)


def b23_wh(of: Meter, moment: int) -> int:
    (hundredths,) = struct.unpack(">Q", struct.pack(">4H", *words(of, ABB_IMPORT, moment)))
    return int(hundredths) * 10


def test_without_faults_a_meter_shows_what_flowed() -> None:
    assert sdm_wh(meter("eastron_sdm630"), START + HOUR) == (10_003_600, 5_000_360)


def test_a_reset_meter_counts_on_from_zero() -> None:
    broken = meter("eastron_sdm630", Fault(Kind.RESET, START + HOUR))
    assert sdm_wh(broken, START + HOUR - 1) == (10_003_599, 5_000_359)
    assert sdm_wh(broken, START + HOUR) == (0, 0)
    assert sdm_wh(broken, START + 3 * HOUR) == (7_200, 720)


def test_another_meter_counts_on_from_its_own_base_and_has_its_own_number() -> None:
    exchanged = meter("eastron_sdm630", Fault(Kind.REPLACED, START + HOUR, size=77_000))
    serial = Read(3, 0xFC00, 2)
    assert sdm_wh(exchanged, START + 2 * HOUR) == (80_600, 77_360)
    assert words(exchanged, serial, START) != words(exchanged, serial, START + 2 * HOUR)


def test_two_exchanges_follow_one_another() -> None:
    faults = (Fault(Kind.REPLACED, START + HOUR, size=500), Fault(Kind.RESET, START + 2 * HOUR))
    twice = meter("eastron_sdm630", *faults)
    assert [sdm_wh(twice, START + hours * HOUR)[0] for hours in (1, 2, 3)] == [500, 0, 3_600]


@pytest.mark.parametrize("modulus_wh", [10**8, 10**10])
def test_a_wrap_happens_at_the_instant_named_and_loses_nothing(modulus_wh: int) -> None:
    wrapping = meter("abb_b23", Fault(Kind.WRAP, START + HOUR, size=modulus_wh))
    shown = [b23_wh(wrapping, moment) for moment in range(START, START + 2 * HOUR + 1, 600)]
    assert [after - before for before, after in pairwise(shown)].count(600) == 11
    assert shown[5] == modulus_wh - 600
    assert shown[6] == 0


def test_a_frozen_meter_repeats_itself_to_the_bit() -> None:
    frozen = meter("eastron_sdm630", Fault(Kind.FROZEN, START + HOUR, START + 2 * HOUR))
    everything = Read(4, 0, 80)
    held = words(frozen, everything, START + HOUR)
    assert words(frozen, everything, START + 2 * HOUR - 1) == held
    assert words(frozen, everything, START + 2 * HOUR) != held


def test_a_starting_meter_shows_zero_and_then_the_truth_again() -> None:
    starting = meter("eastron_sdm630", Fault(Kind.ZERO, START + HOUR, START + HOUR + 60))
    assert sdm_wh(starting, START + HOUR) == (0, 0)
    assert sdm_wh(starting, START + HOUR + 60) == (10_003_660, 5_000_366)


def test_a_spike_comes_and_goes() -> None:
    spiked = meter("eastron_sdm630", Fault(Kind.SPIKE, START + HOUR, START + HOUR + 60, 4_820_000))
    imports = [sdm_wh(spiked, START + HOUR + second)[0] for second in (-1, 0, 60)]
    assert imports == [10_003_599, 14_823_600, 10_003_660]


def test_swapped_words_are_swapped_back_by_swapping() -> None:
    fault = Fault(Kind.SWAPPED, START, END)
    low, high = words(meter("carlo_gavazzi_em24"), EM24_IMPORT, START)
    assert words(meter("carlo_gavazzi_em24", fault), EM24_IMPORT, START) == (high, low)
    straight = words(meter("eastron_sdm630"), SDM_ENERGY, START)
    swapped = words(meter("eastron_sdm630", fault), SDM_ENERGY, START)
    assert swapped == (straight[1], straight[0], straight[3], straight[2])
    four = words(meter("abb_b23"), ABB_IMPORT, START)
    assert words(meter("abb_b23", fault), ABB_IMPORT, START) == four[::-1]


def test_one_bit_of_one_word_is_wrong_and_stays_so() -> None:
    flipped = meter("abb_b23", Fault(Kind.BIT_FLIP, START, END))
    changed, later = (
        [
            a ^ b
            for a, b in zip(
                words(meter("abb_b23"), ABB_IMPORT, moment), words(flipped, ABB_IMPORT, moment), strict=True
            )
        ]
        for moment in (START, END - 1)
    )
    assert [wrong.bit_count() for wrong in changed if wrong] == [1]
    assert later == changed


def test_garbage_is_no_number() -> None:
    for start in range(START, START + 20):
        garbage = meter("eastron_sdm630", Fault(Kind.GARBAGE, start, END))
        for value in struct.unpack(">2f", struct.pack(">4H", *words(garbage, SDM_ENERGY, END - 1))):
            assert not math.isfinite(value)
    assert words(meter("abb_b23", Fault(Kind.GARBAGE, START, END)), ABB_IMPORT, START) == (0xFFFF,) * 4
    pac = words(meter("siemens_pac2200", Fault(Kind.GARBAGE, START, END)), Read(3, 801, 4), START)
    assert not math.isfinite(struct.unpack(">d", struct.pack(">4H", *pac))[0])


def test_faults_of_the_answer_leave_the_words_alone() -> None:
    good = words(meter("eastron_sdm630"), SDM_ENERGY, START)
    slow = meter("eastron_sdm630", Fault(Kind.SLOW, START, END, 2_500)).read(SDM_ENERGY, START)
    short = meter("eastron_sdm630", Fault(Kind.SHORT, START, END, 3)).read(SDM_ENERGY, START)
    assert (slow.words, slow.delay_s, short.words, short.bytes_lost) == (good, 2.5, good, 3)
    assert meter("eastron_sdm630", Fault(Kind.SILENT, START, END)).read(SDM_ENERGY, START).words is None
    busy = meter("eastron_sdm630", Fault(Kind.EXCEPTION, START, END, 6)).read(SDM_ENERGY, START)
    assert busy.words == Refusal(6)


def test_a_refusal_is_still_a_refusal_whatever_is_wrong_with_the_words() -> None:
    for kind in (Kind.SWAPPED, Kind.GARBAGE, Kind.BIT_FLIP):
        assert meter("eastron_sdm630", Fault(kind, START, END)).read(Read(4, 0x49, 2), START).words == Refusal(2)


def test_faults_may_be_switched_while_the_meter_runs() -> None:
    switched = meter("eastron_sdm630")
    switched.faults = Schedule([Fault(Kind.SILENT, START, END)])
    assert switched.read(SDM_ENERGY, START).words is None
    switched.faults = Schedule()
    assert sdm_wh(switched, START) == (10_000_000, 5_000_000)


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(Kind.ZERO, START, START + 60), Fault(Kind.SPIKE, START + 59, START + 90, 5)],
        [Fault(Kind.WRAP, START, size=10**9), Fault(Kind.RESET, START + 5)],
        [Fault(Kind.WRAP, START, size=10**9), Fault(Kind.WRAP, START + 5, size=10**9)],
    ],
)
def test_a_schedule_that_would_contradict_itself_is_refused(faults: list[Fault]) -> None:
    with pytest.raises(ValueError, match=r"overlap|wrap"):
        Schedule(faults)
