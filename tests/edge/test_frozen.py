from fractions import Fraction

from edge.counters import GENERATION, GRID_EXPORT, GRID_IMPORT
from edge.frozen import REGISTER_FROZEN, PowerWitness
from edge.poll import Poll

NAMES = {"grid": (GRID_IMPORT, GRID_EXPORT), "generation": (GENERATION,)}


class Minutes:
    """A home heard each minute. The registers are the last ones believed."""

    def __init__(self, quantum_wh: int = 1, interval_s: int = 60) -> None:
        self.witness = PowerWitness(NAMES)
        self.quanta = {name: Fraction(quantum_wh) for names in NAMES.values() for name in names}
        self.registers = {GENERATION: 10_000, GRID_IMPORT: 20_000, GRID_EXPORT: 30_000}
        self.interval_s = interval_s
        self.frozen: dict[str, int] = {}
        self.now = 1_800_000_000

    def hear(self, grid_w: int, generation_w: int = 0, minutes: int = 1, **moved: int) -> str:
        said = ""
        for _ in range(minutes):
            self.now += self.interval_s
            registers = {name: wh + moved.get(name, 0) for name, wh in self.registers.items()}
            powers = {"grid": grid_w, "generation": generation_w}
            poll = Poll(registers, powers_w=powers, quanta_wh=self.quanta)
            self.frozen = self.witness.frozen_wh(poll, self.now, self.frozen)
            said = REGISTER_FROZEN if self.frozen else ""
            if not said:
                self.registers = registers
        return said


def test_a_register_that_stands_still_while_a_kilowatt_passes_is_frozen_within_minutes() -> None:
    home = Minutes()
    assert home.hear(1_000, minutes=2) == ""
    assert home.hear(1_000, minutes=3) == REGISTER_FROZEN
    assert home.hear(1_000, grid_import=50) == ""
    assert home.hear(1_000, grid_import=17, minutes=60) == ""


def test_a_generation_register_that_stands_still_in_the_sun_is_frozen() -> None:
    home = Minutes()
    assert home.hear(0, 4_000, generation=67, minutes=2) == ""
    assert home.hear(0, 4_000, minutes=5) == REGISTER_FROZEN


def test_panels_whose_battery_is_charged_from_the_grid_all_night_are_not_frozen() -> None:
    for sign in (1, -1):  # some meters say the opposite
        home = Minutes()
        if sign > 0:  # a start at night; who says the opposite is believed after his first movements
            assert home.hear(3_000, -3_000, grid_import=50, minutes=60) == ""
        assert home.hear(-4_000, 4_000 * sign, generation=67, grid_export=67, minutes=60) == ""
        assert home.hear(3_000, -3_000 * sign, grid_import=50, minutes=600) == ""
        assert home.hear(-4_000, 4_000 * sign, generation=67, grid_export=67, minutes=60) == ""


def test_a_meter_that_says_its_power_with_the_opposite_sign_is_released_by_the_register_that_stood_still() -> None:
    home = Minutes()
    assert home.hear(-1_000, grid_import=17, minutes=20) == ""
    assert home.hear(-1_000, minutes=5) == REGISTER_FROZEN
    assert home.hear(-1_000, grid_import=85) == ""


def test_a_freeze_outlives_the_witness() -> None:
    home = Minutes()
    assert home.hear(1_000, minutes=5) == REGISTER_FROZEN
    home.witness = PowerWitness(NAMES)
    assert home.hear(-3_000, grid_export=50, minutes=30) == REGISTER_FROZEN
    assert home.hear(-3_000, grid_export=1_500, grid_import=80) == ""


def test_a_coarse_register_is_given_the_time_for_its_steps() -> None:
    home = Minutes(quantum_wh=100)
    assert home.hear(1_000, minutes=24) == ""
    assert home.hear(1_000, minutes=4) == REGISTER_FROZEN


def test_a_register_may_stand_still_all_night_at_a_power_that_no_meter_must_count() -> None:
    home = Minutes()
    assert home.hear(90, minutes=600) == ""
    assert home.hear(-90, minutes=600) == ""


def test_a_power_with_the_wrong_sign_accuses_nobody() -> None:
    home = Minutes()
    assert home.hear(-2_000, grid_import=33, minutes=60) == ""


def test_a_power_that_was_there_only_between_long_silences_is_no_witness() -> None:
    home = Minutes(interval_s=3_600)
    assert home.hear(2_000, minutes=24) == ""


def test_while_an_import_is_frozen_no_export_is_believed() -> None:
    home = Minutes()
    assert home.hear(1_000, minutes=5) == REGISTER_FROZEN
    assert home.hear(-3_000, grid_export=50, minutes=30) == REGISTER_FROZEN
    assert home.hear(-3_000, grid_export=1_500, grid_import=80) == ""


def test_an_export_that_was_frozen_and_returns_leaves_the_import_alone() -> None:
    home = Minutes()
    assert home.hear(-1_000, minutes=5) == REGISTER_FROZEN
    assert home.hear(300, minutes=1) == REGISTER_FROZEN
    assert home.hear(300, grid_export=90) == ""
    assert home.hear(0, minutes=60) == ""


def test_a_freeze_that_a_moment_without_power_hides_is_still_that_of_the_import() -> None:
    home = Minutes()
    assert home.hear(1_000, minutes=2) == ""
    assert home.hear(0) == ""
    assert home.hear(-1_000, grid_export=17) == ""
    home = Minutes()
    assert home.hear(1_000, minutes=2) == ""
    assert home.hear(0) == ""
    assert home.hear(-1_000, minutes=1) == ""  # the export has its own time to move
    assert home.hear(1_000, minutes=5) == REGISTER_FROZEN
    assert home.hear(0, minutes=1) == REGISTER_FROZEN
    assert home.hear(1_000, grid_import=120) == ""
