"""What `finetune validate` tells of an input: counts, formats, sizes, estimates and findings, as one document.

The document is published as JSON (docs/validate.schema.json is generated from it), and drawn as a table for people.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from job.config import ineffective
from job.data import findings
from job.data.estimates import DocumentPart, Estimates
from job.data.labels import SPLIT_NAMES
from job.data.split import counts
from job.data.survey import FORMATS

if TYPE_CHECKING:
    from job.config.settings import Settings
    from job.data.estimates import Memory, Seconds
    from job.data.prepare import Prepared
    from job.data.quarantine import Quarantined
    from job.data.survey import Survey
    from job.errors import FinetuneError

_SHOWN = 20


class ClassCounts(DocumentPart):
    """The images of one class."""

    label: str
    """The class."""
    train: int
    """Images to train on."""
    validation: int
    """Images to validate on."""
    test: int
    """Images to test on."""
    unusable: int
    """Images that cannot be used."""


class Groups(DocumentPart):
    """Images that belong together, and so are in one split."""

    count: int
    """Groups; an image without one is a group of its own, with its copies."""
    ungrouped: int
    """Images to which a table gives no group."""
    largest: int
    """Images of the largest group."""
    largest_example: str
    """One of them."""
    across_labels: int
    """Groups with images of several classes."""
    across_splits: int
    """Groups that the input itself puts into several splits."""


class Unusable(DocumentPart):
    """An image that cannot be used."""

    uri: str
    """Where it is."""
    label: str
    """Its class."""
    reason: str
    """The kind, as in data/quarantine.jsonl."""
    detail: str
    """A sentence, for people."""


class Damaged(DocumentPart):
    """An image that is used, but damaged."""

    uri: str
    """Where it is."""
    label: str
    """Its class."""
    detail: str
    """What libjpeg warns about."""


class Sides(DocumentPart):
    """Widths and heights of the images, in pixels: [width, height]."""

    smallest: tuple[int, int]
    """The image of the fewest pixels."""
    median: tuple[int, int]
    """The median of the widths, and of the heights."""
    largest: tuple[int, int]
    """The image of the most pixels."""


class Finding(DocumentPart):
    """Something that a person should look at before the training."""

    code: str
    """Its kind, stable for programs."""
    message: str
    """What was found, with numbers."""
    remedy: str
    """What to do."""


class Failure(DocumentPart):
    """Why a run with these settings would end."""

    exit_code: int
    """The exit code of the run, and of this command."""
    message: str
    """What is wrong."""
    remedy: str
    """What to do."""


class Validation(DocumentPart):
    """An input, as a run would see it."""

    uri: str
    """The input."""
    images: int
    """Images listed, without those that the listing alone shows to be unusable; 0 if the listing was refused."""
    bytes: int
    """Their stored size."""
    decoded: bool
    """Whether all images were decoded (--deep), or their headers read."""
    classes: list[ClassCounts]
    """The classes, in the order of labels.txt."""
    groups: Groups | None
    """Null if neither input.group_column nor input.group_pattern is set, or the images could not be split."""
    formats: dict[str, int]
    """Format -> images."""
    rotated: int
    """Images that EXIF says are to be rotated or mirrored: the run does so."""
    sides: Sides | None
    """Null if no image can be used."""
    unusable: dict[str, int]
    """Reason -> images that cannot be used."""
    unusable_images: list[Unusable]
    """The first 20 of them."""
    damaged: int | None
    """Images that are used although libjpeg warns about them (input.damaged: warn). Null unless all were decoded."""
    damaged_images: list[Damaged]
    """The first 20 of them."""
    estimates: Estimates | None
    """What the run will take; null if the listing was refused."""
    findings: list[Finding]
    """What may mislead, the gravest first."""
    without_effect: dict[str, str]
    """Setting that was set and has no effect -> the reason; a run warns of it, too."""
    failure: Failure | None
    """Null where a run would go on to train."""


def build(
    settings: Settings,
    survey: Survey,
    quarantined: list[Quarantined],
    prepared: Prepared | FinetuneError,
    estimates: Estimates,
    *,
    decoded: bool = False,
) -> Validation:
    """Return the document.

    Args:
        settings: of the run.
        survey: the headers of the listed images.
        quarantined: all unusable images, those found while listing as well.
        prepared: the usable images and their splits, or why there are none.
        estimates: what the run will take.
        decoded: whether every image was decoded.
    """
    manifest, usable = survey.manifest, survey.usable
    found = []
    train_images: list[int] = []
    failure = _failure_of_cache(estimates)
    if isinstance(prepared, Exception):
        failure = Failure(exit_code=prepared.exit_code, message=prepared.message, remedy=prepared.remedy)
    else:
        train_images = counts(prepared.usable, prepared.splits)[:, 0].tolist()
        found = findings.find(
            survey,
            prepared,
            validation_fraction=settings.input.validation_fraction,
            image_size=settings.model.image_size,
        )
    formats = Counter(FORMATS[number] for number in survey.format[usable].tolist())
    return Validation(
        uri=settings.input.uri,
        images=len(manifest),
        bytes=int(manifest.size.sum()),
        decoded=decoded,
        classes=_classes(survey, quarantined, prepared),
        groups=None if isinstance(prepared, Exception) else _groups(prepared),
        formats=dict(formats.most_common()),
        rotated=int((survey.orientation[usable] > 1).sum()),
        sides=_sides(survey),
        unusable=dict(Counter(image.reason for image in quarantined).most_common()),
        unusable_images=[
            Unusable(uri=image.uri, label=image.label, reason=image.reason, detail=image.detail)
            for image in quarantined[:_SHOWN]
        ],
        damaged=int(survey.damaged.sum()) if decoded else None,
        damaged_images=[
            Damaged(uri=manifest.uri(row), label=manifest.labels[manifest.label[row]], detail=survey.warnings[row])
            for row in np.flatnonzero(survey.damaged)[:_SHOWN].tolist()
        ],
        estimates=estimates,
        findings=[Finding(code=one.code, message=one.message, remedy=one.remedy) for one in found],
        without_effect=ineffective.find(settings, train_images),
        failure=failure,
    )


def refused(uri: str, error: FinetuneError) -> Validation:
    """Return the document of an input of which nothing could be judged.

    Args:
        uri: of the input.
        error: why.
    """
    return Validation(
        uri=uri,
        images=0,
        bytes=0,
        decoded=False,
        classes=[],
        groups=None,
        formats={},
        rotated=0,
        sides=None,
        unusable={},
        unusable_images=[],
        damaged=None,
        damaged_images=[],
        estimates=None,
        findings=[],
        without_effect={},
        failure=Failure(exit_code=error.exit_code, message=error.message, remedy=error.remedy),
    )


def _classes(survey: Survey, quarantined: list[Quarantined], prepared: Prepared | FinetuneError) -> list[ClassCounts]:
    manifest = survey.manifest
    bad = Counter(image.label for image in quarantined)
    if isinstance(prepared, Exception):  # not split: what the input itself names
        named = np.maximum(manifest.split, 1)
        numbers = counts(manifest.take(np.flatnonzero(survey.usable)), named[survey.usable])
    else:
        numbers = counts(prepared.usable, prepared.splits)
    rows = dict(zip(manifest.labels, numbers.tolist(), strict=True))
    rows |= {label: [0] * len(SPLIT_NAMES) for label in bad if label not in rows}
    return [
        ClassCounts(label=label, train=row[0], validation=row[1], test=row[2], unusable=bad[label])
        for label, row in sorted(rows.items())
    ]


def _groups(prepared: Prepared) -> Groups | None:
    keys, usable = prepared.group_keys, prepared.usable
    if keys is None:
        return None
    _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    largest = int(sizes.argmax())
    return Groups(
        count=len(sizes),
        ungrouped=0 if usable.group is None else int((usable.group == 0).sum()),
        largest=int(sizes[largest]),
        largest_example=usable.uri(int(np.flatnonzero(group == largest)[0])),
        across_labels=len(findings.spread(group, usable.label)),
        across_splits=len(findings.spread(group, prepared.splits)),
    )


def _sides(survey: Survey) -> Sides | None:
    width, height = survey.width[survey.usable], survey.height[survey.usable]
    if not len(width):
        return None
    pixels = width.astype(np.int64) * height
    smallest, largest = int(pixels.argmin()), int(pixels.argmax())
    return Sides(
        smallest=(int(width[smallest]), int(height[smallest])),
        median=(int(np.median(width)), int(np.median(height))),
        largest=(int(width[largest]), int(height[largest])),
    )


def _failure_of_cache(estimates: Estimates) -> Failure | None:
    if estimates.fits_cache:
        return None
    return Failure(
        exit_code=3,
        message=f"the cache needs {estimates.cache_needed_bytes:,} bytes, and {estimates.cache_available_bytes:,} are "
        "available on this machine",
        remedy="set cache.dir to a larger disk, or raise cache.max_bytes",
    )


def schema() -> dict[str, Any]:
    """Return the JSON Schema of the document."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Validation.model_json_schema()}


def table(document: Validation) -> str:
    """Return the document as text for people, below 100 columns but for long names and messages."""
    lines = [
        f"{document.uri}: {document.images:,} images, {_size(document.bytes)}, {len(document.classes)} classes",
        "",
    ]
    lines += _class_table(document.classes)
    lines.append("")
    if groups := document.groups:
        alone = f", {groups.ungrouped:,} images without one are groups of their own" if groups.ungrouped else ""
        lines.append(f"groups    {groups.count:,}{alone}; {groups.across_labels:,} with several classes")
        lines.append(f"          the largest has {groups.largest:,} images, such as {groups.largest_example}")
    if document.sides:
        formats = ", ".join(f"{name} {number:,}" for name, number in document.formats.items())
        sides = [f"{width} x {height}" for width, height in (document.sides.smallest, document.sides.median)]
        largest = " x ".join(map(str, document.sides.largest))
        rotated = f"; {document.rotated:,} rotated by EXIF" if document.rotated else ""
        lines.append(f"formats   {formats}{rotated}")
        lines.append(f"pixels    {sides[0]} to {largest}, median {sides[1]}")
    estimates = document.estimates
    assert estimates is not None, "there is no table of an input that is refused"
    lines.append(f"download  {_size(estimates.download_bytes)}, once")
    lines.append(
        f"disk      {_size(estimates.cache_needed_bytes)} needed, {_size(estimates.cache_pixels_bytes)} more to keep "
        f"decoded pixels; {_size(estimates.cache_available_bytes)} available here"
    )
    lines += _memory_lines(estimates.memory)
    if seconds := estimates.seconds:
        lines += _time_lines(seconds)
    if document.unusable:
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in document.unusable.items())
        lines += ["", f"cannot be used: {reasons}"]
        lines += [f"  {image.uri}: {image.detail}" for image in document.unusable_images[:5]]
        if (more := sum(document.unusable.values()) - 5) > 0:
            lines.append(f"  and {more:,} more")
    if document.findings:
        lines += ["", "look at:"]
        for finding in document.findings:
            lines += [f"  {finding.code}: {finding.message}", f"    -> {finding.remedy}"]
    if document.without_effect:
        lines += ["", "settings without effect:"]
        lines += [f"  {name}: {reason}" for name, reason in document.without_effect.items()]
    if document.failure is None:
        lines += ["", "a run can train on these data" + (", but look at what is above" * bool(document.findings))]
    return "\n".join(lines)


def _memory_lines(memory: Memory) -> list[str]:
    what = "" if memory.measured else " (estimated for the CPU)"
    training, verification = _size(memory.training_bytes), _size(memory.verification_bytes)
    lines = [
        f"memory    {_size(memory.total)}{what}: {training} to train, {verification} to check the export,",
        f"          {_size(memory.manifest_bytes)} for the list of images",
    ]
    if memory.gpu_bytes is not None:
        lines.append(f"          {_size(memory.gpu_bytes)} of the GPU")
    return lines


def _time_lines(seconds: Seconds) -> list[str]:
    parts = {
        "start": seconds.startup,
        "pass over the data": seconds.ingest,
        "stage 1": seconds.feature_extraction,
        "stage 2": seconds.fine_tuning,
        "evaluation": seconds.evaluation,
    }
    return [
        f"time      {_duration(seconds.total)} on {seconds.device}:",
        "          " + ", ".join(f"{name} {_duration(value)}" for name, value in parts.items()),
    ]


def _duration(seconds: float) -> str:
    """Return a duration for people."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, hours = round(seconds / 60), round(seconds / 60) // 60
    return f"{hours} h {minutes % 60} min" if hours else f"{minutes} min"


def _class_table(classes: list[ClassCounts]) -> list[str]:
    """Return a line for each class, of many classes the smallest and the largest, and the sums."""
    size = {row.label: row.train + row.validation + row.test for row in classes}
    shown, hidden = classes, 0
    if len(classes) > 2 * _SHOWN:
        by_size = sorted(classes, key=lambda row: size[row.label])
        shown, hidden = by_size[:_SHOWN] + by_size[-_SHOWN:], len(classes) - 2 * _SHOWN
    columns = ("train", "validation", "test", "unusable")
    width = min(60, max([len(row.label) for row in shown] + [len("in all")]))

    def line(label: str, numbers: list[int]) -> str:
        cells = "".join(f"{number:>{max(len(name), 7) + 2},}" for name, number in zip(columns, numbers, strict=True))
        return f"{label:{width}}{cells}"

    lines = [f"{'class':{width}}" + "".join(f"{name:>{max(len(name), 7) + 2}}" for name in columns)]
    for position, row in enumerate(shown):
        if hidden and position == _SHOWN:
            lines.append(f"… {hidden:,} classes of sizes between these …")
        lines.append(line(row.label, [getattr(row, name) for name in columns]))
    lines.append(line("in all", [sum(getattr(row, name) for row in classes) for name in columns]))
    return lines


def _size(count: int) -> str:
    """Return a number of bytes for people."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
