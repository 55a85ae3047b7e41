"""As much of the ELF format as an object of the compiler and a program of the chain need; and how an object is read."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from programs.link_errors import NotAnObject

MACHINE_BPF = 247

FILE_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
PROGRAM_HEADER = struct.Struct("<IIQQQQQQ")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
RELOCATION = struct.Struct("<QQ")
DYNAMIC_ENTRY = struct.Struct("<QQ")
WORD, LONG_WORD = struct.Struct("<i"), struct.Struct("<Q")

IDENTITY = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
"""64 bits, little-endian, ELF version 1."""
TYPE_RELOCATABLE, TYPE_SHARED = 1, 3
PROGBITS, SYMTAB, STRTAB, RELA, DYNAMIC, NOBITS, REL, DYNSYM = 1, 2, 3, 4, 6, 8, 9, 11
WRITABLE, ALLOCATED, EXECUTABLE = 1, 2, 4
LOADED, DYNAMIC_SEGMENT = 1, 2
SEGMENT_EXECUTABLE, SEGMENT_WRITABLE, SEGMENT_READABLE = 1, 2, 4
UNDEFINED = 0
GLOBAL_SYMBOL = 0x10

R_BPF_64_64, R_BPF_64_ABS64, R_BPF_64_32 = 1, 2, 10
"""An address in a two-word instruction; an address among the constants; the target of a call."""

DT_STRTAB, DT_SYMTAB, DT_STRSZ, DT_SYMENT, DT_REL, DT_RELSZ, DT_RELENT = 5, 6, 10, 11, 17, 18, 19


@dataclass(frozen=True)
class Section:
    """One section of the object."""

    name: str
    type: int
    flags: int
    data: bytes
    size: int
    link: int
    info: int
    alignment: int

    @property
    def is_code(self) -> bool:
        """Whether it holds instructions."""
        return bool(self.flags & EXECUTABLE) and self.size > 0

    @property
    def is_constants(self) -> bool:
        """Whether the program may read it and nobody may write to it."""
        return self.flags & (ALLOCATED | EXECUTABLE | WRITABLE) == ALLOCATED and self.size > 0


@dataclass(frozen=True)
class Symbol:
    """A name in the object, and where it is: a section and an offset in it."""

    name: str
    section: int
    value: int


def read_sections(relocatable: bytes) -> list[Section]:
    """All sections of the object, by index. Raises NotAnObject; bytes that end too early raise struct.error."""
    head = FILE_HEADER.unpack_from(relocatable)
    if head[:3] != (IDENTITY, TYPE_RELOCATABLE, MACHINE_BPF):
        raise NotAnObject("no relocatable 64-bit object for BPF")
    table_at, (entry_bytes, count, names_index) = head[6], head[11:14]
    headers = [SECTION_HEADER.unpack_from(relocatable, table_at + entry_bytes * index) for index in range(count)]
    names_at = headers[names_index][4]
    sections = []
    for name, kind, flags, _address, at, size, linked, info, alignment, _entry in headers:
        data = b"" if kind == NOBITS else relocatable[at : at + size]
        sections.append(Section(_text(relocatable, names_at + name), kind, flags, data, size, linked, info, alignment))
    return sections


def read_symbols(sections: list[Section]) -> list[Symbol]:
    """All symbols of the object, by index. Raises NotAnObject."""
    table = next((section for section in sections if section.type == SYMTAB), None)
    if table is None:
        raise NotAnObject("it has no symbols")
    names = sections[table.link].data
    return [
        Symbol(_text(names, name), section, value)
        for name, _info, _other, section, value, _size in SYMBOL.iter_unpack(table.data)
    ]


def _text(data: bytes, at: int) -> str:
    return data[at : data.index(b"\0", at)].decode()
