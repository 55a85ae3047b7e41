"""Build the energy program and record what it was built from: `python -m programs.build`.

`energy.so` and `energy.json` are committed, so that whoever deploys needs no compiler. `--check` compares hashes and
compiles nothing; a test compiles anew and compares the bytes. The compiler is the `ziglang` wheel, a whole clang.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from programs.linker import link

SOURCE_DIRECTORY = Path(__file__).parent / "energy"
LINKER_FILES = tuple(Path(__file__).parent / name for name in ("elf.py", "linker.py"))
TRANSLATION_UNIT = "entrypoint.c"
"""Includes the other sources."""

PROGRAM, RECORD = "energy.so", "energy.json"
COMPILER_FLAGS = (
    "-target", "bpfel-freestanding-none",
    "-mcpu=v2",  # the instructions of sBPF version 0
    "-Xclang", "-target-feature", "-Xclang", "+allows-misaligned-mem-access",  # as the runtime does; seals lie anywhere
    "-std=c17", "-O2",
    "-fno-builtin",  # or loops become calls of a C library that is not there
    "-fno-stack-protector", "-fno-asynchronous-unwind-tables",
    "-Wall", "-Wextra", "-Werror",
)  # fmt: skip
COMPILE_TIMEOUT_S = 300


class CompilationFailed(Exception):
    """The compiler refused the source; its words are the message."""


@dataclass(frozen=True)
class Record:
    """What energy.json says: everything that the program's bytes depend on, and those bytes' hash."""

    sha256: str
    bytes: int
    compiler: str
    flags: list[str]
    linker_sha256: dict[str, str]
    sources_sha256: dict[str, str]


def sources(directory: Path) -> list[Path]:
    """The C sources and headers, by name."""
    return sorted(path for path in directory.iterdir() if path.suffix in (".c", ".h"))


def compile_program(directory: Path, cache_directory: Path) -> bytes:
    """The program's bytes. Raises CompilationFailed, LinkError. The compiler keeps its caches in `cache_directory`."""
    with tempfile.TemporaryDirectory() as made:
        relocatable = Path(made) / "energy.o"
        caches = {name: str(cache_directory) for name in ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")}
        done = subprocess.run(
            [*_compiler(), "cc", *COMPILER_FLAGS, "-c", TRANSLATION_UNIT, "-o", str(relocatable)],
            cwd=directory,
            env={**os.environ, **caches},
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            raise CompilationFailed(done.stderr)
        return link(relocatable.read_bytes())


def compiler_version() -> str:
    """The name and version of the compiler that is installed."""
    done = subprocess.run([*_compiler(), "version"], capture_output=True, text=True, check=True)
    return f"ziglang {done.stdout.strip()}"


def record_of(directory: Path, program: bytes, compiler: str) -> Record:
    """What to write down beside a program that was made from the sources in `directory`."""
    return Record(
        sha256=hashlib.sha256(program).hexdigest(),
        bytes=len(program),
        compiler=compiler,
        flags=list(COMPILER_FLAGS),
        linker_sha256={path.name: _sha256(path) for path in LINKER_FILES},
        sources_sha256={path.name: _sha256(path) for path in sources(directory)},
    )


def read_record(directory: Path) -> Record:
    """The committed record."""
    return Record(**json.loads((directory / RECORD).read_text()))


def write_build(directory: Path, cache_directory: Path) -> Record:
    """Compile the sources in `directory` and write program and record beside them."""
    program = compile_program(directory, cache_directory)
    record = record_of(directory, program, compiler_version())
    (directory / PROGRAM).write_bytes(program)
    (directory / RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n")
    return record


def differences(directory: Path) -> list[str]:
    """What has changed since the program was built; nothing is compiled."""
    try:
        recorded = read_record(directory)
        program = (directory / PROGRAM).read_bytes()
    except FileNotFoundError as error:
        return [f"{Path(error.filename).name} is missing"]
    found: list[str] = []
    now = record_of(directory, program, recorded.compiler)
    found += _changed(recorded.sources_sha256, now.sources_sha256)
    found += _changed(recorded.linker_sha256, now.linker_sha256)
    if now.flags != recorded.flags:
        found.append("the compiler's flags have changed")
    if (now.sha256, now.bytes) != (recorded.sha256, recorded.bytes):
        found.append(f"{PROGRAM} is not the one that was built")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Build, or with --check only say whether a build is due. Returns the status."""
    parser = argparse.ArgumentParser(prog="python -m programs.build", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="compile nothing; status 1 if a build is due")
    parser.add_argument("--cache", type=Path, help="keep the compiler's caches here, for the next time")
    chosen = parser.parse_args(arguments)
    if chosen.check:
        found = differences(SOURCE_DIRECTORY)
        for difference in found:
            print(f"programs/energy: {difference}: run python -m programs.build", file=sys.stderr)
        return 1 if found else 0
    with tempfile.TemporaryDirectory() as temporary:
        record = write_build(SOURCE_DIRECTORY, chosen.cache.absolute() if chosen.cache else Path(temporary))
    print(f"{PROGRAM}: {record.bytes} bytes, {record.sha256}")
    return 0


def _compiler() -> list[str]:
    return [sys.executable, "-m", "ziglang"]


def _changed(before: dict[str, str], after: dict[str, str]) -> list[str]:
    names = sorted(before.keys() | after.keys())
    return [f"{name} has changed" for name in names if before.get(name) != after.get(name)]


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    raise SystemExit(main())
