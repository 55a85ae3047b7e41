"""The numbers of docs/program.md, where each is written once."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
_TABLE = (ROOT / "docs" / "program.md").read_text().partition("## Errors")[2].partition("## Events")[0]
NUMBERS: dict[str, int] = {name: int(number) for number, name in re.findall(r"\| (6\d{3}) (\w+) (?=\|)", _TABLE)}
NAMES: dict[int, str] = {number: name for name, number in NUMBERS.items()}
