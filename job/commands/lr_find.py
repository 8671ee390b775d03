"""``finetune lr-find``: the loss of each stage over the learning rate, on the images of an input."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from job.commands.arguments import divide
from job.commands.command import Command, check_machine, showing, write, writing_into
from job.commands.manual import SETTINGS_USAGE, Manual
from job.config.load import load_settings
from job.errors import SettingsError
from job.runtime import device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.observability.progress import Progress
    from job.training.range_test import Curve

FOLDER = Path("lr-find")

STEPS: Final = 100

MANUAL = Manual(
    summary="Measure the loss of each stage over the learning rate, and suggest one.",
    usage=(f"[--out DIR] [--steps N] {SETTINGS_USAGE}",),
    description="""\
It takes the settings of finetune run; --output.uri is not needed. Each stage that has epochs takes at most --steps
steps on images of the train split, while its learning rate rises from 1e-7 to 1, and ends early when the loss diverges.
The steps are those of the run: its weights, optimizer, batches and loss. Stage 2 starts from a head that stage 1 trains
on the same images with its own settings.

The loss of a step is measured against that of the same images before the first step, so that easy and difficult batches
have one level. The suggestion is a tenth of the rate at which the smoothed loss was lowest: one to try, not the best
one. There is none where the loss did not fall by 5 %.

It writes lr-find.json and lr-find.png into DIR, and prints a table to stdout. Nothing is written to a bucket, and no
run is left behind. It reads the header of every image, and downloads and decodes those that it trains on: as many as
the steps need. A step takes as long as in the run.
""",
    flags={
        "--out DIR": f"the folder, created if it is missing; default: {FOLDER}",
        "--steps N": f"steps of each stage, 10 to 10000; default: {STEPS}",
    },
    examples={
        "--input.uri gs://my-bucket/flowers": "both stages",
        "--input.uri ./flowers --feature_extraction.epochs 0 --out rates": "stage 2 alone, from the first head",
    },
    exit_codes={
        0: "measured, also where there is no suggestion",
        2: "a setting is wrong",
        3: "a run would end with the same error: the images cannot be trained on",
        4: "no usable GPU where one is required",
        5: "no permission",
        8: "out of memory at the smallest batch",
        20: "the store did not respond",
    },
    settings=("input", "storage", "model", "feature_extraction", "fine_tuning", "train", "device", "cache"),
)


def parse(arguments: Sequence[str]) -> Command:
    """Parse the flags, and load the settings.

    Raises:
        SettingsError: they are invalid.
    """
    found = divide(arguments, command="lr-find", flags={"--out": str(FOLDER), "--steps": str(STEPS)}, places=())
    steps = found.flags.get("--steps", str(STEPS))
    if not steps.isdecimal() or not 10 <= int(steps) <= 10_000:
        raise SettingsError(f"--steps {steps!r}: expected a number from 10 to 10000", remedy=f"as in --steps {STEPS}")
    settings = load_settings(found.settings).settings
    check_machine(settings)
    folder = Path(found.flags.get("--out", FOLDER))
    return Command(partial(_execute, settings, folder, int(steps)), settings.log)


def _execute(settings: Settings, folder: Path, steps: int, progress: Progress) -> int:
    with writing_into(folder):
        pass  # now: not after minutes of training
    with showing(progress):
        curves, machine = _measure(settings, steps, progress)
        document = json.dumps(_document(curves, machine), indent=2, allow_nan=False)
        picture = _picture(curves)
    with writing_into(folder):
        (folder / "lr-find.json").write_text(document + "\n", "utf-8")
        (folder / "lr-find.png").write_bytes(picture)
    write(_table(curves))
    write(str(folder / "lr-find.png"))
    return 0


def _measure(settings: Settings, steps: int, progress: Progress) -> tuple[list[Curve], device.Device]:
    from job import storage
    from job.data.prepare import prepare
    from job.data.survey import survey
    from job.phases.data import list_images

    open_store = storage.opener(settings.storage)
    listing = list_images(settings, open_store, progress)
    found = survey(listing.listed, open_store, max_pixels=settings.input.max_pixels, progress=progress)
    prepared = prepare(listing.listed, listing.quarantined, found, settings.input, progress, hashes=found.hashes)
    device.prepare()
    machine = device.configure(settings, notify=progress.event, single=True)
    from job.trials.lr_finder import find

    return find(settings, prepared, open_store, machine, progress, steps=steps), machine


def _document(curves: Sequence[Curve], machine: device.Device) -> dict[str, Any]:
    """Return lr-find.json: strict JSON."""
    return {
        "device": machine.name,
        "stages": {
            curve.stage: {
                "learning_rate": curve.configured,
                "suggestion": curve.suggestion,
                "lowest_loss_at": curve.lowest,
                "diverged": curve.diverged,
                "rates": curve.rates,
                "losses": curve.losses,
                "smoothed": curve.smoothed,
            }
            for curve in curves
        },
    }


def _picture(curves: Sequence[Curve]) -> bytes:
    """Return the charts of all stages, side by side, as a PNG file."""
    from job.evaluation.report.page import prepare_matplotlib

    prepare_matplotlib()
    from job.evaluation.report import charts, learning_rates

    with charts.style():
        return charts.png([learning_rates.curve(curve) for curve in curves])


def _table(curves: Sequence[Curve]) -> str:
    """Return a row for each stage."""
    lines = [f"{'stage':20}{'settings':>12}{'suggestion':>12}{'lowest loss at':>16}  steps"]
    for curve in curves:
        suggestion, lowest = ("none" if rate is None else f"{rate:.2g}" for rate in (curve.suggestion, curve.lowest))
        end = ", then the loss diverged" if curve.diverged else ""
        lines.append(f"{curve.stage:20}{curve.configured:>12.2g}{suggestion:>12}{lowest:>16}  {len(curve.rates)}{end}")
    if any(curve.suggestion is None for curve in curves):
        lines.append("none: the loss did not fall within these steps. More of them, --steps, may help.")
    return "\n".join(lines)
