"""The benchmark against PyTorch: what it takes from each program's history, and the section that it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import harness
import peers
import pytest

if TYPE_CHECKING:
    from pathlib import Path

RUN = harness.Run(seconds=60.0, cpu_seconds=100.0, peak_bytes=0, output="")
BUILD = {"torch": "2.0", "torchvision": "0.1", "cpu_capability": "AVX2", "onednn": True, "threads": 2}


def epoch(stage: str, seconds: float, **fields: float) -> dict[str, Any]:
    """Return a row of a history."""
    return {"stage": stage, "seconds": seconds, "val_accuracy": 0.5, **fields}


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({"images_per_second": 48.0}, 48.0),  # the job's
        ({"train_seconds": 5.0}, 20.0),  # PyTorch's
        ({}, None),  # plain Keras's has no time of the steps alone
    ],
)
def test_figures_of_each_program(fields: dict[str, float], steps: float | None) -> None:
    """Rates are those of stage 2 without its first epoch, which compiles; of 100 images here."""
    slow = {name: value * 9 for name, value in fields.items()}
    history = [epoch("feature_extraction", 1), epoch("fine_tuning", 90, **slow), epoch("fine_tuning", 10, **fields)]

    measured = peers.measure(history, 100, RUN)

    assert peers.Measured(steps=steps, epoch=10.0, process=60.0, processor=100.0, accuracy=0.5) == measured


def test_only_epoch_counts() -> None:
    """A single epoch of stage 2 is measured, although it compiles."""
    assert 4.0 == peers.measure([epoch("fine_tuning", 25)], 100, RUN).epoch


def test_section_ends_in_the_ratio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The last line has the build of PyTorch and, at its end, how many times more images a second the job trains on."""
    results = tmp_path / "RESULTS.md"
    monkeypatch.setattr(peers.harness, "RESULTS", results)
    monkeypatch.setitem(harness.record.__kwdefaults__, "path", results)
    job = peers.Measured(steps=90.0, epoch=80.0, process=50.0, processor=90.0, accuracy=0.9)
    torch = peers.Measured(steps=60.0, epoch=40.0, process=100.0, processor=180.0, accuracy=0.8)
    keras = torch._replace(steps=None)

    peers.record([3, 3], BUILD, {peers.JOB: [job], peers.TORCH: [torch], peers.KERAS: [keras]})

    lines = results.read_text().splitlines()
    steps, *_ = (line for line in lines if line.startswith("| stage 2: images/s of its steps"))
    assert "torch 2.0, torchvision 0.1, AVX2, oneDNN on, channels_last, threads: 2" in lines[-1]
    assert lines[-1].endswith(" 1.5x")
    assert "1.5 (1.5 to 1.5, n = 1)x |  |  |" in steps, "plain Keras has no figure here"
