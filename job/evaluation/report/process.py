"""The run itself: its name, its epochs, time and cost, settings and provenance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from job.config.settings import STAGES, setting_fields
from job.evaluation.report import values
from job.evaluation.report.files import at, flattened
from job.evaluation.report.values import Value, count, is_number, missing, share

if TYPE_CHECKING:
    from collections.abc import Iterator

    from job.config.settings import ReportSettings
    from job.evaluation.report.files import Document, Files


class Setting(NamedTuple):
    """A setting that differs from its default."""

    name: str
    value: str
    origin: str


def title(config: Document) -> tuple[str, str]:
    """Return the run's ID, and where its images came from."""
    source = at(config, "settings", "input", "uri")
    return values.name(config.get("run_id", "a run")), values.name(source or "the built-in demo pictures", 200)


def phases(metrics: Document) -> list[tuple[str, str, float]]:
    """Return the parts of the run that took time: name, duration, fraction of the longest."""
    timing = {name: s for name, s in (at(metrics, "timing") or {}).items() if is_number(s)}
    seconds = {name: s for name, s in timing.items() if name not in ("total", "starts", "gpus") and s > 0}
    if "total" in timing:
        seconds["other"] = max(0.0, timing["total"] - sum(seconds.values()))
    longest = max(seconds.values(), default=0.0) or 1.0
    return [(values.name(name.replace("_", " ")), values.duration(s), s / longest) for name, s in seconds.items()]


def timing(metrics: Document, settings: ReportSettings) -> list[tuple[str, Value]]:
    """Return the time and the cost of the run, each number with its name."""
    total, starts = at(metrics, "timing", "total"), at(metrics, "timing", "starts")
    found = [
        ("time over all starts", Value(values.duration(total), total) if is_number(total) else missing(None)),
        ("restarts", count(starts - 1 if is_number(starts) else None)),
    ]
    for stage in STAGES:
        title_ = stage.replace("_", " ")
        skipped = None if at(metrics, "stages", stage) else "the stage was skipped"
        rate, wait = (at(metrics, "stages", stage, name) for name in ("images_per_second", "input_wait"))
        speed = Value(f"{rate:,.0f} images/s", rate) if is_number(rate) else missing(skipped)
        found += [(f"{title_}, speed", speed), (f"{title_}, waiting for data", share(wait, reason=skipped))]
    if (price := settings.gpu_price_per_hour) is not None:
        gpus = at(metrics, "timing", "gpus")
        several = is_number(gpus) and gpus > 1
        found.append((f"cost of {gpus} GPUs" if several else "cost of the GPU", _cost(metrics, total, price)))
    return found


def _cost(metrics: Document, total: Any, price: float) -> Value:
    """Return the price of the time during which the run held its GPUs, as many as in its last start."""
    if at(metrics, "memory", "device_peak_bytes") is None:
        return missing("the run used no GPU")
    if not is_number(total):
        return missing(None)
    gpus = at(metrics, "timing", "gpus")
    cost = total / 3600 * price * (gpus if is_number(gpus) else 1)
    return Value(f"{cost:,.2f}", cost, f"{values.duration(total)} at {price:g} an hour")


def changed_settings(config: Document) -> list[Setting]:
    """Return the settings that differ from their defaults, each with its source."""
    current, fields = at(config, "settings") or {}, setting_fields()
    found = []
    for name, origin in (at(config, "origins") or {}).items():
        value = at(current, *name.split("."))
        default = fields[name].default if name in fields else None
        if value != (list(default) if isinstance(default, tuple) else default):
            found.append(Setting(values.name(name), values.plain(value), values.name(origin)))
    return found


def provenance(files: Files) -> list[tuple[str, str]]:
    """Return what made the model, as (name, value): the data's hash, and what manifest.json says; no unknown values."""
    made_by = at(files.document("manifest.json"), "provenance")
    if not made_by:
        return []
    found = {"data": at(files.document("config.json"), "identity", "data")} | dict(flattened(made_by))
    return [(values.name(name), values.plain(value)) for name, value in found.items() if value is not None]


def history(files: Files) -> Iterator[dict[str, Any]]:
    """Yield the epochs: numbers, NaN where there is none, and the stage."""
    for row in files.rows("metrics/history.csv"):
        yield {name: text if name == "stage" else _number(text) for name, text in row.items()}


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return float("nan")
