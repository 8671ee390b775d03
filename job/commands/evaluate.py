"""``finetune evaluate``: measure a published model on another labelled set."""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from job import uri as uris
from job.commands.arguments import divide
from job.commands.command import Command, check_tensorflow, showing, write, write_line
from job.commands.manual import SETTINGS_USAGE, Manual
from job.config.load import load_settings
from job.errors import SettingsError
from job.observability import log

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.evaluation.labelled_set import LabelledSet
    from job.observability.progress import Progress
    from job.storage import Store

MANUAL = Manual(
    summary="Measure a published model on another labelled set.",
    usage=("RUN DATA --out DIR [--ignore-unknown] [--json]", SETTINGS_USAGE),
    description="""\
RUN is the URI or folder of a published run, OUTPUT_URI/runs/ID, or OUTPUT_URI/latest. DATA is a labelled set, in any
form that --input.uri has: class folders, splits, CSV, JSON Lines; the other settings of the input apply to it. All its
images are scored, of all splits. Labels are matched by name; metrics of labels without images are null, with the
reason.

DIR, a folder or gs:// prefix, gets metrics.json, curves.json, confusion.csv, predictions.csv and quarantine.jsonl, as a
run has them; the set is the split "test" in them. report/index.html there is the page of the run with that set, unless
report.enabled is false. Nothing is written into the run. A summary goes to stdout. Unusable images are quarantined, up
to input.max_bad_fraction.
""",
    flags={
        "--out DIR": "where the files are written",
        "--ignore-unknown": "leave images out whose label the model does not know, instead of ending with exit code 3",
        "--json": "print metrics.json instead of the summary",
    },
    examples={
        "gs://my-bucket/trained/latest gs://my-bucket/winter --out gs://my-bucket/winter-metrics": "on new pictures",
        "./trained/latest ./labels.csv --out ./checked --ignore-unknown": "of a table, the labels that the model knows",
    },
    exit_codes={
        0: "measured",
        2: "the call or a setting is wrong, or TensorFlow is not installed",
        3: "the run is damaged, labels are unknown, or too many images cannot be used",
        4: "no usable GPU where device.require_gpu is set",
        5: "no permission",
        20: "a store did not respond",
    },
    settings=("input", "storage", "device", "report"),
)


class Options(NamedTuple):
    """What the command does.

    Attributes:
        run: the run's location.
        out: where the files are written.
        ignore_unknown: leave images of unknown labels out.
        as_json: print metrics.json.
    """

    run: str
    out: str
    ignore_unknown: bool
    as_json: bool


def parse(arguments: Sequence[str]) -> Command:
    """Return the command.

    Raises:
        SettingsError: the arguments are invalid, or TensorFlow is missing.
    """
    flags = {"--out": "gs://my-bucket/metrics", "--ignore-unknown": "", "--json": ""}
    found = divide(arguments, command="evaluate", flags=flags, places=("RUN", "DATA"))
    if "--out" not in found.flags:
        raise SettingsError("--out is missing: where the metrics are written", remedy="as in --out ./metrics")
    run, data = found.places
    settings = load_settings([*found.settings, f"--input.uri={data}"]).settings
    try:
        out = str(uris.parse(found.flags["--out"]))
        is_inside = uris.is_inside(out, settings.input.uri)
    except ValueError as error:
        raise SettingsError(f"--out {error}", remedy="as in --out gs://my-bucket/metrics") from None
    if is_inside:
        raise SettingsError(f"--out {out} is inside DATA: it would be listed as data", remedy="write to another place")
    check_tensorflow()
    options = Options(run, out, "--ignore-unknown" in found.flags, "--json" in found.flags)
    return Command(partial(_execute, settings, options), settings.log)


def _execute(settings: Settings, options: Options, progress: Progress) -> int:
    from job import storage
    from job.data.listing import read_listing
    from job.runs.published import open_published

    open_store = storage.opener(settings.storage)
    run = open_published(options.run, open_store)
    output = storage.open_output(options.out, settings.storage)
    if uris.is_inside(options.out, run.uri) or output.stat("_SUCCESS") is not None:
        raise SettingsError(f"--out {options.out} is a run, or inside one", remedy="write to another place")
    from job.commands.published_model import loaded_model

    with showing(progress):
        with progress.phase("list", None, "objects") as phase:
            listed, quarantined = read_listing(settings.input, open_store, phase.advance)
        progress.event("input.listed", uri=settings.input.uri, images=len(listed), labels=len(listed.labels))
        with loaded_model(run, settings, progress) as model:
            from job.commands import scored_set
            from job.evaluation.labelled_set import relabel

            images, unknown = relabel(listed, model.labels, ignore_unknown=options.ignore_unknown)
            if unknown:
                progress.event("labels.ignored", severity="warning", labels=unknown)
            found, unreadable = scored_set.score(model, images, settings, open_store, progress)
        quarantined += unreadable
        scored_set.check_quarantine(output, found.images, quarantined, settings, progress)
        facts = {
            "run_uri": run.uri,
            "data_uri": settings.input.uri,
            "evaluated_at": log.timestamp(),
            "images": len(found.images),
            "quarantined": len(quarantined),
            "ignored_labels": unknown,
        }
        document = {"evaluation": facts} | found.metrics(_run_metrics(run), seed=settings.run.seed)
        with progress.phase("upload", None, ""):
            _write(output, found, document)
        if settings.report.enabled:
            _write_report(output, run, found, document, progress)
    if options.as_json:
        write(json.dumps(log.plain(document), indent=2, allow_nan=False))
    else:
        _print_summary(document, output)
    return 0


def _run_metrics(run: Store) -> dict[str, Any]:
    """Return metrics.json of the run; empty if it cannot be read: only the threshold and the report depend on it."""
    return _read_json(run, "metrics/metrics.json")


def _read_json(run: Store, name: str) -> dict[str, Any]:
    """Return a document of the run; empty if there is none, or it is damaged."""
    with contextlib.suppress(ValueError):
        if stored := run.read(name):
            document = json.loads(stored[0])
            return document if isinstance(document, dict) else {}
    return {}


def _write(output: Store, found: LabelledSet, document: dict[str, Any]) -> None:
    from job.commands.scored_set import write_lines
    from job.runs.documents import encode

    write_lines(output, "predictions.csv", found.predictions())
    write_lines(output, "confusion.csv", found.confusion())
    output.write("curves.json", encode(found.curves()))
    output.write("metrics.json", encode(document))


def _write_report(output: Store, run: Store, found: LabelledSet, document: dict[str, Any], progress: Progress) -> None:
    """Write the run's report with the set in place of its test images; a warning if it cannot be made."""
    from job.evaluation.report.page import recorded_settings, render
    from job.phases.context import optional
    from job.runs.documents import encode

    facts = document["evaluation"]
    of_set = f"test is {facts['data_uri']}, measured by finetune evaluate on {facts['evaluated_at']:.10}"
    recorded = _run_metrics(run)
    warnings = [{"code": "evaluated", "text": of_set}, *(recorded.get("warnings") or []), *document["warnings"]]
    changed = {
        "metrics/metrics.json": recorded | {"test": document["test"], "warnings": warnings},
        "metrics/curves.json": _read_json(run, "metrics/curves.json") | {"test": found.curves()["test"]},
    }

    def read(name: str) -> bytes | None:
        if name in changed:
            return encode(changed[name])
        stored = run.read(name)
        return stored[0] if stored else None

    files = {}
    with optional(progress, "page"):  # as in a run
        files = render(read, recorded_settings(read))
    for name, data in files.items():
        output.write(name, data)


def _print_summary(document: dict[str, Any], output: Store) -> None:
    facts, found = document["evaluation"], document["test"]
    unusable = f", {facts['quarantined']:,} cannot be used" if facts["quarantined"] else ""
    ignored = sum(facts["ignored_labels"].values())
    left_out = f", {ignored:,} of unknown labels" if ignored else ""
    write_line(f"{facts['data_uri']}: {facts['images']:,} images{unusable}{left_out}")
    for name in ("accuracy", "balanced_accuracy", "log_loss", "roc_auc", "pr_auc"):
        low_high = found["intervals"].get(name)
        interval = f"  ({low_high[0]:.4f} to {low_high[1]:.4f})" if low_high else ""
        value = found[name]
        write_line(f"{name.replace('_', ' '):18} {'-' if value is None else f'{value:.4f}'}{interval}")
    width = max(map(len, found["labels"]))
    write_line(f"{'':{width}}   images  precision  recall")
    for label, row in found["labels"].items():
        cells = ("-" if row[name] is None else f"{row[name]:.4f}" for name in ("precision", "recall"))
        precision, recall = cells
        write_line(f"{label:{width}} {row['support']:8,}  {precision:>9}  {recall:>6}")
    for warning in document["warnings"]:
        write_line(f"warning: {warning['text']}")
    write_line(f"metrics: {output.uri}")
