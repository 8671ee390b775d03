"""Renders the report: files of the run in, the page and pictures of its charts out. The same input, the same bytes."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from job.config import environment
from job.config.settings import ReportSettings
from job.errors import DataError
from job.evaluation.report import data, outcome, performance, process, values
from job.evaluation.report.files import Files, at

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from markupsafe import Markup

    from job.evaluation.report.charts import Drawing
    from job.evaluation.report.files import Document, Read

PAGE: Final = "report/index.html"

MAX_BYTES: Final = 3_000_000
"""Of the page."""

_JPEG = re.compile(r"[A-Za-z0-9+/]+={0,2}")

_FOLDER = Path(__file__).parent


class Picture(NamedTuple):
    """A picture of the gallery.

    Attributes:
        image: base64 of a JPEG.
        heatmap: likewise, with what the model looked at; empty: none.
        truth: the label that it was given.
        answer: the model's label.
        probability: of the answer; of a suspected label error, of the given label.
        uri: of the image.
        split: that it is in.
    """

    image: str
    heatmap: str
    truth: str
    answer: str
    probability: values.Value
    uri: str
    split: str


class Gallery(NamedTuple):
    """The pictures on the page.

    Attributes:
        mistakes: the most confident ones first.
        label_errors: images whose label is probably wrong.
        note: that fewer are shown than there are, and why; empty: all are.
        augmented: base64 of a JPEG, training images as they are and with augmentation; empty: none.
    """

    mistakes: list[Picture]
    label_errors: list[Picture]
    note: str
    augmented: str


def render(read: Read, settings: ReportSettings | None = None) -> dict[str, bytes]:
    """Return the page and the pictures of its charts: name in the run -> content.

    Args:
        read: returns a file of the run by its name; None if it is absent, which makes a shorter page.
        settings: None: those of the run.

    Raises:
        errors.DataError: a file of the run is unreadable, or has another form than expected.
    """
    prepare_matplotlib()
    try:
        return _render(read, settings)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"the files of the run are not those that a report is made of: {type(error).__name__}: {error}",
            remedy="make the report with the version of finetune that trained the run",
        ) from error


def prepare_matplotlib() -> None:
    """Choose its folder, before it is imported: else it writes to the home directory, read-only in a container."""
    cache = Path(tempfile.gettempdir(), f"finetune-matplotlib-{os.getuid()}")
    environment.set_default("MPLCONFIGDIR", str(cache))


def recorded_settings(read: Read) -> ReportSettings:
    """Return the settings of the report with which the run was started; the defaults for an older run."""
    return ReportSettings.model_validate(at(Files(read).document("config.json"), "settings", "report") or {})


def _render(read: Read, settings: ReportSettings | None) -> dict[str, bytes]:
    from job.evaluation.report import charts  # matplotlib takes a second to import

    files = Files(read)
    config, metrics = files.document("config.json"), files.document("metrics/metrics.json")
    settings = settings or recorded_settings(read)
    with charts.style():
        drawings = _drawings(files, metrics)
        elements = {drawing.key: charts.page_element(drawing) for drawing in drawings.page}
        pictures = {f"report/{name}.png": charts.png(drawn) for name, drawn in drawings.pictures.items()}
    context = _context(files, config, metrics, settings) | {"charts": elements}
    return {PAGE: _fitting_page(context, files.document("report/gallery.json"), settings.max_images), **pictures}


class _Drawings(NamedTuple):
    """The charts for which the run has data.

    Attributes:
        page: those of the page.
        pictures: name of a PNG file -> those in it, side by side.
    """

    page: list[Drawing]
    pictures: dict[str, list[Drawing]]


def _drawings(files: Files, metrics: Document) -> _Drawings:
    from job.evaluation.report import drawings

    page, pictures = [], {}
    if history := list(process.history(files)):
        kept_epoch = at(metrics, "kept", "epoch_total")
        pictures["curves"] = [
            drawings.curve(history, "loss", "Loss", kept_epoch),
            drawings.curve(history, "accuracy", "Accuracy", kept_epoch),
        ]
        page += pictures["curves"]
        if drawings.has_schedule(history):
            page.append(drawings.learning_rate(history))
    if confusion := at(metrics, "validation", "confusion"):
        labels, counts = confusion["labels"], confusion["counts"]
        page.append(drawings.confusion(labels, counts, drawings.drawable))
        pictures["confusion"] = [drawings.confusion(labels, counts, drawings.numbered(labels))]
    curves, by_label = (
        at(files.document("metrics/curves.json"), "validation"),
        at(metrics, "validation", "labels") or {},
    )
    if at(curves, "roc"):
        page += _rates(curves, by_label, drawings.drawable)
        pictures["roc"] = _rates(curves, by_label, drawings.numbered(list(by_label)))
    if bins := at(curves, "calibration", "images"):
        columns = (curves["calibration"][name] for name in ("confidence", "accuracy"))
        rows = [drawings.Bin(*row) for row in zip(*columns, bins, strict=True)]
        pictures["calibration"] = [drawings.calibration(rows)]
        page += pictures["calibration"]
    return _Drawings(page, pictures)


def _rates(curves: Document, by_label: Document, name: Callable[[str], str]) -> list[Drawing]:
    """Return the ROC and the precision-recall curves; of two labels those of the second: the others say the same."""
    from job.evaluation.report import drawings

    found = []
    for key, title, x, y in (
        ("roc", "ROC", "false_positive_rate", "true_positive_rate"),
        ("pr", "Precision and recall", "recall", "precision"),
    ):
        lines = [
            drawings.Line(label, curve[x], curve[y], at(by_label, label, f"{key}_auc"))
            for label, curve in (at(curves, key) or {}).items()
        ]
        shown = lines[1:] if len(by_label) == len(lines) == 2 else lines
        names = (x.replace("_", " "), y.replace("_", " "))
        found.append(drawings.lines(shown, name, names, key=key, title=title))
    return found


def _context(files: Files, config: Document, metrics: Document, settings: ReportSettings) -> dict[str, Any]:
    """Return what the template shows, without charts and pictures."""
    run_id, source = process.title(config)
    return {
        "run_id": run_id,
        "source": source,
        "outcome": outcome.outcome(metrics, config),
        "tiles": outcome.tiles(metrics),
        "scores": performance.scores(metrics),
        "remarks": performance.remarks(metrics),
        "ablation": performance.ablation(metrics),
        "confusion_labels": len(at(metrics, "validation", "confusion", "labels") or []),
        "confused": performance.confused(metrics),
        "labels": performance.labels(metrics),
        "splits": data.splits(metrics, files),
        "quarantine": data.quarantine(files),
        "duplicates": data.duplicates(files),
        "suspects": data.label_errors(files),
        "phases": process.phases(metrics),
        "timing": process.timing(metrics, settings),
        "settings": process.changed_settings(config),
        "provenance": process.provenance(files),
    }


def _sections(context: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the sections for which the run has data: anchor and heading."""
    charts, gallery = context["charts"], context["gallery"]
    data = ("splits", "rows"), ("quarantine", "total"), ("duplicates", "total"), ("suspects", "total")
    found = {
        ("metrics", "Metrics"): context["scores"].columns,
        ("training", "Training"): "curve-loss" in charts,
        ("confusion", "Confusion"): "confusion" in charts or context["confused"],
        ("curves", "ROC, precision and recall, calibration"): {"roc", "calibration"} & charts.keys(),
        ("labels", "Labels"): context["labels"].rows,
        ("mistakes", "Mistakes and suspected label errors"): gallery.mistakes or gallery.label_errors,
        ("augmentation", "Augmentation"): gallery.augmented,
        ("data", "Data"): any(getattr(context[name], field) for name, field in data),
        ("timing", "Time"): context["phases"],
        ("settings", "Settings that differ from the defaults"): True,
        ("provenance", "Provenance"): context["provenance"],
    }
    return [section for section, has_data in found.items() if has_data]


def _fitting_page(context: dict[str, Any], gallery: Document, max_images: int) -> bytes:
    """Return the page, with as many pictures as fit into it."""
    limit = max_images
    while True:
        shown = context | {"gallery": _gallery(gallery, limit, is_full=limit < max_images)}
        page = _page(shown | {"sections": _sections(shown)})
        if len(page) <= MAX_BYTES or limit == 0:
            return page
        limit //= 2


def _gallery(document: Document, limit: int, *, is_full: bool) -> Gallery:
    mistakes, label_errors = (at(document, name) or [] for name in ("mistakes", "label_errors"))
    available, shown = len(mistakes) + len(label_errors), min(len(mistakes), limit) + min(len(label_errors), limit)
    reason = "the page is limited to 3 MB" if is_full else "report.max_images limits them"
    note = f"{shown} of {available} pictures are shown: {reason}." if shown < available else ""
    augmented = _jpeg(at(document, "augmented", "picture")) if limit else ""
    pictures = _pictures(mistakes[:limit], "prediction"), _pictures(label_errors[:limit], "suggested")
    return Gallery(*pictures, note, augmented)


def _pictures(rows: Sequence[Document], answer: str) -> list[Picture]:
    return [
        Picture(
            image=_jpeg(row.get("picture")),
            heatmap=_jpeg(row.get("heatmap")),
            truth=values.name(row.get("label")),
            answer=values.name(row.get(answer)),
            probability=values.share(row.get("probability")),
            uri=values.name(row.get("uri"), 200),
            split=values.name(row.get("split")),
        )
        for row in rows
    ]


def _jpeg(text: object) -> str:
    """Return the base64 of a picture; empty if there is none."""
    return text if isinstance(text, str) and _JPEG.fullmatch(text) else ""


def _page(context: dict[str, Any]) -> bytes:
    import jinja2
    from markupsafe import Markup

    style, script = (_FOLDER.joinpath(name).read_text("utf-8") for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    loader = jinja2.FileSystemLoader(_FOLDER)
    # note: only what this package itself wrote is marked as safe
    trusted: dict[str, Markup] = {"style": Markup(style), "script": Markup(script)}  # noqa: S704
    templates = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = templates.get_template("page.html.j2")
    return template.render(**context, **trusted, script_digest=digest).encode()
