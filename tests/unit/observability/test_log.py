"""The log: what stands in it, and that nothing can break it."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.observability import log

ROOT = Path(__file__).parents[3]

ODD = r"""
import logging, pathlib, threading, warnings
import numpy as np
from job.observability import log

class Rude:
    def __str__(self):
        raise RuntimeError("no")
    __repr__ = tolist = __str__

class Leaky:
    def __del__(self):
        raise RuntimeError("left over")

log.configure(console=False)
logger = log.get()
itself = []
itself.append(itself)
logger.debug("not.shown")
logger.info(
    "odd.facts", nan=float("nan"), infinity=-np.float32("inf"), scalar=np.int64(3), array=np.eye(2), big=10**5000,
    path=pathlib.Path("/a b"), data=b"\xff\n", name="caf\xe9-\udce9", breaks="a\nb\r\x85\u2028\u2029", itself=itself,
    rude=Rude(), nested={1: {"x": (float("nan"), None, True)}}, message="mine", severity=7, time=0, quote='"',
)
logger.warning("many\nlines \udcff")
try:
    raise ValueError("bad\nnews")
except ValueError:
    logger.exception("it.failed")
logging.getLogger("google.auth").warning("no %s", "credentials")
logging.getLogger("google.auth").info("not shown")
logging.getLogger("other").error("%d", "no number")
logging.getLogger("other").log(35, "between")
warnings.warn("old\nthing")
thread = threading.Thread(target=lambda: 1 / 0, name="worker")
thread.start()
thread.join()
thread = threading.Thread(target=lambda: exit(1))
thread.start()
thread.join()
Leaky()
logger.info("garbage", exc_info=("no", "exception"), kept=1)
raise SystemError("nobody catches this")
"""


def run(script: str, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run a script in a fresh interpreter, with what it wrote."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False, timeout=60, **pipes)


def strict(line: str | bytes) -> dict[str, object]:
    """Parse JSON as its standard has it: no NaN, no Infinity."""

    def refuse(constant: str) -> NoReturn:
        raise AssertionError(constant)

    parsed = json.loads(line, parse_constant=refuse)
    assert isinstance(parsed, dict)
    return parsed


@pytest.fixture(scope="module")
def odd() -> list[dict[str, object]]:
    """Every line that a process with odd things to say wrote to stderr."""
    finished = run(ODD)
    assert b"" == finished.stdout
    text = finished.stderr.decode()
    assert text.splitlines() == text.removesuffix("\n").split("\n")
    return [strict(line) for line in text.splitlines()]


def test_every_line_has_what_cloud_logging_reads(odd: list[dict[str, object]]) -> None:
    """Each line is strict JSON with severity, message and the time in UTC."""
    expected = ["INFO", "WARNING", "ERROR", "WARNING", "ERROR", "WARNING", "WARNING", "ERROR"]
    expected += ["WARNING", "INFO", "CRITICAL"]
    assert expected == [line["severity"] for line in odd]
    for line in odd:
        assert isinstance(line["message"], str)
        age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(str(line["time"]))
        assert dt.timedelta(0) < age < dt.timedelta(minutes=10)


def test_odd_facts_become_plain_values(odd: list[dict[str, object]]) -> None:
    """Facts of any type are written as JSON's own types, and none replaces severity, message or time."""
    facts = odd[0]
    assert "odd.facts: mine" == facts["message"]
    expected = {
        "nan": None,
        "infinity": None,
        "scalar": 3,
        "array": [[1.0, 0.0], [0.0, 1.0]],
        "big": hex(10**5000),
        "path": "/a b",
        "data": "\\xff\n",
        "name": "café-\\udce9",
        "breaks": "a\nb\r\x85\u2028\u2029",
        "nested": {"1": {"x": [None, None, True]}},
        "event": "odd.facts",
        "severity_": 7,
        "time_": 0,
        "quote": '"',
    }
    assert expected == {key: facts[key] for key in expected}
    assert str(facts["rude"]).startswith("<__main__.Rude object")
    assert "itself" in facts


def test_an_exception_is_one_field(odd: list[dict[str, object]]) -> None:
    """A traceback is text within its event's line."""
    assert "many\nlines \\udcff" == odd[1]["message"]
    assert "it.failed" == odd[2]["message"]
    trace = str(odd[2]["exception"])
    assert trace.startswith("Traceback")
    assert trace.endswith("ValueError: bad\nnews")


def test_other_libraries_take_the_same_way(odd: list[dict[str, object]]) -> None:
    """Lines of the standard logging, from WARNING on, and Python's warnings are lines like any other."""
    assert ("no credentials", "google.auth") == (odd[3]["message"], odd[3]["logger"])
    assert "%d" == odd[4]["message"]
    assert "between" == odd[5]["message"]
    assert ("old\nthing", "UserWarning") == (odd[6]["message"], odd[6]["category"])


def test_uncaught_exceptions_take_the_same_way(odd: list[dict[str, object]]) -> None:
    """What ends a thread or the process is a line like any other, not a bare traceback."""
    assert ("thread.failed", "worker") == (odd[7]["message"], odd[7]["thread"])
    assert "ZeroDivisionError" in str(odd[7]["exception"])
    assert "left over" in str(odd[8]["exception"])
    assert ("garbage", 1) == (odd[9]["message"], odd[9]["kept"])
    assert "nobody catches this" in str(odd[10]["exception"])


def test_lines_of_threads_do_not_mix() -> None:
    """Long lines written by many threads at once stay whole."""
    finished = run("""
import threading
from job.observability import log
log.configure(console=False)
def work(thread):
    for i in range(100):
        log.get().info("said", thread=thread, i=i, text="x" * 7000)
threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
""")
    lines = [strict(line) for line in finished.stderr.splitlines()]
    assert {(thread, i) for thread in range(4) for i in range(100)} == {(line["thread"], line["i"]) for line in lines}
    assert {"x" * 7000} == {line["text"] for line in lines}


@pytest.mark.parametrize("console", [True, False])
def test_a_lost_stderr_does_not_end_the_process(console: bool) -> None:
    """If stderr is closed by its reader, lines are lost and the process continues."""
    read, write = os.pipe()
    os.close(read)
    finished = run(
        f"from job.observability import log; log.configure(console={console}); "
        "log.get().info('a'); log.get().info('b'); print('on')",
        stderr=write,
    )
    os.close(write)
    assert (0, b"on\n") == (finished.returncode, finished.stdout)


@pytest.mark.parametrize("console", [True, False])
def test_a_closed_stderr_does_not_end_the_process(console: bool) -> None:
    """A process started without a stderr has no log, and continues."""
    script = f"from job.observability import log; log.configure(console={console}); log.get().info('a'); print('on')"
    finished = subprocess.run(
        ["sh", "-c", '"$0" -c "$1" 2>&-', sys.executable, script],
        cwd=ROOT,
        check=False,
        timeout=60,
        stdout=subprocess.PIPE,
    )
    assert (0, b"on\n") == (finished.returncode, finished.stdout)


@pytest.mark.parametrize("console", [True, False])
def test_the_log_survives_a_redirected_stderr(console: bool) -> None:
    """While the chatter of C++ code is kept out of stderr, the log's own lines still come through."""
    finished = run(f"""
import os
from job.observability import log
log.configure(console={console})
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
log.get().info("still.here")
os.write(2, b"chatter")
""")
    assert b"still.here" in finished.stderr
    assert b"chatter" not in finished.stderr


def test_the_console_is_readable_and_safe() -> None:
    """Floats are short, facts in order, long lines whole; no colours in a file, and escapes in names do nothing."""
    finished = run(r"""
from job.observability import log
log.configure(console=True)
log.get().info("epoch.finished", stage="fine_tuning", loss=0.123456, rate=12345.678, rate_set=1e-05, all=[0.1234567])
log.get().info("classes.seen", names=["x" * 10] * 1000)
log.get().warning("name.seen", name="\x1b[31mred\udcff\n", why="two words", long="x" * 500)
try:
    raise ValueError("\x1b[2J")
except ValueError:
    log.get().exception("it.failed")
""")
    text = finished.stderr.decode()
    assert "\x1b" not in text
    first, many, second, *trace = text.splitlines()
    assert first.endswith(
        "epoch.finished           stage=fine_tuning loss=0.1235 rate=12345.7 rate_set=1e-05 all=[0.123457]"
    )
    assert len(many) < log.LINE_BYTES + 100
    assert re.search(r"'… \d+ more'\]$", many)
    assert second.endswith(rf"name='\x1b[31mred\\udcff\n' why='two words' long={'x' * 500}")
    assert "[warning  ] name.seen" in second
    assert r"ValueError: \x1b[2J" == trace[-1]


def test_text_without_time_and_level() -> None:
    """Lines for a person are written as they are, escapes in names do nothing, and JSON has no such lines."""
    for console, expected in ((True, b"\n  a  b\n\\x1b[2J\n"), (False, b"")):
        finished = run(rf"""
from job.observability import log
log.configure(console={console})
log.write_text(["", "  a  b", "\x1b[2J"])
""")
        assert expected == finished.stderr


def test_repeated_warnings_on_the_console() -> None:
    """A person sees the first warnings of a name and the number of the others; JSON has all of them."""
    for console, count in ((True, 5), (False, 101)):
        finished = run(rf"""
from job.observability import log
log.configure(console={console})
for n in range(100):
    log.get().warning("image.quarantined", n=n)
log.get().info("next")
""")
        lines = finished.stderr.decode().splitlines()
        assert count == len(lines)
        assert not console or "image.quarantined        more=97" in lines[3]


def test_the_level_is_the_least_that_is_shown() -> None:
    """With level "warning" an info is not written; with "debug" a debug is."""
    script = """
from job.observability import log
for level in ("warning", "debug"):
    log.configure(console=False, level=level)
    log.get().debug("debug")
    log.get().info("info")
    log.get().warning("warning")
"""
    shown = [strict(line)["message"] for line in run(script).stderr.splitlines()]
    assert ["warning", "debug", "info", "warning"] == shown


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs"]))
    | st.binary()
    | st.sampled_from([np.float16("nan"), np.bool_(True), np.arange(3), np.str_("x"), {1, 2}, Path("p"), object()]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
)


@given(anything)
@settings(max_examples=50)
def test_plain_values_are_strict_json(value: object) -> None:
    """Whatever the value, its plain form can be written as strict JSON in UTF-8."""
    text = json.dumps({"value": log.plain(value)}, ensure_ascii=False, allow_nan=False)
    assert {"value"} == set(strict(text.encode()))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(2**63 - 1, 2**63 - 1), (2**63, hex(2**63)), (1 - 2**63, 1 - 2**63), (-(2**64), hex(-(2**64)))],
)
def test_integers_beyond_64_bits_are_text(value: int, expected: object) -> None:
    """An integer that a signed 64-bit one cannot hold is hexadecimal text, since readers of JSON differ there."""
    assert expected == log.plain(value)


def json_line(facts: dict[str, object], level: str = "info") -> dict[str, object]:
    """Return the line of JSON that an event with these facts becomes, which must be within the limit."""
    line = log._JsonLines._render(None, level, {"event": "it.happened", **facts})
    assert len(line.encode()) + 1 < log.LINE_BYTES
    return strict(line)


long_values = st.one_of(
    anything,
    st.builds(lambda item, times: [item] * times, anything, st.integers(0, 1000)),
    st.builds(lambda text, times: text * times, st.text(), st.integers(0, 10000)),
    st.builds(lambda name, n: {f"{name}{i}": i for i in range(n)}, st.text(), st.integers(0, 3000)),
)


@pytest.mark.slow
@given(st.dictionaries(st.text(), long_values))
@settings(max_examples=15)
def test_every_line_is_short_json(facts: dict[str, object]) -> None:
    """For any facts, of any number, the line is strict JSON below the limit, with severity and time."""
    line = json_line({key: value for key, value in facts.items() if key not in ("event", "exc_info")})

    assert "INFO" == line["severity"]
    assert dt.datetime.fromisoformat(str(line["time"]))


def test_long_facts_are_cut_with_a_note() -> None:
    """Of a long text both ends remain, of a long list the beginning; the note says how much is missing."""
    trace = f"Traceback {'x' * 20000} ValueError: bad"
    names = [f"class-{n:03}" for n in range(700)]

    line = json_line({"message": "why", "exception": trace, "names": names, "count": 3})

    assert ("it.happened: why", "it.happened", 3) == (line["message"], line["event"], line["count"])
    begin, cut, end = str(line["exception"]).split(" … ")
    assert (True, True) == (begin.startswith("Traceback x"), end.endswith("x ValueError: bad"))
    assert len(trace) == len(begin) + len(end) + int(cut.removesuffix(" characters cut").replace(",", ""))
    *kept, note = line["names"]
    assert names[: len(kept)] == kept
    assert f"… {len(names) - len(kept)} more" == note


def test_no_more_is_cut_than_necessary() -> None:
    """A long text fills the line to its last byte."""
    line = json_line({"text": "x" * 20000})

    assert log.LINE_BYTES - 1 == len(json.dumps(line, ensure_ascii=False).encode()) + 1


def test_long_mappings_and_keys_are_cut() -> None:
    """A mapping is cut as a list is, and its keys as texts are."""
    line = json_line({"counts": {f"class-{n}": [n, 0] for n in range(5000)}})
    assert isinstance(line["counts"], dict)
    *kept, note = line["counts"].items()
    assert [(f"class-{n}", [n, 0]) for n in range(len(kept))] == kept
    assert ("…", f"{5000 - len(kept):,} more") == note

    line = json_line({"counts": {f"{n}{'é' * 1000}": n for n in range(50)}})
    assert isinstance(line["counts"], dict)
    assert list(range(50)) == list(line["counts"].values())
    assert all(" characters cut … é" in key for key in line["counts"])


@pytest.mark.parametrize(
    ("value", "rounded"),
    [
        (0.12345678901234, 0.123457),
        (1e-05, 1e-05),
        (3.14159265e-12, 3.14159e-12),
        (-123456.789, -123457.0),
        (1764362621.25, 1764362621.0),
        (0.1 + 0.2, 0.3),
        (1e300, 1e300),
        ({"a": [0.123456789, 3]}, {"a": [0.123457, 3]}),
        (float("nan"), None),
        (True, True),
    ],
)
def test_floats_are_rounded(value: object, rounded: object) -> None:
    """A float in the log has six digits, and keeps all those before the point; integers are exact."""
    line = json_line({"value": value})

    assert rounded == line["value"]
    assert type(rounded) is type(line["value"])


def test_nothing_after_the_end() -> None:
    """After its end the log drops every line except critical ones."""
    finished = run("""
import logging, warnings
from job.observability import log
log.configure(console=False)
logger = log.get()
logger.error("run.failed")
log.end()
logger.error("status.write_failed")
log.get().error("status.write_failed")
logging.getLogger("google.auth").error("no credentials")
warnings.warn("old")
raise SystemError("nobody catches this")
""")
    assert ["run.failed", "process.failed"] == [strict(line)["message"] for line in finished.stderr.splitlines()]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_printable_leaves_text_alone(name: str) -> None:
    """A name that UTF-8 can hold stays as it is."""
    assert name == log.printable(name)


def test_printable_shows_the_bytes_of_other_names() -> None:
    """A file name that is not UTF-8 is logged legibly and distinctly."""
    assert "caf\\udce9" == log.printable(os.fsdecode(b"caf\xe9"))
