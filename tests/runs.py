"""Real runs on the CPU, as small as they can be: MobileNetV2 0.35 with random weights, 32 pixels, an epoch a stage."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from job import pipeline
from job.config.load import load_settings
from job.observability.progress import Event, Listener, Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

SMALL = (
    *("--model.weights", "none", "--model.alpha", "0.35", "--model.image_size", "32"),
    *("--feature_extraction.epochs", "1", "--fine_tuning.epochs", "1", "--export.verify_images", "2"),
    *("--report.enabled", "false", "--report.label_errors", "false"),
)

WITH_REPORT = ("--report.enabled", "true", "--report.label_errors", "true")
"""Both take as long as the rest of such a run."""


ONE_STAGE = ("--fine_tuning.epochs", "0")
"""For runs of which nothing else is tested than what comes before training, or after it: stage 2 takes the longest."""


class Recorder(Listener):
    """Remembers the events' names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def on_event(self, event: Event) -> None:
        """Remember one."""
        self.names.append(event.name)


class Facts(Listener):
    """Remembers the facts of the events of one name."""

    def __init__(self, name: str) -> None:
        self.seen: list[Mapping[str, object]] = []
        self.needs_each_step = name == "step.taken"
        self._name = name

    def on_event(self, event: Event) -> None:
        """Remember one."""
        if event.name == self._name:
            self.seen.append(event.facts)


class At(Listener):
    """Does something when an event comes."""

    def __init__(self, name: str, action: Callable[[], object]) -> None:
        self.needs_each_step = name == "step.taken"
        self._name = name
        self._action = action

    def on_event(self, event: Event) -> None:
        """Do it."""
        if event.name == self._name:
            self._action()


def run(*arguments: str | Path, listeners: Sequence[Listener] = ()) -> list[str]:
    """Run the job in this process, and return the names of its events."""
    recorder = Recorder()
    progress = Progress([recorder, *listeners])
    try:
        pipeline.run(load_settings([*SMALL, *map(str, arguments)], {}, required=("output.uri",)), progress)
    finally:
        progress.close()
    return recorder.names


def draw(path: Path, *, shade: int, seed: int, size: tuple[int, int] = (40, 30)) -> None:
    """Draw a picture of noise around a shade of gray; its ending says its format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(-50, 50, (*size, 3))
    Image.fromarray(np.clip(shade + noise, 0, 255).astype(np.uint8)).save(path)


def draw_two_classes(folder: Path) -> None:
    """Draw 16 pictures of each of two classes."""
    for n in range(16):
        draw(folder / "dark" / f"{n}.jpg", shade=90, seed=n)
        draw(folder / "light" / f"{n}.png", shade=160, seed=100 + n)


def only_run(output: Path) -> Path:
    """Return the one run under an output."""
    [folder] = (output / "runs").iterdir()
    return folder


def strict_json(data: bytes | str) -> object:
    """Parse JSON, refusing NaN and infinities."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return json.loads(data, parse_constant=refuse)


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return name -> (size, time of change) of every file."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


def saved(output: Path) -> list[dict[str, Any]]:
    """Return the one run's checkpoints, the newest first, as its index has them."""
    return [
        entry
        for index in output.glob("runs/*/checkpoints/index.json")
        for entry in json.loads(index.read_bytes())["checkpoints"]
    ]
