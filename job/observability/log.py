"""The log: readable lines on a terminal, one JSON object per line everywhere else.

All lines go to stderr, so that stdout carries only a command's output (``finetune summary``, ``schema``); Kubernetes
merges the two. The JSON has Cloud Logging's ``severity``, ``message`` and ``time``, and the facts of the event as
further keys (https://cloud.google.com/logging/docs/structured-logging). An event with its own text, such as a failure,
has it in ``message`` after its name, and the name alone as ``event``. Log records and warnings of other libraries and
uncaught exceptions are logged the same way: every line of a container's log is JSON.

Floats are rounded to six digits. A line of JSON is shorter than `LINE_BYTES`: long texts and lists lose their middle or
their end, with a note of how much was cut.

Logging never raises: a fact of any type is written in a readable form, and a closed or broken stderr loses the line,
not the run.
"""

from __future__ import annotations

import bisect
import contextlib
import datetime as dt
import itertools
import json
import logging
import math
import os
import re
import sys
import threading
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, TextIO, TypeAlias, cast

import structlog
from rich.console import Console
from rich.text import Text
from structlog.dev import Column, ConsoleRenderer, KeyValueColumnFormatter, LogLevelColumnFormatter

from job.observability.lines import INDENT, RepeatLimit, wrapped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

Level: TypeAlias = Literal["debug", "info", "warning", "error", "critical"]

LINE_BYTES = 8000
"""Limit of a line of JSON in bytes, with its newline. Longer ones are split on their way: by containerd at 16 KiB, by
some collectors at 8 KiB, and neither part is JSON."""

_LINE_BREAKS = re.compile("[\x7f-\x9f\u2028\u2029]")  # in some readers; JSON itself escapes only up to U+001F


def configure(*, console: bool, level: Level = "info") -> None:
    """Set up logging for the process. Call once, before importing TensorFlow, which would add its own handler.

    Args:
        console: write readable lines, in colour on a terminal; else JSON.
        level: minimum severity of the job's own lines. That of other libraries is "warning".
    """
    output = _Console() if console else _JsonLines()
    structlog.configure(
        processors=output.processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=output,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_FromLogging(logging.WARNING)], level=logging.WARNING, force=True)
    logging.raiseExceptions = False  # otherwise logging prints tracebacks between the JSON lines
    warnings.showwarning = _from_warnings
    sys.excepthook = _from_exception
    threading.excepthook = _from_thread
    sys.unraisablehook = _from_finalizer


def end() -> None:
    """Drop all later lines except critical ones, so that the line before is the last."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("critical"))


def get() -> FilteringBoundLogger:
    """Return the logger: ``log.get().info("storage.listed", objects=3)``. Facts are keywords; no %-formatting."""
    return cast("FilteringBoundLogger", structlog.get_logger())


def terminal() -> Console | None:
    """Return the terminal that the log is written to, for bars below it; None if it is not interactive."""
    output = structlog.get_config()["logger_factory"]
    interactive = isinstance(output, _Console) and output.terminal.is_interactive
    return output.terminal if interactive else None


def width() -> int | None:
    """Return the width of the terminal that the log is written to, in columns; None if it is not interactive."""
    found = terminal()
    return found.width if found else None


def write_text(lines: Iterable[str]) -> None:
    """Write lines without time and level for a person, with control sequences escaped; nothing if the log is JSON."""
    output = structlog.get_config()["logger_factory"]
    if isinstance(output, _Console):
        for line in lines:
            output.write(_escape(line), indent=0)


def timestamp() -> str:
    """Return the current time in RFC 3339 format, UTC, with microseconds."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def printable(name: str) -> str:
    r"""Return ``name`` as text that UTF-8 can encode: bytes of a file name that are not UTF-8 become ``\udcff``."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def plain(value: object) -> object:
    """Convert any ``value`` to the types of strict JSON.

    NaN and infinities become None, as in all of the job's documents; integers beyond 64 bits, which readers treat
    differently, become hexadecimal text; NumPy scalars and arrays become Python's; other objects become their text.
    """
    try:
        return _plain(value, depth=6)
    except Exception:  # noqa: BLE001  # a foreign class may raise anything
        return _text(value)


def readable(value: object) -> str:
    """Format a fact's value for people: floats with four digits, text quoted only if necessary."""
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.1f}"
    if isinstance(value, str) and value.isprintable() and not set(value) & set(" ='\""):
        return value
    return repr(value)  # which escapes control sequences


def _plain(value: object, depth: int) -> object:
    result: object
    match value:
        case None | bool():
            result = value
        case int():
            result = int(value) if value.bit_length() <= 63 else hex(value)
        case float():
            result = float(value) if math.isfinite(value) else None
        case str():
            result = printable(value)
        case bytes() | bytearray():
            result = value.decode("utf-8", "backslashreplace")
        case _ if depth == 0:  # a list may contain itself
            result = _text(value)
        case Mapping():
            result = {_text(key): _plain(item, depth - 1) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            result = [_plain(item, depth - 1) for item in value]
        case _ if callable(tolist := getattr(value, "tolist", None)):
            result = _plain(tolist(), depth - 1)
        case _:
            result = _text(value)
    return result


def _concise(value: object, limit: int) -> object:
    """Round the floats in a plain ``value``, and shorten it.

    Texts keep ``limit`` characters, of both ends: a traceback ends in the error. Lists and mappings keep their first
    ``limit`` entries. What was cut is noted in its place.
    """
    match value:
        case float():
            return float(f"{value:.6g}" if abs(value) < 1e6 else f"{value:.0f}")
        case str() if (excess := len(value) - limit) > 0:
            return f"{value[: limit - limit // 2]} … {excess:,} characters cut … {value[len(value) - limit // 2 :]}"
        case list():
            entries = [_concise(item, limit) for item in value[:limit]]
            return entries + [f"… {len(value) - limit:,} more"] * (len(value) > limit)
        case dict():
            kept = itertools.islice(value.items(), limit)
            note = {"…": f"{len(value) - limit:,} more"} if len(value) > limit else {}
            return {_concise(key, limit): _concise(item, limit) for key, item in kept} | note
        case _:
            return value


def _fit(facts: dict[str, object], size: Callable[[dict[str, object]], int]) -> dict[str, object]:
    """Make ``facts`` concise, with as little as possible cut, so that their ``size`` is below `LINE_BYTES`."""

    def concise(limit: int) -> dict[str, object]:
        return cast("dict[str, object]", _concise(facts, limit))

    if size(whole := concise(sys.maxsize)) < LINE_BYTES:
        return whole
    # At 0 only the note of what was cut is left, so a limit that fits exists.
    too_long = bisect.bisect_left(range(LINE_BYTES), True, lo=1, key=lambda limit: size(concise(limit)) >= LINE_BYTES)
    return concise(too_long - 1)


def _text(value: object) -> str:
    try:
        return printable(str(value))
    except Exception:  # noqa: BLE001  # so may its __str__
        return object.__repr__(value)


class _JsonLines:
    """Renders and writes one JSON object per line. Both structlog's logger factory and its logger."""

    def __init__(self) -> None:
        self.processors: list[Processor] = [self._render]
        self._stderr = _duplicate_stderr()
        self._lock = threading.RLock()  # a signal handler may log while its thread holds the lock

    def __call__(self, *_: object) -> _JsonLines:
        return self

    def write(self, line: str) -> None:
        """Write ``line`` and its newline in one call, so that nothing is written in between."""
        data = line.encode() + b"\n"
        with self._lock, contextlib.suppress(OSError):
            while data:
                data = data[os.write(self._stderr, data) :]

    debug = info = warning = error = critical = write

    @staticmethod
    def _render(logger: WrappedLogger, method: str, event: EventDict) -> str:
        name, facts = _read_event(logger, method, event, reserved={"severity", "event", "time"})
        # Log viewers show only the message of a collapsed line, so it includes the text of a failure.
        text = facts.pop("message", None)
        message = {"message": name} if text is None else {"message": f"{name}: {text}", "event": name}
        frame = {"severity": method.upper(), "time": timestamp()}
        return _encode(frame | _fit(message | facts, lambda facts: len(_encode(frame | facts).encode()) + 1))


def _encode(document: dict[str, object]) -> str:
    line = json.dumps(document, ensure_ascii=False, allow_nan=False)
    return _LINE_BREAKS.sub(lambda match: f"\\u{ord(match[0]):04x}", line)


class _Console:
    """Renders readable lines and writes them through rich, which keeps its bars below them."""

    def __init__(self) -> None:
        encoding = getattr(sys.stderr, "encoding", "utf-8")
        stream = open(_duplicate_stderr(), "w", encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115  # open until the process ends
        self.terminal = _Terminal(file=stream)
        colours = self.terminal.color_system is not None and not self.terminal.no_color
        styles = ConsoleRenderer.get_default_column_styles(colours)
        levels = ConsoleRenderer.get_default_level_styles(colours)
        reset = styles.reset
        columns = [
            Column("timestamp", KeyValueColumnFormatter(None, styles.timestamp, reset, str)),
            Column("level", _LevelColumn(LogLevelColumnFormatter(levels, reset))),
            Column("event", KeyValueColumnFormatter(None, styles.bright, reset, _escape, width=24)),
            Column("", KeyValueColumnFormatter(styles.kv_key, styles.kv_value, reset, readable)),
        ]
        render = ConsoleRenderer(columns=columns, sort_keys=False)
        self.processors: list[Processor] = [RepeatLimit(), self._prepare, render]

    def __call__(self, *_: object) -> _Console:
        return self

    def write(self, line: str, indent: int = INDENT) -> None:
        """Write ``line`` above the bars; broken between words if it does not fit the terminal."""
        with contextlib.suppress(Exception):  # the terminal may be gone
            text = Text.from_ansi(line)
            if self.terminal.is_interactive:
                text = wrapped(text, self.terminal.width, indent)
            self.terminal.print(text, soft_wrap=True)

    debug = info = warning = error = critical = write

    @staticmethod
    def _prepare(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
        message, facts = _read_event(logger, method, event, reserved={"timestamp", "level", "event"})
        trace = facts.pop("exception", None)
        facts = _fit(facts, lambda facts: len(str(facts)))
        if trace:  # whole: its lines are lines on the terminal
            facts["exception"] = "\n".join(map(_escape, str(trace).splitlines()))
        now = dt.datetime.now().astimezone()
        return {"timestamp": f"{now:%H:%M:%S}", "level": method, "event": message} | facts


class _LevelColumn:
    """The level, except for info, which most lines have."""

    def __init__(self, formatter: LogLevelColumnFormatter) -> None:
        self._formatter = formatter

    def __call__(self, key: str, value: object) -> str:
        return "" if value == "info" else self._formatter(key, value)


class _Terminal(Console):
    """A terminal whose disappearance does not end the process."""

    def on_broken_pipe(self) -> None:
        """Stop writing, where rich would exit."""
        self.quiet = True


def _read_event(
    logger: WrappedLogger, method: str, event: EventDict, *, reserved: set[str]
) -> tuple[str, dict[str, object]]:
    """Return the event's name and its facts as plain values; a fact named like a ``reserved`` key gets ``_`` added."""
    name = _text(event.pop("event", ""))
    with contextlib.suppress(Exception):  # exc_info may not be an exception
        event = structlog.processors.format_exc_info(logger, method, event)
    facts = {f"{key}_" if key in reserved else printable(key): plain(value) for key, value in event.items()}
    return name, facts


def _duplicate_stderr() -> int:
    """Return a duplicate of stderr, which stays usable while the original is redirected to drop TensorFlow's output."""
    try:
        return os.dup(2)
    except OSError:  # closed from the start: lines are lost, but that is no reason to fail
        return os.open(os.devnull, os.O_WRONLY)


def _escape(text: object) -> str:
    r"""Escape control sequences: names in a bucket are untrusted, and may contain ``\x1b``."""
    message = str(text)
    return message if message.isprintable() else repr(message)[1:-1]


class _FromLogging(logging.Handler):
    """Forwards records of other libraries to the job's log."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except Exception:  # noqa: BLE001  # arguments that do not match the message, or cannot be printed
            message = _text(record.msg)
        level = min(record.levelno // 10 * 10, logging.CRITICAL)  # round custom levels down
        get().log(level, message, logger=record.name, exc_info=record.exc_info)


def _from_warnings(  # the signature is warnings.showwarning's
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,  # noqa: ARG001  # warnings go to the log
    line: str | None = None,  # noqa: ARG001  # the file and line number suffice
) -> None:
    get().warning(_text(message), logger="warnings", category=category.__name__, place=f"{filename}:{lineno}")


def _from_exception(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    get().critical("process.failed", exc_info=(kind, error, trace))


def _from_thread(args: threading.ExceptHookArgs) -> None:
    if args.exc_type is not SystemExit:  # how a thread ends itself, not a failure
        name = args.thread.name if args.thread else None
        get().error("thread.failed", thread=name, exc_info=(args.exc_type, args.exc_value, args.exc_traceback))


def _from_finalizer(
    args: sys.UnraisableHookArgs,
    is_finalizing: Callable[[], bool] = sys.is_finalizing,  # a default stays available during interpreter shutdown
) -> None:
    if not is_finalizing():  # during shutdown finalizers fail because modules are cleared
        get().warning(
            "finalizer.failed", where=args.object, exc_info=(args.exc_type, args.exc_value, args.exc_traceback)
        )
