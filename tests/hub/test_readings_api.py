"""What was measured comes out again: raw, added up, as CSV and Parquet, with its evidence."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from sqlalchemy import text

from protocol.committed import Committed, encode_committed

DAY = int(datetime.now(UTC).timestamp()) // 86_400 * 86_400 - 86_400
"""Yesterday, so that nothing of it is from the future."""


def iso(unix_s):
    return datetime.fromtimestamp(unix_s, UTC).isoformat().replace("+00:00", "Z")


def _range(start_s=0, end_s=86_400, **more):
    return {"from": iso(DAY + start_s), "to": iso(DAY + end_s)} | more


@pytest.fixture
def home(server, new_meter):
    """A home that was enrolled at yesterday's first moment."""
    meter = new_meter("roof", valid_from_unix_s=DAY)
    server.register(meter)
    return meter


def _store(server, meter, *readings):
    """Seal and post readings of (seconds of yesterday, production Wh, consumption Wh)."""
    answer = server.post_seal(meter, meter.seal([(DAY + second, *counters) for second, *counters in readings]))
    assert answer.status_code == 200, answer.text
    return answer.json()


def _buckets(server, **parameters):
    answer = server.client.get("/meters/roof/readings", params=_range(**parameters))
    assert answer.status_code == 200, answer.text
    return [
        (bucket["from"][11:16], bucket["production_wh"], bucket["consumption_wh"], bucket["surplus_wh"])
        for bucket in answer.json()["buckets"]
    ]


def test_a_posted_seal_is_stored_once_and_answered_alike(server, home):
    message = home.seal([(DAY + 60, 10, 4)])
    first = server.post_seal(home, message).json()
    assert first == {
        "committed": True,
        "state": "accepted",
        "reason": None,
        "key_epoch": 1,
        "sequence": 1,
        "contiguous_sequence": 1,
        "receipt": encode_committed(Committed(1, 1, home.previous, [])).hex(),
    }
    assert server.post_seal(home, message).json() == first | {"state": "repeat"}
    assert server.client.get("/meters/roof").json()["latest_seal"]["reading_count"] == 1


def test_energy_adds_up_in_every_bucket(server, home):
    _store(server, home, (0, 0, 0), (900, 100, 30), (1_800, 150, 130))
    _store(server, home, (2_700, 150, 200), (3_600, 400, 200), (4_500, 500, 200))
    assert _buckets(server, bucket="15min") == [
        ("00:00", 100, 30, 70),
        ("00:15", 50, 100, 0),
        ("00:30", 0, 70, 0),
        ("00:45", 250, 0, 250),
        ("01:00", 100, 0, 100),
    ]
    assert _buckets(server, bucket="hour") == [("00:00", 400, 200, 320), ("01:00", 100, 0, 100)]
    assert _buckets(server, bucket="day") == [("00:00", 500, 200, 420)]


def test_a_range_that_begins_later_gives_the_same_intervals(server, home):
    _store(server, home, (0, 0, 0), (900, 100, 30), (1_800, 150, 130), (2_700, 160, 130))
    whole = _buckets(server, bucket="15min")
    assert _buckets(server, start_s=900, bucket="15min") == whole[1:]
    assert _buckets(server, start_s=1_800, end_s=2_700, bucket="15min") == whole[2:]
    assert _buckets(server, start_s=2_700, end_s=5_400, bucket="15min") == []


def test_pages_of_buckets_join_without_a_seam(server, home):
    _store(server, home, *[(second, second, 0) for second in range(900, 86_401, 900)])
    whole = _buckets(server, bucket="15min")
    pages, cursor = [], ""
    while cursor is not None:
        page = server.client.get("/meters/roof/readings", params=_range(bucket="15min", limit=7, cursor=cursor)).json()
        assert len(page["buckets"]) <= 7
        pages += [bucket["from"][11:16] for bucket in page["buckets"]]
        cursor = page["next_cursor"]
    assert pages == [bucket[0] for bucket in whole]
    assert len(pages) == 96


def test_readings_come_in_pages_and_the_range_is_half_open(server, home):
    _store(server, home, *[(second, second, 0) for second in range(0, 600, 60)])
    seen, cursor = [], ""
    while cursor is not None:
        page = server.client.get(
            "/meters/roof/readings", params=_range(60, 540, bucket="raw", limit=3, cursor=cursor)
        ).json()
        seen += [reading["production_wh"] for reading in page["readings"]]
        cursor = page["next_cursor"]
    assert seen == list(range(60, 540, 60))
    latest = server.client.get("/meters/roof/latest").json()["reading"]
    assert (latest["time"], latest["production_wh"]) == (iso(DAY + 540), 540)


def test_late_data_splits_what_was_lumped_together(server, home):
    _store(server, home, (900, 100, 0))
    missing = home.seal([(DAY + 1_800, 200, 150)])
    _store(server, home, (2_700, 300, 150))
    assert _buckets(server, bucket="15min") == [("00:00", 100, 0, 100), ("00:30", 200, 150, 50)]
    assert server.client.get("/meters/roof/gaps").json()["gaps"][0]["first_sequence"] == 2
    assert server.post_seal(home, missing).json()["state"] == "accepted"
    assert server.client.get("/meters/roof/gaps").json()["gaps"] == []
    assert _buckets(server, bucket="15min") == [
        ("00:00", 100, 0, 100),
        ("00:15", 100, 150, 0),
        ("00:30", 100, 0, 100),
    ]


def test_a_quarantined_seal_does_not_count_until_it_is_released(server, home):
    _store(server, home, (900, 100, 0))
    assert _store(server, home, (1_800, 9_000_000, 0))["state"] == "quarantined"
    _store(server, home, (2_700, 9_000_050, 0))
    counted = [("00:00", 100, 0, 100), ("00:30", 50, 0, 50)]
    assert _buckets(server, bucket="15min") == counted
    [entry] = server.client.get("/quarantine?state=held&reason=over_capacity&meter_id=roof").json()["entries"]
    path = f"/quarantine/{entry['quarantine_id']}"
    assert server.post(f"{path}/release", {"note": "the plate was wrong"}).json()["state"] == "released"
    assert _buckets(server, bucket="15min") == [
        ("00:00", 100, 0, 100),
        ("00:15", 8_999_900, 0, 8_999_900),
        ("00:30", 50, 0, 50),
    ]
    answer = server.post(f"{path}/reject", {"note": "too late"})
    assert (answer.status_code, answer.json()["code"]) == (409, "quarantine_already_decided")
    assert server.client.get("/quarantine?state=held").json()["entries"] == []


def test_a_rejected_seal_never_counts(server, home):
    _store(server, home, (900, 100, 0))
    _store(server, home, (1_800, 9_000_000, 0))
    _store(server, home, (2_700, 9_000_050, 0))
    [entry] = server.client.get("/quarantine").json()["entries"]
    assert server.post(f"/quarantine/{entry['quarantine_id']}/reject", {"note": "spike"}).status_code == 200
    assert _buckets(server, bucket="day") == [("00:00", 150, 0, 150)]
    assert server.post("/quarantine/999/reject", {"note": "x"}).json()["code"] == "quarantine_entry_not_found"


def test_evidence_is_byte_for_byte_what_the_meter_sent(server, home):
    message = home.seal([(DAY + 60, 10, 4)])
    server.post_seal(home, message)
    answer = server.client.get("/meters/roof/seals/1/1/evidence")
    assert answer.content == message
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["ETag"] == f'"{home.previous.hex()}"'
    assert answer.headers["X-Seal-State"] == "accepted"
    assert server.client.get("/meters/roof/seals/1/2/evidence").json()["code"] == "seal_not_found"


def test_seals_are_listed_in_pages(server, home):
    for second in (60, 120, 180):
        _store(server, home, (second, second, 0))
    first = server.client.get("/meters/roof/seals?limit=2").json()
    rest = server.client.get("/meters/roof/seals", params={"cursor": first["next_cursor"]}).json()
    assert [seal["sequence"] for seal in first["seals"] + rest["seals"]] == [1, 2, 3]
    assert rest["next_cursor"] is None


def test_csv_and_parquet_hold_the_same_whole_numbers(server, home):
    _store(server, home, (900, 100, 30), (1_800, 150, 130))
    for bucket, columns in (
        ("raw", "time production_wh consumption_wh power_w voltage_dv frequency_mhz flags"),
        ("15min", "start end production_wh consumption_wh surplus_wh"),
    ):
        answer = server.client.get("/meters/roof/readings", params=_range(bucket=bucket, format="csv"))
        assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
        rows = list(csv.reader(io.StringIO(answer.text, newline="")))
        assert rows[0] == columns.split()
        headers = {"Accept": "application/vnd.apache.parquet"}
        answer = server.client.get("/meters/roof/readings", params=_range(bucket=bucket), headers=headers)
        table = pq.read_table(io.BytesIO(answer.content))
        assert table.column_names == columns.split()
        assert [str(value) for value in table["production_wh"].to_pylist()] == [
            row[rows[0].index("production_wh")] for row in rows[1:]
        ]
        assert table.num_rows == 2


def test_an_empty_range_is_an_empty_table(server, home):
    for form in ("csv", "parquet"):
        answer = server.client.get("/meters/roof/readings", params=_range(bucket="raw", format=form))
        assert answer.status_code == 200
        if form == "csv":
            assert answer.text.splitlines() == [
                "time,production_wh,consumption_wh,power_w,voltage_dv,frequency_mhz,flags"
            ]
        else:
            assert pq.read_table(io.BytesIO(answer.content)).num_rows == 0


def test_a_long_export_is_read_in_pieces(server, home):
    with server.engine.begin() as connection:
        connection.execute(text("CREATE TABLE readings_of_the_test PARTITION OF readings DEFAULT"))
        connection.execute(
            text(
                "INSERT INTO readings SELECT 1, to_timestamp(:day + n), n, 0, NULL, NULL, NULL, 0"
                " FROM generate_series(0, 25000) AS n"
            ),
            {"day": DAY},
        )
    answer = server.client.get("/meters/roof/readings", params=_range(bucket="raw", format="csv"))
    assert [int(row.split(",")[1]) for row in answer.text.splitlines()[1:]] == list(range(25_001))
    answer = server.client.get("/meters/roof/readings", params=_range(bucket="raw", format="parquet"))
    assert pq.read_table(io.BytesIO(answer.content))["production_wh"].to_pylist() == list(range(25_001))


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({"from": "2026-11-20T00:00:00"}, "from"),
        ({"from": "yesterday"}, "from"),
        ({"from": "1763596800"}, "from"),
        ({"from": "2026-02-30T00:00:00Z"}, "from"),
        ({"from": "1999-01-01T00:00:00Z"}, "from"),
        ({"to": iso(DAY)}, "empty"),
        ({"to": iso(DAY - 900)}, "empty"),
        ({"to": iso(DAY + 60)}, "multiples of 900"),
        ({"bucket": "hour", "to": iso(DAY + 900)}, "multiples of 3600"),
        ({"bucket": "raw", "to": iso(DAY + 32 * 86_400)}, "31 days"),
        ({"bucket": "week"}, "bucket"),
        ({"format": "xml"}, "format"),
        ({"limit": 0}, "limit"),
        ({"limit": 10_001}, "limit"),
        ({"limit": 5, "format": "csv"}, "limit"),
        ({"cursor": "?"}, "cursor"),
        ({"cursor": "MA"}, "cursor"),
    ],
)
def test_a_range_that_makes_no_sense_is_named(server, home, parameters, named):
    answer = server.client.get("/meters/roof/readings", params=_range() | parameters)
    assert (answer.status_code, answer.json()["code"]) == (422, "malformed_input")
    assert named in answer.json()["detail"]


def test_bytes_that_no_key_of_the_meter_signed_leave_no_trace(server, home, new_meter):
    message = home.seal([(DAY + 60, 10, 4)])
    for changed in (b"", b"x", message[:-1], message[:200], b"\x00" + message[1:], message + b"\x00"):
        answer = server.post_seal(home, changed)
        assert (answer.status_code, answer.json()["code"]) == (422, "seal_unverifiable")
    stranger = new_meter("stranger")
    assert server.post_seal(stranger, message).json()["code"] == "meter_not_found"
    assert server.client.get("/quarantine").json()["entries"] == []
    assert server.client.get("/meters/roof").json()["highest_sequence"] == 0
