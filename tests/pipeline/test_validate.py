"""`finetune validate --deep` rehearses a run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from runs import SMALL
from structlog.testing import capture_logs

from job.commands import validate
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.usefixtures("answering")
@pytest.mark.parametrize(
    ("flags", "skipped"),
    [
        ([], []),
        (["--fine_tuning.epochs", "0"], ["fine_tuning"]),
        (["--feature_extraction.epochs", "0"], ["feature_extraction"]),
    ],
)
def test_rehearsal(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], skipped: list[str]
) -> None:
    """Each part has its seconds, a stage without epochs none; nothing is left on the disk."""
    flags = [*flags, "--cache.dir", str(tmp_path)]

    with capture_logs():
        command = validate.parse(["--deep", "--json", "--input.uri", str(pictures), *SMALL, *flags])
        assert 0 == command.execute(Progress([]))

    estimates = json.loads(capsys.readouterr().out)["estimates"]
    parts = ("startup", "feature_extraction", "fine_tuning", "evaluation")
    assert skipped == [part for part in parts if not estimates["seconds"][part]]
    # Without features, which stage 1 trains on, a few small images may take less than the 0.1 s of the figures.
    assert estimates["seconds"]["ingest"] > 0 or skipped == ["feature_extraction"]
    assert estimates["memory"]["measured"]
    assert estimates["memory"]["training_bytes"] > 200 * 2**20
    assert [] == [*tmp_path.iterdir()]


def test_data_that_end_a_run_are_not_rehearsed(pictures: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A GPU that the settings require need not be here; a run that would end before it trains takes no time."""
    flags = ["--deep", "--json", "--cache.max_bytes", "100", "--device.require_gpu", "true"]

    with capture_logs(), pytest.raises(Exception, match="the cache needs"):
        validate.parse([*flags, "--input.uri", str(pictures), *SMALL]).execute(Progress([]))

    document = json.loads(capsys.readouterr().out)
    assert (True, None) == (document["decoded"], document["estimates"]["seconds"])
