"""``finetune validate``: judge an input before a GPU is paid for."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from job.commands.command import Command, check_machine, showing, write
from job.commands.manual import SETTINGS_USAGE, Manual
from job.config.load import load_settings
from job.errors import DataError, SettingsError
from job.runtime import device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.data.prepare import Prepared
    from job.observability.progress import Progress

MANUAL = Manual(
    summary="List and judge the images of an input as a run would, before a GPU is paid for.",
    usage=("--input.uri URI [--deep] [--json] [--sheet FILE.jpg]", SETTINGS_USAGE),
    description="""\
It takes the settings of finetune run, of which those of the input matter; --output.uri is not needed. It reads the
header of each image and prints a table to stdout: images by class and split, formats, sizes, the disk that the run
needs, what cannot be used, and what may mislead the training. Nothing is written to a bucket. How long it takes depends
on the store: the processor is busy for half a millisecond an image.
""",
    flags={
        "--deep": "download and decode every image, as a run does; needs TensorFlow",
        "--json": "print one JSON document instead of the table; its schema is docs/validate.schema.json",
        "--sheet FILE.jpg": "draw up to eight images of each class into one picture",
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
    settings=("input", "storage", "cache"),
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
    from job import pipeline, storage
    from job.data import validation
    from job.data.prepare import prepare
    from job.data.survey import survey

    with showing(progress):
        open_store = storage.opener(settings.storage)
        listing = pipeline.list_images(settings, open_store, progress)
        found = survey(listing.listed, open_store, max_pixels=settings.input.max_pixels, progress=progress)
        if options.deep:
            device.prepare()
            from job.data.deep_survey import decode_all

            decode_all(found, open_store, image_size=settings.model.image_size, progress=progress)
        prepared: Prepared | DataError
        try:
            prepared = prepare(
                listing.listed, listing.quarantined, found, settings.input, progress, hashes=found.hashes
            )
        except DataError as error:
            prepared = error
        document = validation.build(
            settings, found, listing.quarantined + found.quarantined, prepared, decoded=options.deep
        )
        if options.sheet is not None:
            from job.data.contact_sheet import draw

            draw(found, open_store, options.sheet)
    write(document.model_dump_json(indent=2) if options.as_json else validation.table(document))
    if isinstance(prepared, DataError):
        raise prepared
    if document.failure is not None:
        raise DataError(document.failure.message, remedy=document.failure.remedy)
    return 0
