"""From one relocatable object for BPF to a shared object of sBPF version 0, the form in which chains load programs.

LLVM's own linker does not know this machine. What is left to do for it is little, because the compiler is given one
translation unit: lay out code and constants, write addresses into them, and list the system calls by name. The output
depends on the object alone, so that the same source gives the same bytes everywhere.

    header · program headers · .text · .rodata · .dynsym · .dynstr · .rel.dyn · .dynamic · .shstrtab · section headers
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from programs import elf
from programs.link_errors import (
    EntryPointMissing,
    NotAnObject,
    UndefinedSymbol,
    UnknownRelocation,
    WritableData,
)

ENTRY_POINT = "entrypoint"
READ_ONLY_ADDRESS = 0x1_0000_0000
"""Where the runtime maps the file's code and constants."""

SYSTEM_CALLS = frozenset(
    {
        "sol_get_clock_sysvar",
        "sol_get_rent_sysvar",
        "sol_invoke_signed_c",
        "sol_log_data",
        "sol_memcpy_",
        "sol_try_find_program_address",
    }
)
"""What programs may call. A misspelt name would otherwise be found out by the chain, at deployment."""

PROGRAM_HEADERS = 3
INSTRUCTION_BYTES = 8
ALIGNMENT = 8
RESOLVED_BY_NAME = -1
"""What a call of the runtime has as its target until the loader looks up the name."""


@dataclass
class Image:
    """The file as it grows, where the object's sections went, and the calls that the loader must resolve."""

    data: bytearray = field(
        default_factory=lambda: bytearray(elf.FILE_HEADER.size + PROGRAM_HEADERS * elf.PROGRAM_HEADER.size)
    )
    base: dict[int, int] = field(default_factory=dict)
    calls: list[tuple[int, str]] = field(default_factory=list)

    def append(self, data: bytes | bytearray, alignment: int = ALIGNMENT) -> int:
        """Put bytes at the end; return where."""
        self.data += bytes(-len(self.data) % alignment)
        at = len(self.data)
        self.data += data
        return at

    def address(self, symbol: elf.Symbol) -> int:
        """Where the symbol is in the file. Raises UndefinedSymbol."""
        if symbol.section not in self.base:
            raise UndefinedSymbol(symbol.name or f"section {symbol.section}")
        return self.base[symbol.section] + symbol.value


@dataclass(frozen=True)
class Written:
    """A section of the output; `link` and `entry_bytes` as the section header wants them."""

    name: str
    type: int
    flags: int
    at: int
    size: int
    link: int = 0
    entry_bytes: int = 0


def link(relocatable: bytes) -> bytes:
    """The shared object that a chain loads. Raises LinkError, one of programs/link_errors.py."""
    try:
        return _link(relocatable)
    except (struct.error, IndexError, ValueError) as error:
        raise NotAnObject(f"it is damaged: {error}") from error


def _link(relocatable: bytes) -> bytes:
    sections = elf.read_sections(relocatable)
    symbols = elf.read_symbols(sections)
    _refuse_writable(sections)
    image = Image()
    code = [index for index, section in enumerate(sections) if section.is_code]
    constants = [index for index, section in enumerate(sections) if section.is_constants]
    written = []
    for name, flags, members in (
        (".text", elf.ALLOCATED | elf.EXECUTABLE, code),
        (".rodata", elf.ALLOCATED, constants),
    ):
        if members:
            begin = image.append(b"")
            for index in members:
                image.base[index] = image.append(sections[index].data, max(sections[index].alignment, 1))
            written.append(Written(name, elf.PROGBITS, flags, begin, len(image.data) - begin))
    for section in sections:
        _relocate(image, section, symbols)
    entry = next((each for each in symbols if each.name == ENTRY_POINT and each.section in code), None)
    if entry is None:
        raise EntryPointMissing(ENTRY_POINT)
    _finish(image, written, image.address(entry))
    return bytes(image.data)


def _refuse_writable(sections: list[elf.Section]) -> None:
    for section in sections:
        if section.flags & elf.ALLOCATED and section.flags & elf.WRITABLE and section.size:
            raise WritableData(f"{section.name}, {section.size} bytes")


# -- addresses


def _relocate(image: Image, section: elf.Section, symbols: list[elf.Symbol]) -> None:
    """Apply one section of relocations, if it is one and what it speaks of is part of the program."""
    if section.type not in (elf.REL, elf.RELA) or section.info not in image.base:
        return
    if section.type == elf.RELA:
        raise UnknownRelocation(f"{section.name} has addends of its own")
    for offset, info in elf.RELOCATION.iter_unpack(section.data):
        at, kind, symbol = image.base[section.info] + offset, info & 0xFFFF_FFFF, symbols[info >> 32]
        if kind == elf.R_BPF_64_32:
            _relocate_call(image, at, symbol)
        elif kind == elf.R_BPF_64_64:
            low, high = at + 4, at + 4 + INSTRUCTION_BYTES
            addend = image.data[low : low + 4] + image.data[high : high + 4]
            value = elf.LONG_WORD.pack(READ_ONLY_ADDRESS + image.address(symbol) + elf.LONG_WORD.unpack(addend)[0])
            image.data[low : low + 4], image.data[high : high + 4] = value[:4], value[4:]
        elif kind == elf.R_BPF_64_ABS64:
            (addend_bytes,) = elf.LONG_WORD.unpack_from(image.data, at)
            elf.LONG_WORD.pack_into(image.data, at, READ_ONLY_ADDRESS + image.address(symbol) + addend_bytes)
        else:
            raise UnknownRelocation(f"type {kind} for {symbol.name} in {section.name}")


def _relocate_call(image: Image, at: int, symbol: elf.Symbol) -> None:
    if symbol.section == elf.UNDEFINED:
        if symbol.name not in SYSTEM_CALLS:
            raise UndefinedSymbol(symbol.name)
        elf.WORD.pack_into(image.data, at + 4, RESOLVED_BY_NAME)
        image.calls.append((at, symbol.name))
        return
    # The compiler leaves the distance from the symbol, in instructions and less one, as it does for the call itself.
    (distance,) = elf.WORD.unpack_from(image.data, at + 4)
    target = image.address(symbol) + (distance + 1) * INSTRUCTION_BYTES
    elf.WORD.pack_into(image.data, at + 4, (target - at) // INSTRUCTION_BYTES - 1)


# -- writing the program


def _finish(image: Image, written: list[Written], entry: int) -> None:
    """Append what the loader needs to resolve the system calls, and the headers."""
    code, read_only_at = written[0], len(image.data) if len(written) == 1 else written[1].at
    names = sorted({name for _at, name in image.calls})
    symbols, strings = bytearray(elf.SYMBOL.size), bytearray(b"\0")
    for name in names:
        symbols += elf.SYMBOL.pack(len(strings), elf.GLOBAL_SYMBOL, 0, elf.UNDEFINED, 0, 0)
        strings += name.encode() + b"\0"
    relocations = b"".join(
        elf.RELOCATION.pack(at, (names.index(name) + 1) << 32 | elf.R_BPF_64_32) for at, name in sorted(image.calls)
    )
    at_symbols, at_strings, at_relocations = image.append(symbols), image.append(strings), image.append(relocations)
    entries = [
        (elf.DT_SYMTAB, at_symbols), (elf.DT_SYMENT, elf.SYMBOL.size),
        (elf.DT_STRTAB, at_strings), (elf.DT_STRSZ, len(strings)), (0, 0),
    ]  # fmt: skip
    if relocations:  # the loader refuses an empty table
        table = ((elf.DT_REL, at_relocations), (elf.DT_RELSZ, len(relocations)), (elf.DT_RELENT, elf.RELOCATION.size))
        entries = [*table, *entries]
    dynamic = b"".join(elf.DYNAMIC_ENTRY.pack(*each) for each in entries)
    at_dynamic = image.append(dynamic)
    read_only_end = len(image.data)

    symbols_index = len(written) + 1
    strings_index = symbols_index + 1
    flags = elf.ALLOCATED | elf.WRITABLE
    relocation_bytes, entry_bytes = elf.RELOCATION.size, elf.DYNAMIC_ENTRY.size
    written += [
        Written(".dynsym", elf.DYNSYM, elf.ALLOCATED, at_symbols, len(symbols), strings_index, elf.SYMBOL.size),
        Written(".dynstr", elf.STRTAB, elf.ALLOCATED, at_strings, len(strings)),
        Written(".rel.dyn", elf.REL, elf.ALLOCATED, at_relocations, len(relocations), symbols_index, relocation_bytes),
        Written(".dynamic", elf.DYNAMIC, flags, at_dynamic, len(dynamic), strings_index, entry_bytes),
    ]
    at_headers = _write_section_headers(image, written)
    count = len(written) + 2
    elf.FILE_HEADER.pack_into(
        image.data, 0, elf.IDENTITY, elf.TYPE_SHARED, elf.MACHINE_BPF, 1, entry, elf.FILE_HEADER.size, at_headers, 0,
        elf.FILE_HEADER.size, elf.PROGRAM_HEADER.size, PROGRAM_HEADERS, elf.SECTION_HEADER.size, count, count - 1,
    )  # fmt: skip
    segments = (
        (elf.LOADED, elf.SEGMENT_READABLE | elf.SEGMENT_EXECUTABLE, code.at, code.size),
        (elf.LOADED, elf.SEGMENT_READABLE, read_only_at, read_only_end - read_only_at),
        (elf.DYNAMIC_SEGMENT, elf.SEGMENT_READABLE | elf.SEGMENT_WRITABLE, at_dynamic, len(dynamic)),
    )
    for index, (kind, flags, at, size) in enumerate(segments):
        place = elf.FILE_HEADER.size + index * elf.PROGRAM_HEADER.size
        elf.PROGRAM_HEADER.pack_into(image.data, place, kind, flags, at, at, at, size, size, ALIGNMENT)


def _write_section_headers(image: Image, written: list[Written]) -> int:
    """Append the sections' names and headers: an empty one, those written, the names themselves. Return where."""
    names, headers = bytearray(b"\0"), bytearray(elf.SECTION_HEADER.size)
    for each in written:
        headers += elf.SECTION_HEADER.pack(
            len(names), each.type, each.flags, each.at, each.at, each.size, each.link, 0,
            1 if each.type == elf.STRTAB else ALIGNMENT, each.entry_bytes,
        )  # fmt: skip
        names += each.name.encode() + b"\0"
    own_name = len(names)
    names += b".shstrtab\0"
    at = image.append(names, 1)
    headers += elf.SECTION_HEADER.pack(own_name, elf.STRTAB, 0, 0, at, len(names), 0, 0, 1, 0)
    return image.append(headers)
