"""The audit log: who did what to which thing, in the transaction that did it. Append-only, and chained."""

from hub.audit.store import append_audit

__all__ = ["append_audit"]
