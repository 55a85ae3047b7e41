"""The readings section: what the registers said, in columns.

    [time_start_unix_s, production_start_wh, consumption_start_wh,
     [time deltas], [production deltas], [consumption deltas],      one fewer than there are readings
     power_w | nil, voltage_dv | nil, frequency_mhz | nil,          a start value, then signed deltas
     flags | nil]                                                   one bit set per reading; nil when all are zero

Times strictly increase, counters never decrease: both are properties of the encoding (deltas ≥ 1 and ≥ 0), so no
decoder can forget to check them. Counters are cumulative watt-hours since the start of the key epoch's statement.
`power_w` is taken at the grid connection, positive for import and negative for export.
"""

from protocol import msgpack
from protocol.errors import ProtocolError
from protocol.limits import (
    ENERGY_WH_MAX,
    FREQUENCY_MHZ_MAX,
    POWER_W_ABS_MAX,
    READINGS_PER_SEAL_MAX,
    TIME_MAX_UNIX_S,
    TIME_MIN_UNIX_S,
    VOLTAGE_DV_MAX,
)

FLAG_CLOCK_UNSYNCHRONISED = 1
"""The device could not vouch for its clock when it took the reading."""
FLAG_REGISTER_RESET = 2
"""The register went backwards before this reading; the loss was not turned into energy."""
FLAG_METER_SWAP = 4
"""The first reading after the meter was replaced."""
FLAG_AFTER_GAP = 8
"""The agent had not been reading for a while before this reading."""
FLAGS_ALL = 15

COLUMNS = 10


class Reading:
    """One poll of one home: cumulative energy, and what else the meter said at that moment."""

    def __init__(
        self,
        time_unix_s: int,
        production_wh: int,
        consumption_wh: int,
        power_w: "int | None" = None,
        voltage_dv: "int | None" = None,
        frequency_mhz: "int | None" = None,
        flags: int = 0,
    ) -> None:
        self.time_unix_s = time_unix_s
        self.production_wh = production_wh
        self.consumption_wh = consumption_wh
        self.power_w = power_w
        self.voltage_dv = voltage_dv
        self.frequency_mhz = frequency_mhz
        self.flags = flags

    def _key(self) -> "tuple[int, int, int, int | None, int | None, int | None, int]":
        return (
            self.time_unix_s,
            self.production_wh,
            self.consumption_wh,
            self.power_w,
            self.voltage_dv,
            self.frequency_mhz,
            self.flags,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reading) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return "Reading" + repr(self._key())


def encode_readings(readings: "list[Reading]") -> bytes:
    """Encode 1 to READINGS_PER_SEAL_MAX readings in time order.

    An optional column is carried only when every reading has it. Raises ProtocolError `readings_…` when a value is
    out of range, time does not advance or a counter falls.
    """
    if not 1 <= len(readings) <= READINGS_PER_SEAL_MAX:
        raise ProtocolError("readings_count", "%d readings" % len(readings))
    for reading in readings:
        _check_reading(reading)
    first = readings[0]
    flags = [reading.flags for reading in readings]
    return msgpack.pack(
        [
            first.time_unix_s,
            first.production_wh,
            first.consumption_wh,
            _rises([reading.time_unix_s for reading in readings], 1, "time"),
            _rises([reading.production_wh for reading in readings], 0, "production"),
            _rises([reading.consumption_wh for reading in readings], 0, "consumption"),
            _signed([reading.power_w for reading in readings]),
            _signed([reading.voltage_dv for reading in readings]),
            _signed([reading.frequency_mhz for reading in readings]),
            flags if any(flags) else None,
        ]
    )


def decode_readings(section: bytes) -> "list[Reading]":
    """The inverse of encode_readings. Raises ProtocolError and nothing else, whatever the bytes."""
    columns = msgpack.unpack(section)
    if not isinstance(columns, list) or len(columns) != COLUMNS:
        raise ProtocolError("readings_shape", "not an array of %d columns" % COLUMNS)
    count = len(_array(columns[3], None)) + 1
    if count > READINGS_PER_SEAL_MAX:
        raise ProtocolError("readings_count", "%d readings" % count)
    times = _climb(columns[0], columns[3], count, 1)
    productions = _climb(columns[1], columns[4], count, 0)
    consumptions = _climb(columns[2], columns[5], count, 0)
    powers = _follow(columns[6], count)
    voltages = _follow(columns[7], count)
    frequencies = _follow(columns[8], count)
    flags = [0] * count if columns[9] is None else _array(columns[9], count)
    readings = []
    for i in range(count):
        reading = Reading(times[i], productions[i], consumptions[i], powers[i], voltages[i], frequencies[i], flags[i])
        _check_reading(reading)
        readings.append(reading)
    return readings


def _check_reading(reading: Reading) -> None:
    _within("time", reading.time_unix_s, TIME_MIN_UNIX_S, TIME_MAX_UNIX_S)
    _within("production", reading.production_wh, 0, ENERGY_WH_MAX)
    _within("consumption", reading.consumption_wh, 0, ENERGY_WH_MAX)
    if reading.power_w is not None:
        _within("power", reading.power_w, -POWER_W_ABS_MAX, POWER_W_ABS_MAX)
    if reading.voltage_dv is not None:
        _within("voltage", reading.voltage_dv, 0, VOLTAGE_DV_MAX)
    if reading.frequency_mhz is not None:
        _within("frequency", reading.frequency_mhz, 0, FREQUENCY_MHZ_MAX)
    _within("flags", reading.flags, 0, FLAGS_ALL)


def _within(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise ProtocolError("readings_range", "%s %d is outside %d to %d" % (what, value, low, high))


def _rises(values: "list[int]", step_min: int, what: str) -> "list[int]":
    deltas = [values[i] - values[i - 1] for i in range(1, len(values))]
    for delta in deltas:
        if delta < step_min:
            raise ProtocolError("readings_order", "%s changes by %d" % (what, delta))
    return deltas


def _signed(values: "list[int | None]") -> "list[int] | None":
    out: "list[int]" = []
    before = 0
    for value in values:
        if value is None:
            return None
        out.append(value - before)
        before = value
    return out


def _array(column: object, length: "int | None") -> "list[int]":
    if not isinstance(column, list) or (length is not None and len(column) != length):
        raise ProtocolError("readings_shape", "a column has the wrong length or is no array")
    for value in column:
        if not isinstance(value, int):
            raise ProtocolError("readings_shape", "a column holds something other than integers")
    return column


def _climb(start: object, deltas: object, count: int, step_min: int) -> "list[int]":
    if not isinstance(start, int):
        raise ProtocolError("readings_shape", "a start value is no integer")
    values = [start]
    for delta in _array(deltas, count - 1):
        if delta < step_min:
            raise ProtocolError("readings_order", "a delta of %d" % delta)
        values.append(values[-1] + delta)
    return values


def _follow(column: object, count: int) -> "list[int] | list[None]":
    if column is None:
        return [None] * count
    values: "list[int]" = []
    value = 0
    for delta in _array(column, count):
        value += delta
        values.append(value)
    return values
