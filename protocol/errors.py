"""The one error of this package."""


class ProtocolError(ValueError):
    """Bytes or values that are not protocol v1. `code` is stable and safe to store; `detail` is for people."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(code + ": " + detail if detail else code)
        self.code = code
        self.detail = detail
