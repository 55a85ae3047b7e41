"""Logs: one JSON object a line on stderr, each carrying the ids of the request, batch or job it belongs to.

Correlation ids live in context variables: `bound(request_id=…)` around a piece of work, and every line logged inside
it, by any module, carries them. Never log a secret: nothing here removes one.
"""

from __future__ import annotations

import logging
import re
import sys
import uuid
from contextlib import AbstractContextManager
from typing import TextIO, cast

import structlog

REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")

Logger = structlog.typing.FilteringBoundLogger


def configure_logs(level: str, stream: TextIO | None = None) -> None:
    """Send our lines, from `level` up, and the libraries' warnings to `stream` (stderr) as JSON."""
    stream = stream or sys.stderr
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    threshold = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.WriteLoggerFactory(stream),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
            foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(max(threshold, logging.WARNING))


def get_logger() -> Logger:
    """A logger; it adds the bound ids by itself."""
    return cast(Logger, structlog.get_logger())


def bound(**ids: str) -> AbstractContextManager[None]:
    """Attach these ids to every line logged inside the block, also by the modules it calls."""
    return cast(AbstractContextManager[None], structlog.contextvars.bound_contextvars(**ids))


def bound_request_id() -> str:
    """The id of the request that is being served here; a fresh one outside any."""
    return cast(str, structlog.contextvars.get_contextvars().get("request_id") or new_id())


def new_id() -> str:
    """A fresh correlation id."""
    return uuid.uuid4().hex


def request_id_or_new(offered: str | None) -> str:
    """The caller's own request id if it is harmless in a log and a header, otherwise a fresh one."""
    if offered is not None and REQUEST_ID_PATTERN.fullmatch(offered):
        return offered
    return new_id()
