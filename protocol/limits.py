"""Every number that both ends of the wire must agree on."""

SETTLEMENT_INTERVAL_S = 900
"""Surplus is netted per closed quarter of an hour in UTC. A constant of the protocol, never a setting."""

READINGS_PER_SEAL_MAX = 900
"""A quarter of an hour at one reading a second."""

MESSAGE_BYTES_MAX = 32_768
"""Seal, signature and readings section together. 900 ordinary readings take about 10 kB."""

ENERGY_WH_MAX = 2**53 - 1
"""Nine petawatt-hours: no register gets there, and every JSON parser can hold it."""

SEQUENCE_MAX = 2**53 - 1
KEY_EPOCH_MAX = 2**31 - 1

TIME_MIN_UNIX_S = 1_577_836_800
"""2020-01-01T00:00:00Z. An earlier time is a clock that was never set."""

TIME_MAX_UNIX_S = 4_102_444_800
"""2100-01-01T00:00:00Z."""

FUTURE_MAX_S = 300
"""A seal from further ahead of the hub's clock than this is held; the chain applies the same figure."""

STATUS_INTERVAL_S = 60
"""A meter with a connection says how it is at least this often; the hub misses it after three times as long."""

METER_ID_BYTES_MAX = 32
COMMUNITY_ID_BYTES_MAX = 32
SHARDS = 16

POWER_W_ABS_MAX = 2**31 - 1
VOLTAGE_DV_MAX = 100_000
FREQUENCY_MHZ_MAX = 1_000_000
"""The instantaneous columns: W, tenths of a volt, thousandths of a hertz."""

COMMITTED_RANGES_MAX = 64
"""Ranges beyond the contiguous sequence that one `committed` receipt may name."""
