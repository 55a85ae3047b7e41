"""From counters to energy: sums telescope, late data splits exactly, uncounted seals only take away."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hub.readings.energy import DAY_S, HOUR_S, Closing, Energy, Jump, interval_energies, sum_by_bucket
from protocol.settlement import Netting, interval_end

BASE = Closing(900_000, 900_000, 1_000, 500)

steps = st.lists(
    st.tuples(st.integers(1, 4_000), st.integers(0, 5_000), st.integers(0, 5_000)), min_size=1, max_size=60
)


def _readings(changes: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """Cumulative readings (unix seconds, production Wh, consumption Wh) after BASE."""
    time, production, consumption = BASE.last_reading_unix_s, BASE.production_wh, BASE.consumption_wh
    readings = []
    for pause_s, produced_wh, consumed_wh in changes:
        time, production, consumption = time + pause_s, production + produced_wh, consumption + consumed_wh
        readings.append((time, production, consumption))
    return readings


def _closings(readings: list[tuple[int, int, int]]) -> list[Closing]:
    """What the hub keeps: per interval, its last reading."""
    kept = {interval_end(time): Closing(interval_end(time), time, *counters) for time, *counters in readings}
    return [kept[end] for end in sorted(kept)]


def _sums(energies: list[Energy]) -> tuple[int, int, int]:
    return (
        sum(energy.production_wh for energy in energies),
        sum(energy.consumption_wh for energy in energies),
        sum(energy.surplus_wh for energy in energies),
    )


@given(steps)
def test_the_energy_of_all_intervals_is_what_the_counters_rose_by(changes):
    closings = _closings(_readings(changes))
    production_wh, consumption_wh, _ = _sums(interval_energies(BASE, closings, []))
    assert production_wh == closings[-1].production_wh - BASE.production_wh
    assert consumption_wh == closings[-1].consumption_wh - BASE.consumption_wh


@given(steps)
def test_the_surplus_is_what_the_meter_itself_nets(changes):
    readings = _readings(changes)
    netting = Netting(
        BASE.interval_end_unix_s,
        BASE.production_wh,
        BASE.consumption_wh,
        0,
        BASE.production_wh,
        BASE.consumption_wh,
    )
    for reading in readings:
        netting.add(*reading)
    closed = [closing for closing in _closings(readings) if closing.interval_end_unix_s <= netting.closed_until_unix_s]
    assert _sums(interval_energies(BASE, closed, []))[2] == netting.surplus_wh


@given(steps, st.data())
def test_late_intervals_split_energy_exactly_and_surplus_only_grows(changes, data):
    closings = _closings(_readings(changes))
    early = [closing for closing in closings[:-1] if data.draw(st.booleans())] + closings[-1:]
    before = _sums(interval_energies(BASE, early, []))
    after = _sums(interval_energies(BASE, closings, []))
    assert before[:2] == after[:2]
    assert before[2] <= after[2]


@given(steps, st.data())
def test_reading_in_pieces_gives_the_same_intervals(changes, data):
    closings = _closings(_readings(changes))
    cut = data.draw(st.integers(0, len(closings)))
    whole = interval_energies(BASE, closings, [])
    rest = interval_energies(closings[cut - 1] if cut else BASE, closings[cut:], [])
    assert interval_energies(BASE, closings[:cut], []) + rest == whole


@given(steps, st.data())
def test_a_seal_that_does_not_count_takes_away_exactly_its_own_energy(changes, data):
    readings = _readings(changes)
    held = data.draw(st.sets(st.sampled_from(range(len(readings))), max_size=len(readings) - 1))
    counted = [reading for index, reading in enumerate(readings) if index not in held]
    jumps = [
        Jump(time, production - before[1], consumption - before[2])
        for index, ((time, production, consumption), before) in enumerate(
            zip(readings, [(0, BASE.production_wh, BASE.consumption_wh), *readings], strict=False)
        )
        if index in held
    ]
    energies = interval_energies(BASE, _closings(counted), jumps)
    own_wh = [0, 0]
    for index, (_, produced_wh, consumed_wh) in enumerate(changes):
        if index not in held:
            own_wh[0] += produced_wh
            own_wh[1] += consumed_wh
    assert _sums(energies)[:2] == tuple(own_wh)
    assert all(energy.surplus_wh <= energy.production_wh for energy in energies)


@given(
    steps, st.lists(st.tuples(st.integers(900_000, 1_200_000), st.integers(-9_000, 9_000), st.integers(-9_000, 9_000)))
)
def test_uncounted_seals_never_add_energy_nor_surplus_whatever_they_claim(changes, claims):
    closings = _closings(_readings(changes))
    free = interval_energies(BASE, closings, [])
    held = interval_energies(BASE, closings, [Jump(*claim) for claim in claims])
    for without, within in zip(free, held, strict=True):
        assert 0 <= within.production_wh <= without.production_wh
        assert 0 <= within.consumption_wh <= without.consumption_wh
        assert 0 <= within.surplus_wh <= without.surplus_wh


@given(steps)
def test_hours_and_days_are_the_sums_of_their_intervals(changes):
    intervals = interval_energies(BASE, _closings(_readings(changes)), [])
    for bucket_s in (900, HOUR_S, DAY_S):
        buckets = sum_by_bucket(intervals, bucket_s)
        assert _sums(buckets) == _sums(intervals)
        starts = [bucket.start_unix_s for bucket in buckets]
        assert starts == sorted(set(starts))
        assert all(start % bucket_s == 0 for start in starts)


def test_a_reading_on_the_hour_belongs_to_the_hour_that_ends():
    ten = 36_000
    energies = interval_energies(Closing(ten - 900, ten - 900, 0, 0), [Closing(ten, ten, 7, 0)], [])
    [hour] = sum_by_bucket(energies, HOUR_S)
    assert (hour.start_unix_s, hour.production_wh) == (ten - HOUR_S, 7)


def test_surplus_is_netted_per_interval_before_it_is_summed():
    closings = [Closing(900_900, 900_900, 1_100, 500), Closing(901_800, 901_800, 1_100, 600)]
    [hour] = sum_by_bucket(interval_energies(BASE, closings, []), HOUR_S)
    assert (hour.production_wh, hour.consumption_wh, hour.surplus_wh) == (100, 100, 100)


def test_two_key_epochs_in_one_interval_are_added():
    first = interval_energies(BASE, [Closing(900_900, 900_300, 1_010, 500)], [])
    second = interval_energies(Closing(900_000, 900_300, 0, 0), [Closing(900_900, 900_900, 5, 0)], [])
    assert sum_by_bucket([*first, *second], 900) == [Energy(900_000, 15, 0, 15)]
