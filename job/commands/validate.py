"""``finetune validate``: judge an input before a GPU is paid for."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from job.commands.command import Command, check_machine, check_tensorflow, showing, write
from job.commands.manual import SETTINGS_USAGE, Manual
from job.config.load import load_settings
from job.errors import DataError, FinetuneError, SettingsError
from job.runtime import device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.data.prepare import Prepared
    from job.data.survey import Survey
    from job.data.validation import Validation
    from job.observability.progress import Progress
    from job.storage import OpenStore
    from job.trials.rehearsal import Decoded

MANUAL = Manual(
    summary="List and judge the images of an input as a run would, before a GPU is paid for.",
    usage=("--input.uri URI [--deep] [--json] [--sheet FILE.jpg]", SETTINGS_USAGE),
    description="""\
It takes the settings of finetune run, of which those of the input matter; --output.uri is not needed. It reads the
header of each image and prints a table to stdout: images by class and split, formats, sizes, the disk and memory that
the run needs, what cannot be used, and what may mislead the training. Nothing is written to a bucket. How long it takes
depends on the store: the processor is busy for half a millisecond an image. With --deep it takes as long as the run's
pass over the data, and half a minute to a minute more, in which a few steps of the run are measured.
""",
    flags={
        "--deep": "download and decode every image, and estimate the time of a run on this machine; needs TensorFlow",
        "--json": "print one JSON document, also of an input that is refused; its schema is docs/validate.schema.json",
        "--sheet FILE.jpg": "draw up to eight images of each class into one picture; with augmentation also "
        "FILE-augmented.jpg, images as they are trained on, which needs TensorFlow",
    },
    examples={
        "--input.uri gs://my-bucket/flowers": "counts and findings",
        "--input.uri ./flowers --deep --sheet flowers.jpg": "every image, and a picture to look at",
    },
    exit_codes={
        0: "a run can train on these data; findings are printed",
        2: "a setting is wrong",
        3: "a run would end with the same error",
        5: "no permission",
        20: "the store did not respond",
    },
    settings=("input", "storage", "cache", "augmentation"),
)


class Options(NamedTuple):
    """The flags that are no settings.

    Attributes:
        deep: decode every image.
        as_json: print JSON.
        sheet: where the contact sheet is written; None: none.
    """

    deep: bool = False
    as_json: bool = False
    sheet: Path | None = None


def parse(arguments: Sequence[str]) -> Command:
    """Load the settings.

    Raises:
        SettingsError: they are invalid.
    """
    options, rest = _options(arguments)
    settings = load_settings(rest, required=("input.uri",)).settings
    if options.deep:
        check_machine(settings)
    elif options.sheet and settings.augmentation.enabled:
        check_tensorflow()
    return Command(partial(_execute, settings, options), settings.log)


def _options(arguments: Sequence[str]) -> tuple[Options, list[str]]:
    """Return the command's own flags, and the other arguments."""
    options, rest, remaining = Options(), [], list(arguments)
    while remaining:
        name, equals, value = remaining.pop(0).partition("=")
        if name == "--deep" and not equals:
            options = options._replace(deep=True)
        elif name == "--json" and not equals:
            options = options._replace(as_json=True)
        elif name == "--sheet":
            value = value or (remaining.pop(0) if remaining and not remaining[0].startswith("-") else "")
            if Path(value).suffix.lower() not in (".jpg", ".jpeg") or not Path(value).absolute().parent.is_dir():
                raise SettingsError(
                    f"--sheet {value!r}: expected the name of a JPEG file in an existing folder",
                    remedy="as in --sheet images.jpg",
                )
            options = options._replace(sheet=Path(value))
        else:
            rest.append(f"{name}{equals}{value}")
    return options, rest


def _execute(settings: Settings, options: Options, progress: Progress) -> int:
    from job.data import validation

    try:
        with showing(progress):
            document = _judge(settings, options, progress)
    except FinetuneError as error:  # nothing could be judged
        if options.as_json:
            write(validation.refused(settings.input.uri, error).model_dump_json(indent=2))
        raise
    write(document.model_dump_json(indent=2) if options.as_json else validation.table(document))
    if document.failure is not None:
        raise DataError(document.failure.message, remedy=document.failure.remedy)
    return 0


def _judge(settings: Settings, options: Options, progress: Progress) -> Validation:
    """Return the document; draw the contact sheet.

    Raises:
        FinetuneError: the input cannot be listed or read.
    """
    from job import storage
    from job.data import estimates, validation
    from job.data.prepare import prepare
    from job.data.survey import survey
    from job.phases.data import list_images

    open_store = storage.opener(settings.storage)
    listing = list_images(settings, open_store, progress)
    found = survey(listing.listed, open_store, max_pixels=settings.input.max_pixels, progress=progress)
    decoded = _decode(settings, found, open_store, progress) if options.deep else None
    estimated = estimates.estimate(settings, listing.listed)
    prepared: Prepared | DataError
    try:
        prepared = prepare(listing.listed, listing.quarantined, found, settings.input, progress, hashes=found.hashes)
    except DataError as error:
        prepared = error
    else:
        if decoded and estimated.fits_cache:
            from job.trials.rehearsal import rehearse

            estimated = rehearse(settings, prepared, open_store, decoded, estimated, progress)
    if options.sheet is not None:
        from job.data.contact_sheet import draw

        draw(found, open_store, options.sheet)
        if settings.augmentation.enabled and found.usable.any():
            _draw_augmented(settings, found, open_store, options.sheet)
    quarantined = listing.quarantined + found.quarantined
    return validation.build(settings, found, quarantined, prepared, estimated, decoded=options.deep)


def _draw_augmented(settings: Settings, found: Survey, open_store: OpenStore, path: Path) -> None:
    """Draw a few images as the first epochs train on them, beside the contact sheet. TensorFlow is imported for it."""
    device.prepare()
    from job.data import contact_sheet
    from job.observability import log
    from job.training.augmentation import examples_of

    rows, pixels = contact_sheet.select(found, open_store, settings.model.image_size)
    versions = examples_of(settings, rows, pixels, contact_sheet.VERSIONS)
    beside = path.with_name(f"{path.stem}-augmented{path.suffix}")
    contact_sheet.augmented_sheet(versions).save(beside, "JPEG", quality=85)
    log.get().info("sheet.written", path=str(beside), images=len(rows))


def _decode(settings: Settings, found: Survey, open_store: OpenStore, progress: Progress) -> Decoded:
    """Decode every image on this machine, also where the run will need a GPU that is not here."""
    started = time.monotonic()
    device.prepare()
    anywhere = settings.device.model_copy(update={"require_gpu": False})
    machine = device.configure(settings.model_copy(update={"device": anywhere}), single=True)
    from job.data.deep_survey import decode_all
    from job.trials.rehearsal import Decoded

    import_seconds = time.monotonic() - started
    decoding = decode_all(
        found,
        open_store,
        image_size=settings.model.image_size,
        refuse_damaged=settings.input.damaged == "quarantine",
        progress=progress,
    )
    return Decoded(machine=machine, decoding=decoding, import_seconds=import_seconds)
