"""The command `finetune lr-find`; tests/pipeline/test_training_options.py measures with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from job.commands import lr_find
from job.commands.lr_find import _document, _table
from job.errors import AccessError, SettingsError
from job.observability.progress import Progress
from job.runtime.device import Device
from job.training.range_test import Curve

if TYPE_CHECKING:
    from pathlib import Path

FALLING = Curve("feature_extraction", 1e-4, [1e-7 * 1.5**n for n in range(40)], [0.9**n for n in range(40)], False)
FLAT = Curve("fine_tuning", 1e-5, [1e-7, 1e-6], [0.7, 0.7], True)
MACHINE = Device(kind="cpu", name="it", cpu="cpu", threads=2, onednn=True, tensorflow="2")


@pytest.mark.parametrize("steps", ["0", "9", "10001", "-5", "many", "1e3", "²"])
def test_steps_that_are_refused(steps: str) -> None:
    """A number of steps outside of the bounds is refused before anything is read."""
    with pytest.raises(SettingsError, match="--steps"):
        lr_find.parse([f"--steps={steps}"])


def test_place_is_refused() -> None:
    """An input without its flag is refused: it would be ignored."""
    with pytest.raises(SettingsError, match="unexpected argument"):
        lr_find.parse(["./flowers"])


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """The folder is created before the images are read: exit 5, not after minutes of training."""
    file = tmp_path / "file"
    file.touch()

    with pytest.raises(AccessError) as caught:
        lr_find.parse(["--input.uri=/nowhere", "--out", str(file / "rates")]).execute(Progress())
    assert 5 == caught.value.exit_code


def test_document() -> None:
    """lr-find.json has each stage's rates and losses, and null where there is no suggestion."""
    document = json.loads(json.dumps(_document([FALLING, FLAT], MACHINE), allow_nan=False))

    assert ["feature_extraction", "fine_tuning"] == list(document["stages"])
    falling, flat = document["stages"].values()
    assert (FALLING.suggestion, FALLING.lowest) == (falling["suggestion"], falling["lowest_loss_at"])
    assert len(FALLING.rates) == len(falling["rates"]) == len(falling["losses"]) == len(falling["smoothed"])
    assert (None, None, True, 1e-5) == tuple(
        flat[name] for name in ("suggestion", "lowest_loss_at", "diverged", "learning_rate")
    )


def test_table() -> None:
    """A row has the rate of the settings, the suggestion, and how the test ended."""
    header, falling, flat, note = _table([FALLING, FLAT]).splitlines()

    assert ["stage", "settings"] == header.split()[:2]
    rates = [f"{rate:.2g}" for rate in (1e-4, FALLING.suggestion, FALLING.lowest)]
    assert ["feature_extraction", *rates, "40"] == falling.split()
    assert flat.endswith("2, then the loss diverged")
    assert note.startswith("none:")
    assert 2 == len(_table([FALLING]).splitlines())
