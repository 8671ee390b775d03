"""job/commands/cli.py and job/__main__.py: what a user types, what comes back, and the exit code."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from job import __version__, errors
from job.commands import cli
from job.config import reference
from job.observability.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HEAVY = ["tensorflow", "keras", "numpy", "google.cloud", "obstore", "kubernetes"]


def finetune(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "job", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def python(code: str) -> subprocess.CompletedProcess[str]:
    """Run some Python in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def output_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Return what a command prints."""
    cli.parse(arguments).execute(Progress())
    return capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["help"], ["--help"], ["-h"]])
def test_help(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """Nothing at all, or a call for help, prints the commands, an example of each input and the exit codes."""
    text = output_of(capsys, *arguments)

    names = "run demo validate plan doctor watch report predict evaluate verify runs summary schema"
    assert names.split() == re.findall(r"^  ([a-z]+) +[A-Z]", text, re.MULTILINE)
    assert "finetune run --input.uri gs://my-bucket/flowers --output.uri gs://my-bucket/trained" in text
    assert [str(code) for code in errors.exit_codes()] == re.findall(r"^  (\d+) ", text, re.MULTILINE)


@pytest.mark.parametrize("arguments", [["run", "--help"], ["help", "run"], ["run", "--run.seed", "x", "-h"]])
def test_help_of_run(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """The help of `run` has every setting with its default and its meaning."""
    text = output_of(capsys, *arguments)

    for row in reference.rows():
        assert f"  --{row.name} {row.default}\n" in text
        assert row.meaning in " ".join(text.split())


@pytest.mark.parametrize("arguments", [["run", "--help", "gate"], ["help", "run", "gate"], ["run", "-h", "--gate.min"]])
def test_help_of_a_group(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> None:
    """The help of one group has its settings alone."""
    names = ["gate.min_accuracy", "gate.min_auc", "gate.min_recall", "gate.no_worse_than_latest"]
    assert names == re.findall(r"--([a-z_.]+)", output_of(capsys, *arguments))


def test_settings_of_the_chart_are_last(capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that the chart fills in are at the end of the help, under their own heading."""
    by_hand, by_chart = output_of(capsys, "run", "--help").split("\n\nkubernetes: Filled in by the Helm chart.\n")

    assert "--run.seed" in by_hand
    assert {"cache", "run", "events", "workers"} == set(re.findall(r"^  --(\w+)", by_chart, re.MULTILINE))


@pytest.mark.parametrize("command", ["demo", "watch", "summary", "schema"])
def test_help_of_the_others(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The help of each command explains it, and does not execute it."""
    text = output_of(capsys, command, "--help")

    assert text.startswith(f"usage: finetune {command}")
    assert cli.COMMANDS[command].MANUAL.summary in " ".join(text.split())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The version is the package's."""
    assert f"finetune {__version__}\n" == output_of(capsys, "--version") == output_of(capsys, "-V")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["rum"], "finetune run"),
        (["help", "rum"], "finetune run"),
        (["xyz"], None),
        (["deploy"], None),
        (["infer"], "finetune predict"),
        (["train"], "finetune run"),
        (["trian"], "finetune run"),
        (["fine-tune"], "finetune run"),
        (["sumary"], "finetune summary"),
        (["folow"], "finetune watch"),
        (["logs"], "finetune watch"),
        (["version"], "finetune --version"),
        (["rollback"], "finetune runs promote"),
        (["/"], "finetune run --input.uri / …"),
        (["--input.uri", "x"], "finetune run --input.uri …"),
    ],
)
def test_unknown_commands(arguments: list[str], hint: str | None) -> None:
    """An unknown command is a usage error with the one that was meant, if the word is misspelt or another tool's."""
    with pytest.raises(errors.UsageError) as raised:
        cli.parse(arguments)

    assert raised.value.message.startswith("there is no command '")
    assert [hint] * bool(hint) == re.findall(r"did you mean (.*)\?$", raised.value.message)
    assert "finetune help" in raised.value.remedy


def test_aliases() -> None:
    """A word of another tool is no command here, and stands for one."""
    assert set() == set(cli.ALIASES) & set(cli.COMMANDS)
    assert set(cli.ALIASES.values()) <= {*cli.all_commands(), "--version"}


def test_a_mistyped_command_is_no_failed_run() -> None:
    """A usage error is text on stderr, though the log is JSON here: no event, no traceback, exit code 2."""
    calls = [
        ["trian"],
        ["run", "--help", "gat"],
        ["schema", "x"],
        ["watch"],
        ["runs"],
        ["runs", "list"],
        ["summary", "--a=1"],
        ["demo", "--x=1"],
    ]

    ended = python(f"from job.__main__ import main; print([main(arguments) for arguments in {calls}])")

    assert f"{[2] * len(calls)}\n" == ended.stdout
    assert len(calls) == len(re.findall(r"^finetune: ", ended.stderr, re.MULTILINE))
    for absent in ("{", "run.failed", "Traceback"):
        assert absent not in ended.stderr


def test_report_of_a_usage_error(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Control sequences in an argument are escaped; Kubernetes gets the reason as the termination message."""
    written: list[Mapping[str, object]] = []
    monkeypatch.setattr(cli, "write_termination_message", written.append)

    cli.report_usage(errors.UsageError("no \x1b[2J", remedy="try\nagain"))

    assert ["finetune: no \\x1b[2J", "try", "again"] == capsys.readouterr().err.splitlines()
    assert ("Usage", 2) == (written[0]["reason"], written[0]["exit_code"])


def test_a_settings_error_is_one_line_of_json_and_exit_2(tmp_path: Path) -> None:
    """All mistakes in file, environment and flags, and the remedy, in one line; no heavy module is loaded for that."""
    file = tmp_path / "settings.yaml"
    file.write_text("fine_tuning: {epochs: -3}")
    code = f"""
import os, sys
os.environ["FINETUNE_RUN__SEDE"] = "3"
from job.__main__ import main
code = main(["run", "--config", {str(file)!r}, "--inptu.uri", "x"])
print([name for name in {HEAVY} if name in sys.modules])
sys.exit(code)
"""

    ended = python(code)

    assert (2, "[]\n") == (ended.returncode, ended.stdout)
    (line,) = ended.stderr.splitlines()
    event = json.loads(line)
    assert ("ERROR", "Settings", 2) == (event["severity"], event["reason"], event["exit_code"])
    for part in ("epochs = '-3'", str(file), "FINETUNE_RUN__SEDE", "did you mean input.uri?", "output.uri", "--help"):
        assert part in line


def test_a_settings_error_can_be_read_on_a_terminal() -> None:
    """On a terminal the mistakes are lines of text, each on its own, without escapes."""
    ours, theirs = pty.openpty()
    with subprocess.Popen([sys.executable, "-m", "job", "run", "--run.sede", "3"], stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while chunk := _read(ours):
            shown += chunk
    os.close(ours)

    assert 2 == process.returncode
    lines = shown.decode().splitlines()
    assert "2 mistakes in the settings:" in lines
    assert "  flag --run.sede: unknown setting 'run.sede': did you mean run.seed?" in lines
    assert "  output.uri: must be given, as in --output.uri gs://my-bucket/trained" in lines


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # no process has it open any more
        return b""


def test_help_of_the_process() -> None:
    """The module is the command: help goes to stdout, with nothing on stderr and exit code 0."""
    ended = finetune("help")

    assert (0, "") == (ended.returncode, ended.stderr)
    assert "usage: finetune COMMAND" in ended.stdout


def test_every_end_has_its_exit_code_and_its_line(tmp_path: Path) -> None:
    """Every end of a run has its exit code, and the last line of the log has the reason."""
    code = f"""
import sys, types
from job import errors
from job.__main__ import main

def end(error):
    def run(loaded, progress):
        progress.event("run.started", run_uri=loaded.settings.output.uri)
        if error is not None:
            raise error
    sys.modules["job.pipeline"] = sys.modules["job"].pipeline = types.SimpleNamespace(run=run)
    return main(["run", "--output.uri", {str(tmp_path)!r}])

print([end(error) for error in (
    None,
    errors.DataError("no images", remedy="add some"),
    errors.StoppedError("stopped by SIGTERM", remedy="start it again"),
    ZeroDivisionError("by zero"),
    KeyboardInterrupt(),
)])
"""

    ended = python(code)

    assert "[0, 3, 75, 1, 75]\n" == ended.stdout
    events = [event for event in map(json.loads, ended.stderr.splitlines()) if event["message"] != "run.started"]
    assert [
        ("run.failed", "ERROR", "Data", 3),
        ("run.stopped", "WARNING", "Stopped", 75),
        ("run.failed", "CRITICAL", "Unexpected", 1),
        ("run.stopped", "WARNING", "Stopped", 75),
    ] == [(event["event"], event["severity"], event["reason"], event["exit_code"]) for event in events]
    assert "no images" in json.dumps(events[0])
    assert "add some" == events[0]["remedy"]
    assert "ZeroDivisionError: by zero" in json.dumps(events[2])
    assert "Traceback" in json.dumps(events[2])
    assert "Traceback" not in json.dumps(events[:2] + events[3:])


@pytest.mark.parametrize("format_", ["json", "console"])
def test_the_failure_is_the_last_line(tmp_path: Path, format_: str) -> None:
    """Whatever else fails at the end, as writing status.json on a full disk, the failure is the last line."""
    code = f"""
import logging, sys, types
from job import errors
from job.__main__ import main
from job.observability.status import StatusFile

def write(document):
    if b"failed" in document:
        raise OSError("no space left")

def run(loaded, progress):
    progress.subscribe(StatusFile(write, run_id="r", run_uri="u"))
    raise errors.DataError("no images", remedy="add some")
sys.modules["job.pipeline"] = sys.modules["job"].pipeline = types.SimpleNamespace(run=run)

code = main(["run", "--output.uri", {str(tmp_path)!r}, "--log.format={format_}"])
logging.getLogger("google.auth").error("a thread of a library failed")
sys.exit(code)
"""

    ended = python(code)

    assert 3 == ended.returncode
    if format_ == "json":
        [line] = map(json.loads, ended.stderr.splitlines())
        assert ("run.failed", "no images") == (line["event"], line["message"].removeprefix("run.failed: "))
    else:
        assert ["no images", "add some"] == ended.stderr.splitlines()[1:]


def test_log_settings_are_followed(tmp_path: Path) -> None:
    """The format and the level that were asked for are those of the log."""
    code = f"""
import sys, types
from job.__main__ import main

def run(loaded, progress):
    progress.event("a.seen", severity="debug")
    progress.event("b.seen", severity="warning")
sys.modules["job.pipeline"] = sys.modules["job"].pipeline = types.SimpleNamespace(run=run)

main(["run", "--output.uri", {str(tmp_path)!r}, "--log.format=console", "--log.level=warning"])
"""

    lines = [line for line in python(code).stderr.splitlines() if line]

    assert 1 == len(lines)
    assert "b.seen" in lines[0]
    assert not lines[0].startswith("{")


def test_commands_get_what_they_need() -> None:
    """The demo gets its arguments; the summary gets the model's settings, and what it returns is printed."""
    code = """
import sys, types, job.commands
from job.__main__ import main

import job.commands.demo
import job.runtime.device
job.commands.demo.run = lambda arguments, progress: print(arguments)
job.runtime.device.import_tensorflow = lambda: None
sys.modules["job.model.classifier"] = types.SimpleNamespace(summary=lambda model, stage: f"alpha {model.alpha}")
sys.exit(main(["demo", "--run.seed", "3"]) or main(["summary", "--model.alpha", "0.35"]))
"""

    ended = python(code)

    assert (0, "['--run.seed', '3']\nalpha 0.35\n") == (ended.returncode, ended.stdout)


def test_the_demo_writes_the_closing_block_itself() -> None:
    """The run that the demo starts writes none: its buckets are gone when the demo has ended."""
    code = """
import os
from job.commands import cli
from job.config.settings import LogSettings

stage = {"epochs": 1, "seconds": 1.0, "val_accuracy": 1.0, "best_val_accuracy": 1.0}
metrics = {"validation": {"accuracy": 1.0, "images": 1}, "stages": {"s": stage}}
for parent in ("", "demo"):
    if parent:
        os.environ["FINETUNE_PARENT"] = parent
    progress = cli.listen(LogSettings(format="console"))
    progress.event("run.evaluated", kept={"stage": "s", "epoch": 1, "val_loss": 0.0}, **metrics)
    progress.event("run.succeeded", message="published", run_uri=f"gs://b/{parent or 'run'}")
    progress.close()
"""

    ended = python(code)

    assert "  model     gs://b/run/model/saved_model" in ended.stderr
    assert "gs://b/demo" not in ended.stderr
