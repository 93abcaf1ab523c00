"""Structured logs: one JSON object a line, nothing in it that came from a caller's data."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from typing import Any


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON.

    ``extra={"facts": {...}}`` adds members. Of an exception the type and the places in the code are
    written, not the message: it may quote what a caller sent.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "event": record.getMessage(),
        }
        line |= getattr(record, "facts", {})
        if record.exc_info and record.exc_info[0] is not None:
            kind, _, trace = record.exc_info
            line["exception"] = kind.__name__
            line["where"] = [f"{f.filename}:{f.lineno}" for f in traceback.extract_tb(trace)]
        return json.dumps(line, default=str)


def log_json_lines(logger: logging.Logger, level: int = logging.INFO) -> None:
    """Sends a logger's records to stderr as JSON lines, and nowhere else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logger.handlers[:] = [handler]
    logger.setLevel(level)
    logger.propagate = False
