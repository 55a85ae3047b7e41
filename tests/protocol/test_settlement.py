"""Netting: no sampling rate and no gap can create a watt-hour."""

from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.limits import SETTLEMENT_INTERVAL_S
from protocol.settlement import Netting, interval_end

NOON = 1_795_089_600
STEP_S = 60
STEPS_PER_INTERVAL = SETTLEMENT_INTERVAL_S // STEP_S
INTERVALS = 8

Sample = tuple[int, int, int]
"""Unix second, production Wh, consumption Wh."""


@st.composite
def histories(draw: st.DrawFn) -> list[Sample]:
    """A sample a minute over two hours, from NOON, ending on a boundary."""
    count = INTERVALS * STEPS_PER_INTERVAL
    steps = st.lists(st.sampled_from([0, 0, 1, 7, 100]), min_size=count, max_size=count)
    production, consumption = (list(accumulate(draw(steps))) for _ in range(2))
    return [(NOON + (n + 1) * STEP_S, production[n], consumption[n]) for n in range(count)]


def net(samples: list[Sample]) -> Netting:
    netting = Netting(NOON, 0, 0, 0, 0, 0)
    for sample in samples:
        netting.add(*sample)
    return netting


def on_boundary(sample: Sample) -> bool:
    return sample[0] % SETTLEMENT_INTERVAL_S == 0


PROPERTY = settings(max_examples=100, deadline=None)


@PROPERTY
@given(histories(), st.data())
def test_surplus_does_not_depend_on_the_sampling_rate(history: list[Sample], data: st.DataObject) -> None:
    kept = data.draw(st.sets(st.integers(0, len(history) - 1)))
    sparse = [sample for n, sample in enumerate(history) if n in kept or on_boundary(sample)]
    assert vars(net(sparse)) == vars(net(history))


@PROPERTY
@given(histories())
def test_surplus_lies_between_the_net_of_everything_and_all_production(history: list[Sample]) -> None:
    netting = net(history)
    _, production_wh, consumption_wh = history[-1]
    assert max(0, production_wh - consumption_wh) <= netting.surplus_wh <= production_wh
    assert netting.closed_until_unix_s == history[-1][0]


@PROPERTY
@given(histories(), st.sets(st.integers(0, INTERVALS - 2)))
def test_hours_without_a_reading_only_take_away(history: list[Sample], silent: set[int]) -> None:
    heard = [
        sample for sample in history if (interval_end(sample[0]) - NOON) // SETTLEMENT_INTERVAL_S - 1 not in silent
    ]
    with_gaps, whole = net(heard), net(history)
    assert with_gaps.surplus_wh <= whole.surplus_wh
    assert (with_gaps.production_wh, with_gaps.consumption_wh) == (whole.production_wh, whole.consumption_wh)


@PROPERTY
@given(histories(), st.integers(0, INTERVALS * STEPS_PER_INTERVAL))
def test_counters_of_a_seal_never_fall(history: list[Sample], end: int) -> None:
    before, after = net(history[:end]), net(history)
    assert before.surplus_wh <= after.surplus_wh
    assert before.production_wh <= after.production_wh
    assert before.closed_until_unix_s <= after.closed_until_unix_s


def test_an_afternoon_that_produces_and_consumes_the_same_has_no_surplus_at_any_sampling_rate() -> None:
    """One kilowatt both ways for five hours, read through a register that steps by 100 Wh."""
    for step_s in (1, 10, 60, 300, 900):
        samples = []
        for second in range(step_s, 5 * 3_600 + 1, step_s):
            energy_wh = second * 1_000 // 3_600 // 100 * 100
            samples.append((NOON + second, energy_wh, energy_wh))
        assert net(samples).surplus_wh == 0
