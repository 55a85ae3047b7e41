"""The program that is committed is the one that its sources make, and the linker refuses what could not run."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.litesvm import LiteSVM
from solders.message import Message
from solders.pubkey import Pubkey
from solders.transaction import Transaction

from programs import build, elf
from programs.link_errors import (
    EntryPointMissing,
    LinkError,
    NotAnObject,
    UndefinedSymbol,
    UnknownRelocation,
    WritableData,
)
from programs.linker import SYSTEM_CALLS, link

DOCUMENTATION = Path(__file__).parents[2] / "docs" / "program.md"
PROGRAM_BYTES_MAX = 48 * 1024
"""Whoever deploys pays rent for twice this for ever: a program that outgrows it is a decision."""

ADDS_UP = """
typedef unsigned long long u64;
static const u64 ten = 10, thirty = 30;
static const u64 *const numbers[] = {&ten, &thirty};
__attribute__((noinline, section(".text.far"))) static u64 number(const unsigned char *input) {
    return *numbers[input[0] & 1];
}
u64 entrypoint(const unsigned char *input) { return number(input) + 4; }
"""
"""Answers 14 if it is given an even number of accounts and 34 if it is odd: a call into another section, a table of
addresses among the constants, and the address of that table in the code."""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiler-caches")


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """The sources, the program and its record, somewhere else."""
    copy = tmp_path / "somewhere" / "else"
    shutil.copytree(build.SOURCE_DIRECTORY, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


Compile = Callable[[str], bytes]


@pytest.fixture
def compile_object(tmp_path: Path, cache: Path) -> Compile:
    """From C to an object, as the program is compiled, but without the linker."""

    def compiled(source: str) -> bytes:
        (tmp_path / "source.c").write_text(source)
        subprocess.run(
            [sys.executable, "-m", "ziglang", "cc", *build.COMPILER_FLAGS, "-c", "source.c", "-o", "made.o"],
            cwd=tmp_path,
            env={"ZIG_GLOBAL_CACHE_DIR": str(cache), "ZIG_LOCAL_CACHE_DIR": str(cache)},
            check=True,
        )
        return (tmp_path / "made.o").read_bytes()

    return compiled


def run(program: bytes, accounts: int) -> int:
    """What the program answers in a transaction, given so many accounts."""
    svm, payer, address = LiteSVM(), Keypair(), Pubkey.new_unique()
    svm.airdrop(payer.pubkey(), 10**9)
    svm.add_program(address, program)
    metas = [AccountMeta(Pubkey.new_unique(), is_signer=False, is_writable=False) for _ in range(accounts)]
    blockhash = svm.latest_blockhash()
    message = Message.new_with_blockhash([Instruction(address, b"", metas)], payer.pubkey(), blockhash)
    result = svm.send_transaction(Transaction([payer], message, blockhash))
    found = re.search(r'"Custom":(\d+)', result.to_json())
    assert found, result
    return int(found[1])


# -- the committed program


def test_the_committed_program_was_built_from_the_committed_sources() -> None:
    assert build.differences(build.SOURCE_DIRECTORY) == []


def test_the_check_compiles_nothing_and_ends_well() -> None:
    assert build.main(["--check"]) == 0


def test_the_same_sources_give_the_same_bytes_from_another_directory_and_without_a_cache(
    copied: Path, tmp_path: Path
) -> None:
    committed = (build.SOURCE_DIRECTORY / build.PROGRAM).read_bytes()
    assert build.compiler_version() == build.read_record(build.SOURCE_DIRECTORY).compiler
    assert build.compile_program(copied, tmp_path / "new-cache") == committed


def test_the_record_is_that_of_a_build_made_anew(copied: Path, cache: Path) -> None:
    (copied / build.PROGRAM).unlink()
    (copied / build.RECORD).unlink()
    assert build.differences(copied) != []
    assert build.write_build(copied, cache) == build.read_record(build.SOURCE_DIRECTORY)
    assert build.differences(copied) == []


@pytest.mark.parametrize("name", ["minting.c", "errors.h", build.PROGRAM])
def test_a_change_after_the_build_is_named(copied: Path, name: str) -> None:
    (copied / name).write_bytes((copied / name).read_bytes() + b"\n")
    (difference,) = build.differences(copied)
    assert difference.startswith(name)


def test_a_source_that_came_or_went_is_named(copied: Path) -> None:
    (copied / "trading.c").write_text("")
    (copied / "events.c").unlink()
    assert build.differences(copied) == ["events.c has changed", "trading.c has changed"]


def test_a_program_without_its_record_is_named(copied: Path) -> None:
    (copied / build.RECORD).unlink()
    assert build.differences(copied) == ["energy.json is missing"]


def test_source_that_does_not_compile_is_told_in_the_compilers_words(copied: Path, cache: Path) -> None:
    (copied / "events.c").write_text("static int nothing(void) { return 0; }")
    with pytest.raises(build.CompilationFailed, match="emit"):
        build.compile_program(copied, cache)


def test_nothing_in_the_program_can_be_written_to_and_it_is_small() -> None:
    program = (build.SOURCE_DIRECTORY / build.PROGRAM).read_bytes()
    assert len(program) <= PROGRAM_BYTES_MAX
    names = {section.name: section.flags for section in sections_of(program)}
    assert {name for name, flags in names.items() if flags & elf.WRITABLE} == {".dynamic"}
    assert {name for name, flags in names.items() if flags & elf.EXECUTABLE} == {".text"}


def test_the_program_calls_nothing_but_the_system_calls_it_may() -> None:
    program = (build.SOURCE_DIRECTORY / build.PROGRAM).read_bytes()
    (names,) = (section.data for section in sections_of(program) if section.name == ".dynstr")
    assert set(names.decode().strip("\0").split("\0")) == SYSTEM_CALLS


def sections_of(program: bytes) -> list[elf.Section]:
    """The sections of a shared object, read as those of an object are."""
    relocatable = bytearray(program)
    struct.pack_into("<H", relocatable, 16, elf.TYPE_RELOCATABLE)
    return elf.read_sections(bytes(relocatable))


# -- what two files say of one thing


def test_the_errors_are_those_of_the_page() -> None:
    listed = re.findall(r"ERROR\((\d+), (\w+)\)", (build.SOURCE_DIRECTORY / "errors.h").read_text())
    documented = re.findall(r"\b(60\d\d) ([a-z_]+) \|", DOCUMENTATION.read_text())
    assert listed == documented
    assert [int(number) for number, _ in listed] == list(range(6000, 6000 + len(listed)))


def test_the_instructions_have_the_numbers_of_the_page() -> None:
    listed = re.findall(r"INSTRUCTION\((\d+), (\w+),", (build.SOURCE_DIRECTORY / "entrypoint.c").read_text())
    assert listed == re.findall(r"^\| (\d+) \| (\w+) \|", DOCUMENTATION.read_text(), re.MULTILINE)


def test_every_address_in_the_source_is_the_one_that_it_is_called() -> None:
    text = (build.SOURCE_DIRECTORY / "addresses.h").read_text()
    stated = re.findall(r"/\* (\w{32,}) \*/\nstatic const struct key \w+ =\s*\{\s*\{(.*?)\}\};", text, re.DOTALL)
    assert len(stated) == text.count("static const struct key")
    for address, words in stated:
        numbers = [int(word.strip().removesuffix("ULL"), 0) for word in words.split(",")]
        assert struct.pack("<4Q", *numbers) == bytes(Pubkey.from_string(address))


# -- the linker


def test_a_program_in_several_sections_with_addresses_among_its_constants_runs(compile_object: Compile) -> None:
    program = link(compile_object(ADDS_UP))
    assert [run(program, accounts) for accounts in (0, 1, 2)] == [14, 34, 14]


def test_a_program_without_constants_or_system_calls_runs(compile_object: Compile) -> None:
    assert run(link(compile_object("int entrypoint(void) { return 7; }")), 0) == 7


@pytest.mark.parametrize("declaration", ["int counter = 5;", "int counter;", "static int counter;"])
def test_a_variable_that_would_be_shared_by_all_calls_is_refused(compile_object: Compile, declaration: str) -> None:
    source = declaration + "int entrypoint(void) { return counter++; }"
    with pytest.raises(WritableData, match=r"\.(data|bss)"):
        link(compile_object(source))


@pytest.mark.parametrize("name", ["memcpy", "sol_get_clock_sysva"])
def test_a_call_that_leads_nowhere_is_refused_by_name(compile_object: Compile, name: str) -> None:
    source = f"extern int {name}(const void *); int entrypoint(void *input) {{ return {name}(input); }}"
    with pytest.raises(UndefinedSymbol, match=name):
        link(compile_object(source))


def test_a_constant_that_is_not_there_is_refused_by_name(compile_object: Compile) -> None:
    with pytest.raises(UndefinedSymbol, match="price"):
        link(compile_object("extern const int price; int entrypoint(void) { return price; }"))


def test_an_object_without_an_entry_point_is_refused(compile_object: Compile) -> None:
    with pytest.raises(EntryPointMissing):
        link(compile_object("int begin(void) { return 0; }"))


def test_a_relocation_of_another_kind_is_refused(compile_object: Compile) -> None:
    made = bytearray(compile_object(ADDS_UP))
    (table,) = (section.data for section in elf.read_sections(bytes(made)) if section.name == ".rel.text.far")
    offset, info = elf.RELOCATION.unpack_from(table)
    elf.RELOCATION.pack_into(made, made.index(table), offset, info & ~0xFFFF_FFFF | 3)
    with pytest.raises(UnknownRelocation, match="type 3"):
        link(bytes(made))


@given(st.binary(max_size=200))
def test_bytes_that_are_no_object_are_refused(junk: bytes) -> None:
    with pytest.raises(NotAnObject):
        link(junk)


def test_an_object_of_another_machine_is_refused(compile_object: Compile) -> None:
    made = bytearray(compile_object(ADDS_UP))
    struct.pack_into("<H", made, 18, 62)
    with pytest.raises(NotAnObject):
        link(bytes(made))


def test_an_object_cut_off_anywhere_is_refused(compile_object: Compile) -> None:
    made = compile_object(ADDS_UP)
    for length in range(0, len(made), 7):
        with pytest.raises(LinkError):
            link(made[:length])
