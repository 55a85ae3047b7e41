"""How an instruction of a known program is shown: its name, its accounts in their order, what follows in its data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from solders.pubkey import Pubkey

from simulators.solana.parsed_tokens import Parsed


class Reader:
    """The data of an instruction, read from its beginning. Raises ValueError where it is too short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        """So many bytes."""
        taken = self._data[self._at : self._at + length]
        if len(taken) != length:
            raise ValueError("the instruction is too short")
        self._at += length
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)

    def number(self, length: int) -> int:
        """An unsigned integer of so many bytes."""
        return int.from_bytes(self.take(length), "little")

    def key(self) -> str:
        """An address."""
        return str(Pubkey.from_bytes(self.take(32)))

    def optional_key(self) -> str | None:
        """An address after a byte that says whether there is one."""
        return self.key() if self.number(1) else None

    def key_or_none(self) -> str | None:
        """An address, of which all zeros means none."""
        taken = self.take(32)
        return str(Pubkey.from_bytes(taken)) if any(taken) else None

    def text(self, length_bytes: int) -> str:
        """Text after its length."""
        return self.take(self.number(length_bytes)).decode()


Read = Callable[[Reader], Parsed]


@dataclass(frozen=True)
class Shape:
    """How one instruction is shown."""

    name: str
    accounts: tuple[str, ...] = ()
    read: Read = field(default=lambda _: {})
    signer: tuple[str, str] | None = None
    """The account after the others: an owner's or authority's name, and its name if it is a multisig."""
    optional_accounts: tuple[str, ...] = ()

    def parsed(self, keys: Sequence[str], reader: Reader) -> Parsed:
        """`type` and `info`. Raises ValueError if accounts or data are missing."""
        if len(keys) < len(self.accounts) + (self.signer is not None):
            raise ValueError("the instruction lacks accounts")
        info = dict(zip(self.accounts, keys, strict=False))
        after = keys[len(self.accounts) :]
        info.update(zip(self.optional_accounts, after, strict=False))
        info.update(self.read(reader))
        if self.signer is not None:
            info.update(self._signer(after))
        return {"type": self.name, "info": info}

    def _signer(self, after: Sequence[str]) -> Parsed:
        assert self.signer is not None
        alone, multisig = self.signer
        return {multisig: after[0], "signers": list(after[1:])} if len(after) > 1 else {alone: after[0]}


def by_number(number_bytes: int, shapes: Mapping[int, Shape]) -> Callable[[Sequence[str], bytes], Parsed | None]:
    """Show the instructions of a program whose data begin with a number of so many bytes."""

    def parse(keys: Sequence[str], data: bytes) -> Parsed | None:
        reader = Reader(data)
        shape = shapes.get(reader.number(number_bytes))
        return None if shape is None else shape.parsed(keys, reader)

    return parse


def fields(*named: tuple[str, Callable[[Reader], object]]) -> Read:
    """Read these, one after another."""
    return lambda reader: {name: read(reader) for name, read in named}
