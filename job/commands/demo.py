"""``finetune demo``: trains on generated pictures, from one emulated bucket to another."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from job import storage
from job.commands.command import Command, check_machine, showing
from job.commands.manual import SETTINGS_USAGE, Manual
from job.config import environment
from job.config.load import load_settings
from job.errors import GateError, SettingsError, UnavailableError
from job.evaluation.summary import metrics_summary
from job.observability import closing
from job.storage import emulator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.observability.progress import Progress


IMAGE_SIZE = 144
"""Image size of the demo in pixels: 2.4 times faster than 224, and trained from the same ImageNet weights as 224."""

FOLDER = Path("finetune-demo")
"""Local copy of what ``finetune demo`` published: the emulator does not persist its buckets."""

_INPUT, _OUTPUT = "gs://demo-pictures", "gs://demo-trained"


MANUAL = Manual(
    summary="Train on drawn pictures, from one emulated bucket on this machine to another.",
    usage=(SETTINGS_USAGE,),
    description=f"""\
It takes nothing: the pictures of two classes are drawn, and an emulator of Cloud Storage is started and stopped with
it. It needs the ImageNet weights, which are downloaded once (9 MB), and no cluster and no GPU.

What the run published is copied to ./{FOLDER}/runs/ID: the model, its metrics and a manifest. With two CPU cores it
takes about a minute and a half.

Its flags are the settings of finetune run, except --input.uri and --output.uri; those of the model and of the two
stages are below. Images are resized to {IMAGE_SIZE} pixels unless --model.image_size is given.
""",
    examples={
        "": "the default recipe, 10 + 10 epochs",
        "--fine_tuning.epochs 2": "a shorter second stage",
        "--help device": "the settings of another group",
    },
    exit_codes={
        0: "trained and published",
        SettingsError.exit_code: "a setting is wrong, or TensorFlow or the emulator is not installed",
        UnavailableError.exit_code: "the emulator did not start, or the weights could not be downloaded",
        "others": "those of the run: see finetune help",
    },
    settings=("model", "feature_extraction", "fine_tuning"),
)


def parse(arguments: Sequence[str]) -> Command:
    """Validate the arguments, those of ``finetune run``, and check that this machine has what the demo needs.

    Raises:
        SettingsError: the flags are invalid, or TensorFlow or the emulator is not installed.
    """
    _flags(arguments)
    settings = load_settings(arguments).settings
    check_machine(settings)
    emulator.program()
    return Command(partial(run, arguments), settings.log)


def run(arguments: Sequence[str], progress: Progress) -> int:
    """Train on the pictures, from one emulated bucket to another, and report the result.

    The run is a separate process, as on any other machine, and inherits the terminal. What it published is copied to
    ``FOLDER``.

    Args:
        arguments: flags for ``finetune run``, except the two URIs.
        progress: receives the events of this process; those of the run go to its own log.

    Returns:
        The run's exit code.

    Raises:
        SettingsError: the flags are invalid, or the emulator is not installed.
        UnavailableError: the emulator did not start.
    """
    flags = [*arguments, *_flags(arguments)]
    with contextlib.ExitStack() as stack:
        with showing(progress):
            from job.data import demo_pictures  # note: imports NumPy and Pillow, which no other command needs

            pictures = demo_pictures.pictures(Path(tempfile.gettempdir()), progress)
            emulated = stack.enter_context(emulator.running())
            environment.set_default("STORAGE_EMULATOR_HOST", emulated.url)
            for uri in (_INPUT, _OUTPUT):
                emulator.create_bucket(emulated.url, uri.removeprefix("gs://"))
            _copy(str(pictures), _INPUT, progress)
        child = subprocess.Popen(  # noqa: S603  # this program itself
            [sys.executable, "-m", "job", "run", *flags],
            env=environment.for_child(STORAGE_EMULATOR_HOST=emulated.url, FINETUNE_PARENT="demo"),
        )
        code = _wait(child)
        if code in (0, GateError.exit_code):
            with showing(progress):
                _copy(_OUTPUT, str(FOLDER), progress)
            sys.stdout.write("\n".join(_report("published" if code == 0 else "quality gate failed")) + "\n")
    return code


def _flags(arguments: Sequence[str]) -> list[str]:
    """Validate the user's flags, and return those that the demo adds."""
    origins = load_settings(arguments).origins
    if rejected := [f"--{name}" for name in ("input.uri", "output.uri") if origins[name] == "flag"]:
        raise SettingsError(
            f"finetune demo does not take {' and '.join(rejected)}: it has buckets of its own",
            remedy="Use finetune run for your own pictures.",
        )
    if host := environment.get("STORAGE_EMULATOR_HOST"):
        raise SettingsError(
            f"STORAGE_EMULATOR_HOST is set to {host!r}: finetune demo starts an emulator of its own",
            remedy="Unset it: env -u STORAGE_EMULATOR_HOST finetune demo",
        )
    flags = ["--input.uri", _INPUT, "--output.uri", _OUTPUT]
    if origins["model.image_size"] == "default":
        flags += ["--model.image_size", str(IMAGE_SIZE)]
    return flags


def _copy(source: str, target: str, progress: Progress) -> None:
    """Copy all objects from one store to another."""
    source_store, target_store = storage.open_store(source), storage.open_store(target)
    objects = list(source_store.list())
    with progress.phase("copy", len(objects), "files") as phase:
        for index, data in source_store.read_many(objects):
            assert isinstance(data, bytes), f"{objects[index].name} disappeared, but only this process uses the store"
            target_store.write(objects[index].name, data)
            phase.advance()


def _wait(child: subprocess.Popen[bytes]) -> int:
    """Wait for the run to end. Ctrl-C reaches it too: it saves its state before it ends, so keep waiting."""
    while True:
        try:
            return child.wait()
        except KeyboardInterrupt:
            continue


def _report(outcome: str) -> list[str]:
    """Return the closing block of the latest run in ``FOLDER``."""
    latest = max(FOLDER.glob("runs/*/_SUCCESS"), key=lambda path: path.stat().st_mtime_ns).parent
    document = json.loads((latest / "metrics/metrics.json").read_bytes())
    return closing.block(outcome, str(latest), metrics_summary(document))
