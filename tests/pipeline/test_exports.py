"""Runs with `export.formats`: what is published, that docs/serving.md loads it, and that a crash costs one format."""

from __future__ import annotations

import ast
import csv
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import light_runs
import pytest
from paths import ROOT
from runs import ONE_STAGE, Facts, only_run, run, strict_json

from job.evaluation.metrics_schema import Metrics
from job.export.conversion import CALIBRATION_IMAGES
from job.export.formats import FILES
from job.observability.progress import Listener

if TYPE_CHECKING:
    from job.observability.progress import Phase


@pytest.fixture(scope="module")
def exported(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published run with every format."""
    output = tmp_path_factory.mktemp("exported")
    with light_runs.here(light_runs.SHALLOW, light_runs.UNVERIFIED):
        run("--input.uri", pictures, "--output.uri", output, "--export.formats", ",".join(FILES), *ONE_STAGE)
    return only_run(output)


def metrics(folder: Path) -> Any:
    """Return metrics.json."""
    return strict_json((folder / "metrics/metrics.json").read_bytes())


def test_every_format_is_published(exported: Path) -> None:
    """The files are under model/ with their checksums in manifest.json, and metrics.json has the differences."""
    files = strict_json((exported / "manifest.json").read_bytes())["files"]
    exports = metrics(exported)["exports"]

    assert set(FILES) == set(exports)
    for name, entry in exports.items():
        data = (exported / entry["file"]).read_bytes()
        assert (f"model/{FILES[name]}", len(data), True, "", 1.0) == tuple(
            entry[key] for key in ("file", "bytes", "passed", "reason", "agreement")
        )
        assert hashlib.sha256(data).hexdigest() == files[entry["file"]]["sha256"]
    assert max(exports[name]["max_difference"] for name in ("tflite", "onnx")) <= 1e-3
    Metrics.model_validate_json((exported / "metrics/metrics.json").read_bytes())
    assert metrics(exported)["timing"]["convert"] > 0
    assert "model/saved_model/assets.extra/tf_serving_warmup_requests" in files


@pytest.mark.parametrize("file", FILES.values())
def test_snippets_of_the_page(exported: Path, tmp_path: Path, file: str) -> None:
    """The code of docs/serving.md loads each file and gives the run's probabilities (int8: nearly)."""
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    [section] = re.findall(r"^## TensorFlow Lite and ONNX\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL)
    by_lite, by_onnx = re.findall(r"^```python\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    source = by_onnx if file.endswith(".onnx") else by_lite.replace("model/model.tflite", f"model/{file}")
    rows = csv.DictReader((exported / "metrics/predictions.csv").read_text().splitlines())
    row = next(row for row in rows if row["uri"].endswith(".jpg"))
    shutil.copy(row["uri"], tmp_path / "cat.jpg")
    (tmp_path / "model").symlink_to(exported / "model")

    done = subprocess.run(
        [sys.executable, "-I", "-c", source], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert 0 == done.returncode, done.stderr
    expected = {label: float(row[f"probability_{label}"]) for label in ("dark", "light")}
    assert pytest.approx(expected, abs=0.05 if "int8" in file else 1e-3) == ast.literal_eval(done.stdout)


class _Killer(Listener):
    """Kills the process that converts to a format as soon as it exists."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: threading.Thread | None = None

    def on_advance(self, phase: Phase) -> None:
        """Look for the process from the beginning of its phase on."""
        if phase.name == f"convert {self._name}" and self._thread is None:
            self._thread = threading.Thread(target=self._kill, daemon=True)
            self._thread.start()

    def _kill(self) -> None:
        while True:
            for pid in [pid for file in Path("/proc/self/task").glob("*/children") for pid in file.read_text().split()]:
                if f"\0{self._name}\0" in Path(f"/proc/{pid}/cmdline").read_text():
                    os.kill(int(pid), signal.SIGKILL)
                    return
            time.sleep(0.02)


@pytest.mark.usefixtures("answering")
def test_crash_of_a_conversion(pictures: Path, tmp_path: Path) -> None:
    """A conversion that is killed leaves its format out with a warning; the run is published with the rest."""
    left_out = Facts("export.left_out")
    events = run(
        *("--input.uri", pictures, "--output.uri", tmp_path, "--export.formats", "tflite,tflite_int8", *ONE_STAGE),
        listeners=[_Killer("tflite_int8"), left_out],
    )
    folder = only_run(tmp_path)

    assert {"run.published", "model.verified", "model.converted"} <= set(events)
    reason = "the conversion was killed by SIGKILL"
    assert [{"format": "tflite_int8", "reason": reason}] == [dict(facts) for facts in left_out.seen]
    exports = metrics(folder)["exports"]
    assert exports["tflite"]["passed"]
    assert (False, reason) == (exports["tflite_int8"]["passed"], exports["tflite_int8"]["reason"])
    files = {path.name for path in (folder / "model").iterdir()}
    assert {"model.tflite", "model.keras", "saved_model"} <= files
    assert not [name for name in files if "int8" in name]


def test_page_has_the_number_of_calibration_images() -> None:
    """docs/serving.md names the number of images for calibration."""
    assert f"{CALIBRATION_IMAGES['tflite_int8']} images" in (ROOT / "docs/serving.md").read_text(encoding="utf-8")
