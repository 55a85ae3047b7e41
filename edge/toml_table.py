"""Reading TOML strictly: every key is taken once and checked, and what is left over is refused.

A mistake is one sentence: the file, the key, the reason, and the nearest valid name. Which keys there are is the
business of who reads.
"""

from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from ipaddress import IPv6Address
from pathlib import Path
from typing import TypeVar

from edge.errors import EdgeError

T = TypeVar("T")
HOST_LENGTH_MAX = 253
_REQUIRED = object()


class Table:
    """One table of a file; `path` is its dotted name. Mistakes raise `error` with the code `settings_…`."""

    def __init__(self, file: Path, path: str, values: Mapping[str, object], error: type[EdgeError]) -> None:
        self._file = file
        self._path = path
        self._values = dict(values)
        self._error = error
        self._known: list[str] = []

    def has(self, name: str) -> bool:
        """Whether the file has this key."""
        self._known.append(name)
        return name in self._values

    def names(self) -> list[str]:
        """The keys that are not taken yet."""
        return list(self._values)

    def wrong(self, name: str, why: str, code: str = "settings_invalid") -> EdgeError:
        """The error to raise about one key."""
        key = f"{self._path}.{name}" if self._path else name
        return self._error(code, f"{self._file}: {key}: {why}")

    def take(self, name: str, parse: Callable[[object], T], default: object = _REQUIRED) -> T:
        """The parsed value. `parse` raises ValueError with the reason."""
        self._known.append(name)
        if name not in self._values:
            if default is _REQUIRED:
                near = get_close_matches(name, [key for key in self._values if key not in self._known], 1)
                hint = f" (is it the {near[0]!r} that is there?)" if near else ""
                raise self.wrong(name, f"missing{hint}", "settings_missing")
            return default  # type: ignore[return-value]  # the caller gives a default of the parsed type
        try:
            return parse(self._values.pop(name))
        except ValueError as error:
            raise self.wrong(name, str(error)) from None

    def table(self, name: str, default: object = _REQUIRED) -> "Table":
        """A table within."""
        values = self.take(name, _mapping, default)
        return Table(self._file, f"{self._path}.{name}" if self._path else name, values, self._error)

    def tables(self, name: str) -> "list[Table]":
        """An array of tables within."""
        path = f"{self._path}.{name}" if self._path else name
        items = enumerate(self.take(name, _mappings))
        return [Table(self._file, f"{path}[{index}]", item, self._error) for index, item in items]

    def finish(self) -> None:
        """Refuse what nobody has taken."""
        for name in self._values:
            near = get_close_matches(name, self._known, 1, cutoff=0.0)
            raise self.wrong(name, f"no such key; the nearest is {near[0]!r}", "settings_unknown_key")


def text_value(value: object) -> str:
    """Text."""
    if not isinstance(value, str):
        raise ValueError(f"must be text, not {value!r}")  # noqa: TRY004  # wrong input, reported like any other
    return value


def integer(low: int, high: int) -> Callable[[object], int]:
    """A whole number within bounds."""

    def parse(value: object) -> int:
        if type(value) is not int or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}, not {value!r}")
        return value

    return parse


def one_of(choices: Collection[str]) -> Callable[[object], str]:
    """One of some names."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            near = get_close_matches(str(value), choices, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"must be one of {', '.join(choices)}, not {value!r}{hint}")
        return value

    return parse


def number_named(names: Mapping[int, str]) -> Callable[[object], int]:
    """The number that goes by one of some names."""
    numbers = {name: number for number, name in names.items()}
    parse = one_of(numbers)
    return lambda value: numbers[parse(value)]


def path_beside(file: Path) -> Callable[[object], Path]:
    """A path, relative to the file that names it."""

    def parse(value: object) -> Path:
        text = text_value(value)
        if not text or "\0" in text:
            raise ValueError("must be a path")
        return file.parent / text

    return parse


def host_name(value: object) -> str:
    """A host's name or address."""
    text = text_value(value)
    if not 1 <= len(text) <= HOST_LENGTH_MAX or any(not (c.isascii() and (c.isalnum() or c in ".-:")) for c in text):
        raise ValueError("must be a host name or address, without a port")
    if ":" in text:
        IPv6Address(text)
    return text


def _mapping(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise ValueError("must be a table")  # noqa: TRY004
    return value


def _mappings(value: object) -> list[Mapping[str, object]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("must be an array of tables, each in double brackets")
    return value
