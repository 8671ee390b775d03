"""``finetune runs list``: a table of the runs of an output."""

from __future__ import annotations

import datetime as dt
import json
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from job.commands.arguments import divide
from job.commands.command import Command, showing, write, write_line
from job.commands.manual import SETTINGS_USAGE, Manual
from job.commands.tables import lines, shortened, since, time_of, value_of, whole_number
from job.config.load import load_settings
from job.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from job.config.settings import Settings
    from job.observability.progress import Progress
    from job.runs.inventory import Inventory, ListedRun

_FLAGS = {
    "--state": "published",
    "--gate": "failed",
    "--data": "flowers",
    "--since": "7d",
    "--sort": "accuracy",
    "--limit": "20",
    "--json": "",
}

_STATES = ("published", "running", "stopped", "failed", "interrupted", "incomplete", "unreadable")
_SORTS = ("published", "accuracy", "images", "gpu-hours", "attempts", "id")

MANUAL = Manual(
    summary="List the runs of an output as a table or JSON.",
    usage=(
        "OUTPUT_URI [--state STATE] [--gate OUTCOME] [--data TEXT] [--since DATE] [--sort BY] [--limit N] [--json]",
        SETTINGS_USAGE,
    ),
    description=f"""\
A line for each run, the newest first: when it was published, its data and images, the kept epoch, validation accuracy
with its 95 % interval, the gate, the starts, GPU hours, their cost where --report.gpu_price_per_hour is given, and
whether latest.json names it. An unfinished run has its state and progress from status.json; one that has reported
nothing for ten minutes and was not stopped is interrupted.

It sends one listing and one read for each published run, 32 at once, and one or two more for any other run. States:
{", ".join(_STATES)}.
""",
    flags={
        "--state STATE": "runs of this state alone",
        "--gate OUTCOME": "published runs whose gate has passed or failed",
        "--data TEXT": "runs whose input.uri or ID contains this text",
        "--since DATE": "published, or reported last, since a date (2026-01-31) or within an age (7d, 12h, 2w)",
        "--sort BY": f"{', '.join(_SORTS)}; the largest or newest first, id ascending",
        "--limit N": "the first N",
        "--json": "print one JSON document",
    },
    examples={
        "gs://my-bucket/trained": "all runs",
        "gs://my-bucket/trained --data flowers --sort accuracy --limit 5": "the best five of a data set",
        "gs://my-bucket/trained --since 7d --report.gpu_price_per_hour 2.48": "a week, with its cost",
    },
    exit_codes={
        0: "listed",
        2: "the call is wrong",
        3: "there is no output",
        5: "no permission",
        20: "the store did not respond",
    },
    settings=("storage", "report"),
)


class Options(NamedTuple):
    """What is listed.

    Attributes:
        state, gate, data: conditions; empty: none.
        since: the earliest time; None: any.
        sort: one of `_SORTS`.
        limit: the largest number of runs; None: all.
        as_json: print JSON.
    """

    state: str
    gate: str
    data: str
    since: dt.datetime | None
    sort: str
    limit: int | None
    as_json: bool

    def has(self, run: ListedRun) -> bool:
        """Return whether a run matches all conditions."""
        found = run.overview
        gate = "" if found is None else "passed" if found.gate_passed else "failed"
        text = f"{run.run_id}\n{(found and found.data_uri) or ''}"
        return (
            self.state in ("", run.state)
            and self.gate in ("", gate)
            and self.data in text
            and (self.since is None or (run.at is not None and run.at >= self.since))
        )


def parse(arguments: Sequence[str]) -> Command:
    """Return the command.

    Raises:
        SettingsError: the arguments are invalid.
    """
    found = divide(arguments, command="runs list", flags=_FLAGS, places=("OUTPUT_URI",))
    loaded = load_settings(found.settings).settings
    flags = found.flags
    options = Options(
        state=_one_of("--state", flags, _STATES),
        gate=_one_of("--gate", flags, ("passed", "failed")),
        data=flags.get("--data", ""),
        since=since("--since", flags["--since"], dt.datetime.now(dt.UTC)) if "--since" in flags else None,
        sort=_one_of("--sort", flags, _SORTS) or "published",
        limit=whole_number("--limit", flags["--limit"]) if "--limit" in flags else None,
        as_json="--json" in flags,
    )
    return Command(partial(_execute, loaded, found.places[0], options), loaded.log)


def _one_of(flag: str, flags: Mapping[str, str], values: Sequence[str]) -> str:
    value = flags.get(flag, "")
    if value and value not in values:
        raise SettingsError(
            f"{flag} {value!r}: expected one of {', '.join(values)}", remedy=f"as in {flag} {values[0]}"
        )
    return value


def _execute(settings: Settings, output_uri: str, options: Options, progress: Progress) -> int:
    from job import storage
    from job.runs.inventory import read_inventory

    with showing(progress):
        inventory = read_inventory(storage.opener(settings.storage)(output_uri), progress)
    price = settings.report.gpu_price_per_hour
    runs = _selected(inventory, options)
    if options.as_json:
        document = {
            "output_uri": inventory.output_uri,
            "latest": inventory.latest and inventory.latest.document(),
            "runs": [run.document(price) for run in runs],
        }
        write(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        _print_table(inventory, runs, price)
    return 0


def _selected(inventory: Inventory, options: Options) -> list[ListedRun]:
    """Return the runs that match, in their order."""
    keys: dict[str, Callable[[ListedRun], float]] = {
        "accuracy": lambda run: run.overview.accuracy if run.overview else -1.0,
        "images": lambda run: sum(run.overview.images.values()) if run.overview else -1,
        "gpu-hours": lambda run: -1.0 if (hours := run.gpu_hours()) is None else hours,
        "attempts": lambda run: (run.overview and run.overview.attempts) or run.status.get("attempt") or -1,
    }
    runs = [run for run in inventory.runs if options.has(run)]  # the newest first
    if options.sort == "id":
        runs.sort(key=lambda run: run.run_id)
    elif options.sort in keys:
        runs.sort(key=keys[options.sort], reverse=True)
    return runs[: options.limit]


_HEADER = ("RUN", "PUBLISHED", "DATA", "IMAGES", "KEPT", "ACCURACY", "GATE", "ATTEMPTS", "GPU H", "COST", "STATE")


def _print_table(inventory: Inventory, runs: Sequence[ListedRun], price: float | None) -> None:
    rows = [_cells(run, price) for run in runs]
    cost = _HEADER.index("COST")
    header = list(_HEADER)
    if price is None:
        for row in (header, *rows):
            del row[cost]
    for line in lines(header, rows):
        write_line(line)
    if len(runs) < len(inventory.runs):
        write_line(f"{len(runs)} of {len(inventory.runs):,} runs")
    if inventory.latest_problem:
        write_line(inventory.latest_problem)
    elif inventory.latest and not any(run.is_latest for run in inventory.runs):
        write_line(f"latest.json names {inventory.latest.run_id!r}, which is not among the runs")


def _cells(run: ListedRun, price: float | None) -> list[str]:
    found, hours, cost = run.overview, run.gpu_hours(), run.cost(price)
    if found is None:
        attempts = value_of(run.status.get("attempt"))
        return [run.run_id, "", "", "", "", "", "", attempts, "", "", state_of(run)]
    low, high = found.accuracy_interval or (None, None)
    interval = "" if low is None or high is None else f" ({low:.3f} to {high:.3f})"
    return [
        run.run_id,
        time_of(run.at),
        shortened(found.data_uri or ("demo" if found.data_uri == "" else ""), 36),
        f"{sum(found.images.values()):,}" if found.images else "",
        f"{found.kept_stage} {found.kept_epoch}" if found.kept_stage else "",
        f"{found.accuracy:.3f}{interval}",
        "passed" if found.gate_passed else "failed",
        value_of(found.attempts),
        "" if hours is None else f"{hours:.2f}",
        "" if cost is None else f"{cost:,.2f}",
        state_of(run),
    ]


def state_of(run: ListedRun) -> str:
    """Return the state of a run with what it depends on: the progress, the failure, or whether it is the latest."""
    if run.state == "published":
        return "latest, pinned" if run.is_pinned else "latest" if run.is_latest else "published"
    status = run.status
    parts: list[str] = [run.state]
    if run.state == "failed":
        parts.append(str(status.get("reason") or ""))
    elif status.get("stage"):
        parts.append("{stage} {epoch}/{epochs}".format(**{"epoch": "?", "epochs": "?"} | status))
    elif status.get("phase"):
        parts.append(
            "{phase} {done}/{total} {unit}".format(**{"done": "?", "total": "?", "unit": ""} | status).rstrip()
        )
    if run.is_latest:
        parts.append("latest.json names it")
    return ", ".join(filter(None, [*parts, run.detail]))
