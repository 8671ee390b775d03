"""The benchmark of the phases: what it takes from a run, and what it measures without one."""

from __future__ import annotations

from typing import Any

import phases
import pytest

from job.runtime.timing import Timing


def epoch(stage: str, rate: float, seconds: float) -> dict[str, str]:
    """Return a row of history.csv."""
    return {"stage": stage, "images_per_second": str(rate), "seconds": str(seconds)}


@pytest.fixture
def metrics() -> dict[str, Any]:
    """Return what metrics.json has of a run of 80 and 20 images that took a second for each of its phases."""
    timing = {**dict.fromkeys(Timing().document(), 1.0), "total": 20.0}
    labels = {"cats": {"train": 50, "validation": 10, "test": 0}, "dogs": {"train": 30, "validation": 10, "test": 0}}
    return {"timing": timing, "data": {"labels": labels}}


def test_a_run(metrics: dict[str, Any]) -> None:
    """Costs are per image of what a phase reads; the first epoch of a stage, which compiles, does not count."""
    history = [
        epoch("feature_extraction", 1, 999),
        epoch("feature_extraction", 800, 0.5),
        epoch("fine_tuning", 1, 999),
        epoch("fine_tuning", 8, 12),
    ]

    rows = phases.run_rows(metrics, history, process=20.0)

    measured = {str(name).split(": ")[0]: str(value).split()[0] for name, value, _ in rows}
    assert "10" == measured["the pass over the data (download, decode, features at once)"]
    assert ["1.25", "20"] == [measured[f"an epoch of stage 1, {what}"] for what in ("training", "validation")]
    assert ["125", "100"] == [measured[f"an epoch of stage 2, {what}"] for what in ("training", "validation")]
    assert "6.25" == measured["the search for label errors"]
    assert {"1"} == {measured[f"once for a run, {part}"] for part in phases.FIXED}
    assert f"{20 - (len(metrics['timing']) - 1)}" == measured["once for a run, publication and everything else"]


def test_parts_are_those_of_a_run() -> None:
    """Each part that is named here is one of metrics.json."""
    assert set(phases.FIXED) < set(Timing().document())


def test_a_list_that_is_made_up() -> None:
    """Without any pixels there is a cost of each thing that is done for an image, and the bytes that it takes."""
    rows = phases.without_pixels(1_000)

    bytes_an_image = {str(name).split(", ")[-1]: int(str(value)) for name, value, _ in rows if "bytes" in str(name)}
    assert all(float(str(value)) > 0 for _, value, _ in rows)
    # the pass adds a byte (usable) and a hash of eight
    assert 9 == bytes_an_image["after the pass"] - bytes_an_image["as listed"]
