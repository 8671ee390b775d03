"""`finetune report`: the page of a published run, made again into a folder here."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import report_files
from runs import tree

from job.commands import report
from job.errors import AccessError, DataError, SettingsError
from job.observability.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Return an output with a run that latest.json names."""
    run = tmp_path / "output/runs/flowers"
    for name, data in (report_files.older_run() | {"_SUCCESS": b"{}"}).items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_bytes(data)
    (tmp_path / "output/latest.json").write_text('{"run_id": "flowers", "published_at": ""}')
    return tmp_path / "output"


def test_page(
    output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page is written into a folder here, whose path is printed; the run stays as it is."""
    monkeypatch.chdir(tmp_path)
    before = tree(output)

    assert 0 == report.parse([f"{output}/latest"]).execute(Progress())

    assert "report/index.html\n" == capsys.readouterr().out
    assert {"index.html", "curves.png"} == {path.name for path in (tmp_path / "report").iterdir()}
    assert before == tree(output)


@pytest.mark.parametrize("flag", [["--out", "a/b"], ["--out=a/b"]])
def test_folder_and_settings(output: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: list[str]) -> None:
    """--out names the folder; settings that are given count more than those of the run."""
    monkeypatch.chdir(tmp_path)
    command = report.parse([f"{output}/runs/flowers", *flag, "--report.gpu_price_per_hour", "2"])

    assert 0 == command.execute(Progress())

    assert "the run used no GPU" in (tmp_path / "a/b/index.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "RUN is missing"),
        (["--out", "a"], "RUN is missing"),
        (["gs:/bucket/run"], "did you mean gs://bucket/run"),
        (["run", "--out"], "--out: needs a value"),
        (["run", "--report.max_image=3"], "did you mean --report.max_images"),
        (["run", "other"], "argument 'other'"),
    ],
)
def test_mistakes(arguments: list[str], said: str) -> None:
    """A mistake in the arguments is reported before anything is read."""
    with pytest.raises(SettingsError) as caught:
        report.parse(arguments)

    assert said in caught.value.message


def test_no_run(tmp_path: Path) -> None:
    """What is no published run ends with exit code 3."""
    with pytest.raises(DataError):
        report.parse([str(tmp_path)]).execute(Progress())


def test_folder_that_cannot_be_written(output: Path, tmp_path: Path) -> None:
    """A folder that cannot be created ends with exit code 5."""
    (tmp_path / "file").touch()

    with pytest.raises(AccessError, match="file"):
        report.parse([f"{output}/latest", "--out", str(tmp_path / "file/report")]).execute(Progress())
