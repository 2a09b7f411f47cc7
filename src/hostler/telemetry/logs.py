"""Lines: what the server says of itself, as JSON for machines or in colours for people.

Our modules and libraries write to `logging`; here each record becomes one line, with the run,
session, tenant, step, worker or request in which it was written.

Invariant: one record is one line, whatever is in it, and every value of it was `masked`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Literal, TextIO, TypeAlias

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from hostler.core.trail import here
from hostler.telemetry.masking import masked

Form: TypeAlias = Literal["auto", "json", "text"]
Level: TypeAlias = Literal["debug", "info", "warning", "error"]
LONGEST_VALUE = 16 * 1024
"""Characters; a traceback of fifty frames has about 6,000."""
QUIET = {"uvicorn": logging.WARNING, "asyncio": logging.WARNING, "pgqueuer": logging.WARNING}
"""Libraries that tell at `info` what is ours to tell, or nothing that an operator can use."""
EXTRA = ("method", "path", "status", "took_ms", "blocked_ms", "frame")
"""What a record may bring beside its message."""


def configure(form: Form, level: Level, *, stream: TextIO | None = None) -> None:
    """Write all that is logged in this process to `stream` (standard error).

    `auto`: text if it is a terminal, else JSON.
    """
    out = sys.stderr if stream is None else stream
    as_text = form == "text" or (form == "auto" and out.isatty())
    handler = _Handler(out)
    handler.setFormatter(formatter(as_text=as_text, colours=as_text and out.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    least = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(least)
    for name, quiet in QUIET.items():
        logging.getLogger(name).setLevel(max(quiet, least))
    logging.captureWarnings(capture=True)


def formatter(*, as_text: bool, colours: bool = False) -> logging.Formatter:
    """Return what makes a line of a record."""
    render = (
        structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0, timestamp_key="at")
        if as_text
        else _json
    )
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.ExtraAdder(EXTRA),
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            _place,
            _plain_text if as_text else _plain,
            render,
        ],
    )


def of_trail() -> Mapping[str, str | int]:
    """Return what a line written here says of where it was written."""
    trail = here.get()
    if trail is None:
        return {}
    told: dict[str, str | int] = {}
    if trail.request is not None:
        told["request_id"] = trail.request
    if trail.run is not None:
        told |= {
            "run": trail.run.run,
            "session": trail.run.session,
            "tenant": trail.run.tenant,
            "step": trail.step,
        }
    if trail.worker is not None:
        told["worker"] = trail.worker
    return told


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """Say that a line could not be made; logging itself would print its arguments bare."""
        try:
            self.stream.write(f"a line of {record.name}:{record.lineno} could not be written\n")
        except (OSError, ValueError):
            return  # nobody reads, and there is nobody else to tell


def _place(logger: WrappedLogger, method: str, said: EventDict) -> EventDict:
    del logger, method
    at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    first = {"at": at, "level": said.pop("level", ""), "event": said.pop("event", "")}
    return {**first, "logger": said.pop("logger", ""), **of_trail(), **said}


def _plain(logger: WrappedLogger, method: str, said: EventDict) -> EventDict:
    del logger, method
    return _told(said, escaped=False)


def _plain_text(logger: WrappedLogger, method: str, said: EventDict) -> EventDict:
    """As `_plain`; what comes from outside can neither begin a line nor colour the terminal."""
    del logger, method
    return _told(said, escaped=True)


def _told(said: MutableMapping[str, object], *, escaped: bool) -> EventDict:
    told: EventDict = {}
    for name, value in said.items():
        if value is None or isinstance(value, bool | int | float):
            told[name] = value
            continue
        text = masked(str(value))
        if len(text) > LONGEST_VALUE:
            text = f"{text[:LONGEST_VALUE]}… (cut, from {len(text):,} characters)"
        keeps_lines = name == "exception"
        told[name] = _printable(text, keeps_lines=keeps_lines) if escaped else text
    return told


def _printable(text: str, *, keeps_lines: bool) -> str:
    kept = "\n" if keeps_lines else ""
    return "".join(
        one if one.isprintable() or one in kept else one.encode("unicode_escape").decode("ascii")
        for one in text
    )


def _json(logger: WrappedLogger, method: str, said: EventDict) -> str:
    del logger, method
    try:
        return msgspec.json.encode(said).decode()
    except UnicodeEncodeError:  # half of a surrogate pair
        clean = {name: str(one).encode("utf-8", "replace").decode() for name, one in said.items()}
        return msgspec.json.encode(clean).decode()
