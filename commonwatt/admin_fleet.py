"""`commonwatt admin meters`, `status` and `alarms`: how the fleet is, in a terminal of 120 columns, or of 80."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from commonwatt.access import open_client
from commonwatt.hub_client import path_of
from commonwatt.terminal import clean, console, show, show_list

METERS_PER_REQUEST = 1_000
PRESENCE_STYLES = {"online": "green", "offline": "bold red", "never": "dim"}
STATE_STYLES = {"active": "", "suspended": "yellow", "retired": "dim"}
FIRMWARE_WIDTH_MIN = 10
METER_WIDTH_MIN = 16
"""What is longer is cut where the terminal is too narrow for it; `status` shows versions whole."""
LEFT_OUT = ("firmware", "epoch", "sequence", "skew")
"""What a narrow terminal goes without, after columns in which nothing is said: `status` has it."""
PROBLEMS_INDENT = 4
_HEAD = ("meter", "state", "seen", "epoch", "sequence", "missing", "held", "backlog", "skew", "firmware")
_FIGURES = frozenset({"epoch", "sequence", "missing", "held", "backlog", "skew"})
_GAP = "  "
_UNITS_S = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))

Json = Mapping[str, Any]


def meters(
    context: typer.Context,
    presence: Annotated[Literal["online", "offline", "never"] | None, typer.Option(help="Only these.")] = None,
    state: Annotated[Literal["active", "suspended", "retired"] | None, typer.Option(help="Only these.")] = None,
    problem: Annotated[str | None, typer.Option(help="Only meters that name this problem, e.g. journal_full.")] = None,
    firmware: Annotated[str | None, typer.Option(help="Only meters of this version.")] = None,
    behind: Annotated[bool, typer.Option("--behind", help="Only meters with a backlog or missing seals.")] = False,
) -> None:
    """The fleet: who is online, what is missing, which problems the meters name.

    SKEW is how far a meter's clock is behind the hub's; MISSING and HELD count seals (HELD up to 10,000 of
    a meter), BACKLOG those still to come.
    """
    filters = {
        "presence": presence,
        "state": state,
        "problem": problem,
        "firmware": firmware,
        "behind": "true" if behind else None,
        "limit": METERS_PER_REQUEST,
    }
    with open_client(context) as hub:
        summary = hub.get("/fleet/summary")
        found = list(hub.each("/fleet", "meters", filters))
    at = datetime.fromisoformat(summary["at"])
    terminal = console()
    for line in fleet_lines(found, at, terminal.width):
        terminal.print(line, soft_wrap=True)
    terminal.print(Text(summary_line(len(found), summary)))


def status(context: typer.Context, meter_id: Annotated[str, typer.Argument(metavar="METER", help="Meter id.")]) -> None:
    """How one meter is, in detail: what the hub has of it, and what it last said of itself."""
    with open_client(context) as hub:
        meter = hub.get(path_of("meters", meter_id, "status"))
    head = " · ".join((meter["meter_id"], meter["kind"], meter["state"], f"key epoch {meter['key_epoch']}"))
    console().print(Text(clean(head), style="bold"))
    show_list(status_lines(meter))


def alarms(
    context: typer.Context, count: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most.")] = 50
) -> None:
    """What an operator must look into, newest first."""
    with open_client(context) as hub:
        found = hub.get("/alarms", {"limit": count})["alarms"]
    show(
        ("id", "kind", "meter", "detail", "raised"),
        (
            (alarm["alarm_id"], alarm["kind"], alarm["meter_id"], _details(alarm["detail"]), alarm["raised_at"])
            for alarm in found
        ),
    )


def fleet_lines(found: Sequence[Json], at: datetime, width: int) -> list[Text]:
    """A line for each meter below a head. Problems that do not fit behind it follow on lines of their own, unbroken."""
    rows = [_cells(meter, at) for meter in found]
    widths = _widths(rows, width)
    head = _line({name: Text(name) for name in _HEAD}, widths)
    if len(head) + len(_GAP) + len("problems") <= width:
        head.append(f"{_GAP}problems")
    head.stylize("bold")
    lines = [head]
    for meter, cells in zip(found, rows, strict=True):
        lines.append(_line(cells, widths))
        names = [clean(name) for name in meter["problems"]]
        if names and len(lines[-1]) + len(_GAP) + len(" ".join(names)) <= width:
            lines[-1].append(_GAP + " ".join(names), style="yellow")
        elif names:
            indent = " " * PROBLEMS_INDENT
            wrapped = textwrap.wrap(" ".join(names), max(1, width - PROBLEMS_INDENT), break_long_words=False)
            lines += [Text(indent + part, style="yellow") for part in wrapped]
    for line in lines:
        line.rstrip()
    return lines


def _widths(rows: Sequence[Mapping[str, Text]], width: int) -> dict[str, int]:
    """The columns to show and how wide each is, so that a line fits if it can."""
    widths = {name: max(len(name), *(len(row[name]) for row in rows), 0) for name in _HEAD}

    def excess(of: Mapping[str, int]) -> int:
        return sum(of.values()) + len(_GAP) * (len(of) - 1) - width

    firmware = widths["firmware"]
    widths["firmware"] = min(firmware, FIRMWARE_WIDTH_MIN)
    silent = [name for name in _HEAD if rows and not any(row[name].plain for row in rows)]
    for name in dict.fromkeys((*silent, *LEFT_OUT)):
        if excess(widths) > 0:
            del widths[name]
    if "firmware" in widths:
        widths["firmware"] = min(firmware, widths["firmware"] + max(0, -excess(widths)))
    widths["meter"] = max(min(widths["meter"], METER_WIDTH_MIN), widths["meter"] - max(0, excess(widths)))
    return widths


def _cells(meter: Json, at: datetime) -> dict[str, Text]:
    presence, seen_at = meter["presence"], meter["last_seen_at"]
    seen = presence if seen_at is None else f"{presence} {age(at, seen_at)}"
    return {
        "meter": Text(clean(meter["meter_id"])),
        "state": Text(meter["state"], style=STATE_STYLES.get(meter["state"], "")),
        "seen": Text(seen, style=PRESENCE_STYLES.get(presence, "")),
        "epoch": Text(str(meter["key_epoch"])),
        "sequence": Text(str(meter["highest_sequence"] or 0)),
        "missing": Text(_some(meter["missing_seals"]), style="yellow"),
        "held": Text(_some(meter["held_messages"]), style="yellow"),
        "backlog": Text(_some(meter["backlog_seals"])),
        "skew": Text(skew(meter["clock_skew_s"])),
        "firmware": Text(clean(meter["firmware"] or "")),
    }


def _line(cells: Mapping[str, Text], widths: Mapping[str, int]) -> Text:
    line = Text()
    for name, width in widths.items():
        if line:
            line.append(_GAP)
        cell = cells[name].copy()
        cell.truncate(width, overflow="ellipsis")
        cell.align("right" if name in _FIGURES else "left", width)
        line.append_text(cell)
    return line


def summary_line(shown: int, summary: Json) -> str:
    """The whole fleet in a line, whatever is shown of it."""
    presences, states = summary["presences"], summary["states"]
    parts = [f"{shown} of {sum(states.values())} meters"]
    parts += [f"{presences[name]} {name}" for name in ("online", "offline")]
    parts += [f"{presences['never']} never seen"] if presences["never"] else []
    parts += [f"{states['retired']} retired"] if states.get("retired") else []
    for name, words in (("meters_behind", "behind"), ("meters_with_problems", "with problems")):
        parts += [f"{summary[name]} {words}"] if summary[name] else []
    return f"{parts[0]}; of all, {', '.join(parts[1:])}"


def status_lines(meter: Json) -> list[tuple[str, str]]:
    """What is known of a meter, as (name, words); what is not known is left out."""
    meter_id, stated = meter["meter_id"], meter["stated"] or {}
    at = datetime.fromisoformat(meter["at"])

    def when(name: str, moment: str | None) -> list[tuple[str, str]]:
        return [] if moment is None else [(name, f"{age(at, moment)} ago, {moment}")]

    lines = [("presence", meter["presence"] + (", as it said" if stated.get("state") == "offline" else ""))]
    if stated.get("state") == "offline":
        lines += when("gone since", stated["since"])
    lines += when("last status", meter["status_at"]) + when("last seal", meter["last_seal_at"])
    lines += when("last reading", meter["last_reading_at"])
    lines.append(("sequence", f"{meter['highest_sequence'] or 0} stored" + _said(stated, "sequence", ", {} sealed")))
    if meter["missing_seals"]:
        seals = "1 seal" if meter["missing_seals"] == 1 else f"{meter['missing_seals']} seals"
        lines.append(("missing", f"{seals}: commonwatt admin gaps {meter_id}"))
    if meter["held_messages"]:
        lines.append(("held", f"{meter['held_messages']}: commonwatt admin quarantine --meter {meter_id}"))
    if meter["backlog_seals"] is not None:
        unsealed = _said(stated, "unsealed_readings", ", {} readings not sealed yet")
        lines.append(("backlog", f"{meter['backlog_seals']} seals to deliver{unsealed}"))
    if meter["clock"] is not None or meter["clock_skew_s"] is not None:
        lines.append(("clock", ", ".join(filter(None, (meter["clock"], skew_words(meter["clock_skew_s"]))))))
    if meter["firmware"] is not None:
        lines.append(("firmware", meter["firmware"] + (f", over {meter['transport']}" if meter["transport"] else "")))
    if stated.get("journal_bytes") is not None:
        lines.append(("journal", f"{stated['journal_bytes']} bytes" + _said(stated, "journal_bytes_max", " of {}")))
    for device in stated.get("meters") or []:
        quantum = f", steps of {device['quantum_wh']} Wh" if device.get("quantum_wh") else ""
        lines.append((f"{device['role']} meter", f"{device['map']}{quantum}"))
    if not meter["minting_allowed"]:
        why = "" if meter["phases_netted"] else ": it does not net the phases"
        lines.append(("minting", f"not allowed{why}"))
    elif not meter["phases_netted"]:
        lines.append(("minting", "allowed although it does not net the phases"))
    lines.append(("problems", " ".join(meter["problems"]) or "none named"))
    if stated.get("counts"):
        lines.append(("counts", _details(stated["counts"])))
    return lines


def age(now: datetime, moment: str) -> str:
    """How long ago a moment was, in its largest unit."""
    return _span(max(0, int((now - datetime.fromisoformat(moment)).total_seconds())))


def skew(skew_s: int | None) -> str:
    """A difference of clocks with its sign, in the largest unit that says it."""
    if not skew_s:
        return "" if skew_s is None else "0 s"
    return f"{'+' if skew_s > 0 else '−'}{_span(abs(skew_s))}"


def skew_words(skew_s: int | None) -> str:
    """The same, in words."""
    if not skew_s:
        return "" if skew_s is None else "equal to the hub's"
    return f"{_span(abs(skew_s))} {'behind' if skew_s > 0 else 'ahead of'} the hub's"


def _span(span_s: int) -> str:
    for unit, unit_s in _UNITS_S:
        if span_s >= 2 * unit_s or unit_s == 1:
            return f"{span_s // unit_s} {unit}"
    raise AssertionError("the last unit is a second")


def _some(number: int | None) -> str:
    return str(number) if number else ""


def _said(stated: Json, name: str, words: str) -> str:
    return "" if stated.get(name) is None else words.format(stated[name])


def _details(detail: Json) -> str:
    return ", ".join(
        f"{name} {value if isinstance(value, str) else json.dumps(value)}" for name, value in detail.items()
    )
