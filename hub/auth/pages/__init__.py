"""The two pages that links in mails open: one file each, which may run its own script, ask this hub, and nothing else.

Script and style stand in the page and are named by their hashes in its Content-Security-Policy, so that nothing else
runs in it, whatever somebody puts into the page on its way.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final

from fastapi.responses import HTMLResponse

_FOLDER: Final = Path(__file__).parent


class Page:
    """A page as it is served."""

    def __init__(self, name: str) -> None:
        style, script = ((_FOLDER / file).read_text(encoding="utf-8") for file in ("account.css", "account.js"))
        page = (_FOLDER / name).read_text(encoding="utf-8")
        self.html = page.replace("<style></style>", f"<style>{style}</style>").replace(
            "<script></script>", f"<script>{script}</script>"
        )
        self.policy = "; ".join(
            [
                "default-src 'none'",
                f"script-src '{_hash_source(script)}'",
                f"style-src '{_hash_source(style)}'",
                "connect-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            ]
        )

    def response(self) -> HTMLResponse:
        """An answer with this page."""
        headers = {"Content-Security-Policy": self.policy, "Referrer-Policy": "no-referrer"}
        return HTMLResponse(self.html, headers=headers)


def _hash_source(content: str) -> str:
    """How a Content-Security-Policy names a script or style by what it is."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


VERIFY: Final = Page("verify.html")
RESET: Final = Page("reset.html")
