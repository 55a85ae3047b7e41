"""The verifier as one file that can be carried anywhere: Python runs it, with PyNaCl as its only library.

An archive of the very sources that `commonwatt verify` runs, so that there is one verifier and not two. The same
sources give the same bytes: whoever gets such a file can compare it with one made from the repository.
"""

from __future__ import annotations

import importlib.resources
import io
import zipfile

PACKAGES = {"commonwatt": ("__init__.py", "verify"), "protocol": ("",)}
"""By package, how the names of the files begin that go in."""
START = "from commonwatt.verify import app\n\napp(prog_name='verify')\n"
SHEBANG = b"#!/usr/bin/env python3\n"
_ALWAYS_THE_SAME = (2020, 1, 1, 0, 0, 0)
_READABLE = 0o644 << 16


def single_file() -> bytes:
    """The archive: `python FILE EXPORT` is `commonwatt verify EXPORT`."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, source in _sources():
            entry = zipfile.ZipInfo(name, _ALWAYS_THE_SAME)
            entry.external_attr = _READABLE
            archive.writestr(entry, source, zipfile.ZIP_DEFLATED)
    return SHEBANG + content.getvalue()


def _sources() -> list[tuple[str, bytes]]:
    found = [
        (f"{package}/{file.name}", file.read_bytes())
        for package, beginnings in PACKAGES.items()
        for file in importlib.resources.files(package).iterdir()
        if file.name.endswith(".py") and file.name.startswith(beginnings)
    ]
    return [("__main__.py", START.encode()), *sorted(found)]
