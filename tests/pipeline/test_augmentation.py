"""Whole runs with augmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from digests import arrays_sha256
from runs import At, Facts, only_run, run, strict_json

from job.training.augmentation import Augmentation

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from job.training.augmentation import Numbers

AUGMENTED = (
    *("--augmentation.flip", "both", "--augmentation.rotation", "20", "--augmentation.crop", "0.2"),
    *("--augmentation.brightness", "0.1", "--augmentation.contrast", "0.2", "--augmentation.mixup", "0.3"),
    *("--feature_extraction.views", "2", "--feature_extraction.epochs", "3", "--feature_extraction.batch_size", "4"),
    *("--fine_tuning.batch_size", "4", "--checkpoint.interval", "0.001", "--report.enabled", "true"),
)


def interrupt() -> None:
    """End a run as a kill does, at the last checkpoint."""
    raise KeyboardInterrupt


def test_killed_and_resumed(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An augmented run, killed amid the features of augmented images and amid stage 2, ends in the same bits."""
    planned, computed = Facts("views.planned"), Facts("views.computed")
    run("--input.uri", pictures, "--output.uri", tmp_path / "a", *AUGMENTED, listeners=[planned, computed])
    undisturbed = only_run(tmp_path / "a")
    arguments = (
        *("--input.uri", pictures, "--output.uri", tmp_path / "b", "--cache.dir", tmp_path / "cache"),
        *AUGMENTED,
    )
    draw = Augmentation.draw

    def draw_until_version_1(self: Augmentation, rows: NDArray, epoch: int) -> Numbers:
        if epoch == 1:
            interrupt()
        return draw(self, rows, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(Augmentation, "draw", draw_until_version_1)
        with pytest.raises(KeyboardInterrupt):
            run(*arguments)
    steps = Facts("step.taken")

    def stop_in_stage_2() -> None:
        if [facts["stage"] for facts in steps.seen].count("fine_tuning") == 3:
            interrupt()

    with pytest.raises(KeyboardInterrupt):
        run(*arguments, listeners=[steps, At("step.taken", stop_in_stage_2)])
    resumed = Facts("stage.started")
    run(*arguments, listeners=[resumed])

    model = "model/model.keras"
    assert arrays_sha256(undisturbed / model) == arrays_sha256(only_run(tmp_path / "b") / model)
    assert {"step": 2, "stage": "fine_tuning"} == {name: resumed.seen[0][name] for name in ("step", "stage")}
    assert ([2], [2]) == ([facts["views"] for facts in planned.seen], [facts["views"] for facts in computed.seen])
    augmented = strict_json((undisturbed / "report/gallery.json").read_bytes())["augmented"]
    assert 6 == len(augmented["uris"])
    assert 'class="sheet"' in (undisturbed / "report/index.html").read_text()
    assert "The training images were augmented: flip both" in (undisturbed / "model_card.md").read_text()


def test_backbone_in_each_epoch(pictures: Path, tmp_path: Path) -> None:
    """Without stored versions, stage 1 trains on pictures; the run is published; what has no effect is named."""
    planned, warned = Facts("views.planned"), Facts("settings.had_no_effect")
    arguments = ("--augmentation.mixup", "0.2", "--feature_extraction.views", "0", "--fine_tuning.epochs", "0")

    run(
        *("--input.uri", pictures, "--output.uri", tmp_path, *arguments, "--feature_extraction.batch_size", "1"),
        listeners=[planned, warned],
    )

    assert (only_run(tmp_path) / "_SUCCESS").exists()
    assert [0] == [facts["views"] for facts in planned.seen]
    assert [["augmentation.mixup"]] == [list(facts) for facts in warned.seen]
