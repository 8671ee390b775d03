"""``finetune predict``: what a published model answers for images."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple, get_args

from job import uri as uris
from job.commands.answers import Format, Printer
from job.commands.arguments import divide
from job.commands.command import Command, check_tensorflow, showing, write_line
from job.commands.manual import SETTINGS_USAGE, Manual
from job.config.load import load_settings
from job.errors import DataError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from job.config.settings import Settings
    from job.export.predictor import Answer, Predictor
    from job.observability.progress import Progress
    from job.storage import OpenStore

MANUAL = Manual(
    summary="Score images with a published model.",
    usage=("RUN PATH... [--top-k N] [--json | --csv] [--out URI]", SETTINGS_USAGE),
    description="""\
RUN is the URI or folder of a published run, OUTPUT_URI/runs/ID, or OUTPUT_URI/latest. A PATH is an image, a folder, a
gs:// object or prefix, or - for a list of these on the standard input, one a line. In a folder, files of other types
are ignored.

The model's files are copied to a temporary folder and compared with their checksums before they are loaded; images are
decoded as in training. The result has a line for each image, in the order of the paths and, in a folder, by name. It
goes to stdout, or with --out to a file: where URI ends in .csv or .jsonl to this one, else into the folder URI, named
like the PATH (predictions, if there are several). Images are read a few at a time, so their number is not limited.

An image that cannot be read has its reason in its line; only where none can be read does the command fail. A model is
a program: use runs that you trust.
""",
    flags={
        "--top-k N": "labels for each image, the most probable first; 1 by default",
        "--json": "print a JSON object a line: uri, predictions (label, probability), reason, detail",
        "--csv": "print CSV with a header: uri, label, probability, label_2, …, reason, detail",
        "--out URI": "write the result there, as JSON Lines or CSV, and nothing to stdout",
    },
    examples={
        "gs://my-bucket/trained/latest cat.jpg": "one picture",
        "./trained/latest ./new --top-k 3 --csv > new.csv": "a folder",
        "gs://my-bucket/trained/latest gs://my-bucket/new --out gs://my-bucket/scored": "to gs://my-bucket/scored/new.jsonl",
    },
    exit_codes={
        0: "one image or more was scored",
        2: "the call is wrong, or TensorFlow is not installed",
        3: "there is no such run, it is damaged, or no image could be read",
        4: "no usable GPU where device.require_gpu is set",
        5: "no permission",
        20: "a store did not respond, or a disk is full",
    },
    settings=("storage", "device"),
)


class Options(NamedTuple):
    """What the command does.

    Attributes:
        run: the run's location.
        paths: of the images.
        form: of the result.
        top_k: labels for each image.
        out: where the result is written; None: to stdout.
    """

    run: str
    paths: tuple[str, ...]
    form: Format
    top_k: int
    out: uris.Location | None


def parse(arguments: Sequence[str]) -> Command:
    """Return the command.

    Raises:
        SettingsError: the arguments are invalid, or TensorFlow is missing.
    """
    flags = {"--top-k": "3", "--json": "", "--csv": "", "--out": "gs://my-bucket/scored"}
    found = divide(arguments, command="predict", flags=flags, places=("RUN", "PATH"), more=True)
    settings = load_settings(found.settings).settings
    run, *paths = found.places
    forms: list[Format] = [form for form in get_args(Format) if f"--{form}" in found.flags]
    out = _location(found.flags["--out"]) if "--out" in found.flags else None
    if out is not None and (named := _NAMED.get(PurePosixPath(out.path).suffix.lower())):
        forms.append(named)
    if len(set(forms)) > 1:
        raise SettingsError(f"the result is to be {' and '.join(forms)}", remedy="give one of --json, --csv, FILE.csv")
    form: Format = forms[0] if forms else "table" if out is None else "json"
    top_k = found.flags.get("--top-k", "1")
    if not (top_k.isascii() and top_k.isdecimal() and int(top_k)):
        raise SettingsError(f"--top-k {top_k!r} is no number from 1", remedy="as in --top-k 3")
    if paths.count("-") > 1:
        raise SettingsError("- is given twice: there is one standard input", remedy="give it once")
    check_tensorflow()
    return Command(partial(_execute, settings, Options(run, tuple(paths), form, int(top_k), out)), settings.log)


_NAMED: dict[str, Format] = {".csv": "csv", ".jsonl": "json"}


def _location(text: str) -> uris.Location:
    try:
        return uris.parse(text)
    except ValueError as error:
        raise SettingsError(f"--out {error}", remedy="as in --out gs://my-bucket/scored") from None


def _execute(settings: Settings, options: Options, progress: Progress) -> int:
    from job import storage
    from job.runs.published import open_published

    open_store = storage.opener(settings.storage)
    run = open_published(options.run, open_store)
    if options.out is not None and uris.is_inside(str(options.out), run.uri):
        raise SettingsError(f"--out {options.out} is inside the run {run.uri}", remedy="write to another place")
    from job.commands.published_model import loaded_model

    # On a terminal the lines of the result are the progress: bars would mix with them.
    is_shown = options.out is not None or not sys.stdout.isatty()
    with showing(progress) if is_shown else contextlib.nullcontext(), loaded_model(run, settings, progress) as model:
        counts = _Counts()
        answers = counts.of(_answers(model, settings, options, open_store, progress))
        printer = Printer(options.form, model.labels, options.top_k)
        if options.out is None:
            with contextlib.suppress(BrokenPipeError):  # the reader has closed the pipe
                _print(printer, answers)
        else:
            _write(printer, answers, options, settings)
    progress.event("prediction.finished", run_uri=run.uri, images=counts.images, unreadable=counts.unreadable)
    counts.check()
    return 0


def _answers(
    model: Predictor, settings: Settings, options: Options, open_store: OpenStore, progress: Progress
) -> Iterator[Answer]:
    from job.data import image_files

    ignored = 0

    def ignore(_: str) -> None:
        nonlocal ignored
        ignored += 1

    listed = image_files.find(_paths(options.paths), open_store, ignore)
    with progress.phase("predict", None, "images") as phase:
        for answers in model.predict(image_files.read(listed, max_pixels=settings.input.max_pixels)):
            yield from answers
            phase.advance(len(answers))
    if ignored:
        progress.event("input.litter_ignored", files=ignored)


def _paths(paths: Sequence[str]) -> Iterator[str]:
    """Yield the paths, those of the standard input in place of ``-``."""
    for path in paths:
        if path != "-":
            yield path
            continue
        for line in sys.stdin.buffer:
            if name := os.fsdecode(line.rstrip(b"\r\n")):
                yield name


class _Counts:
    """Counts the images that pass, and keeps the first that could not be used."""

    def __init__(self) -> None:
        self.images = self.unreadable = 0
        self._first: Answer | None = None

    def of(self, answers: Iterator[Answer]) -> Iterator[Answer]:
        """Yield the answers."""
        for answer in answers:
            self.images += 1
            if answer.probabilities is None:
                self.unreadable += 1
                self._first = self._first or answer
            yield answer

    def check(self) -> None:
        """Raise errors.DataError if no image was scored."""
        if self.unreadable < self.images:
            return
        if self._first is None:
            raise DataError("no image was given: nothing but files of other types", remedy="give images or folders")
        others = f", nor any of the {self.images - 1:,} others" if self.images > 1 else ""
        raise DataError(
            f"{self._first.uri} could not be used{others}: {self._first.detail}",
            remedy="give JPEG, PNG, GIF, BMP or WebP images; the result has the reason of each",
        )


def _print(printer: Printer, answers: Iterator[Answer]) -> None:
    for line in printer.header():
        write_line(line)
    for answer in answers:
        write_line(printer.line(answer))


def _write(printer: Printer, answers: Iterator[Answer], options: Options, settings: Settings) -> None:
    """Write the result to a store: first to a temporary file, since an object is written at once."""
    from job import storage

    assert options.out is not None
    if PurePosixPath(options.out.path).suffix.lower() in _NAMED:
        folder, _, name = str(options.out).rpartition("/")
    else:
        folder, name = str(options.out), f"{_stem(options.paths)}.{'csv' if options.form == 'csv' else 'jsonl'}"
    output = storage.open_output(folder or "/", settings.storage)
    with tempfile.TemporaryDirectory(prefix="finetune-result-") as temporary:
        path = Path(temporary) / "result"
        with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            file.writelines(f"{line}\n" for line in printer.header())
            file.writelines(f"{printer.line(answer)}\n" for answer in answers)
        output.write(name, path)


def _stem(paths: Sequence[str]) -> str:
    """Return the name of the result: that of the only path."""
    stem = PurePosixPath(paths[0].removeprefix("gs://")).name if len(paths) == 1 else ""
    return stem if stem.strip("-.") else "predictions"
