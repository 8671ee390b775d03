r"""What the first GPU at hand does with the job: every precision, with and without XLA, resumed, and short of memory.

    make gpu-check                               in an environment of its own, from requirements/gpu.txt
    python benchmarks/gpu_check.py --small       on the CPU, in small: a check of this script, not of any device

The run is the recipe at 224 px on the demo's pictures, drawn here. Each combination must be published, with an exported
model that answers as the run's own did. Beside them, `calls.py` compares both stages with one and with several steps a
call. The GPU image has all that these files need:

    docker run --gpus all --volume "$PWD/benchmarks:/benchmarks" --entrypoint python finetune:gpu \
        /benchmarks/gpu_check.py --results /tmp/RESULTS.md
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import harness
from digests import arrays_sha256

from job.data import demo_pictures
from job.runtime import gpu

if TYPE_CHECKING:
    from collections.abc import Iterator

PRECISIONS = ("float32", "bfloat16", "float16")
STOPPED = 75
LEFT_BYTES = 3 * 2**30
"""GPU memory left to the run that must run out of it: enough for CUDA's own and a few images, not for a batch."""
LARGE_BATCH = 256

SMALL = {
    "model.weights": "none",
    "model.alpha": "0.35",
    "model.image_size": "32",
    "feature_extraction.epochs": "1",
    "fine_tuning.epochs": "2",
    "export.verify_images": "8",
}
FULL = {"feature_extraction.epochs": "3", "fine_tuning.epochs": "3", "device.require_gpu": "true", "device.gpus": "1"}

CALLS = {
    "feature_extraction": ("stage 1, time of an epoch with two calls and with one call a step", 50_000, 16),
    "fine_tuning": ("stage 2, time of an epoch with two calls and with one call a step", 2_048, 6),
}
"""Stage -> name of its row, images of an epoch, steps of a call; those of stage 2 at 224 px."""

Settings = dict[str, str]
Document = dict[str, Any]


class Case(NamedTuple):
    """One run of the check.

    Attributes:
        name: as the table shows it.
        settings: those that differ from the other cases'.
    """

    name: str
    settings: Settings


def main() -> None:
    """Run every case, and write down what came out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="on the CPU, at 32 px with random weights")
    parser.add_argument("--weights", default="imagenet", help="model.weights of the runs")
    parser.add_argument("--results", type=Path, default=harness.RESULTS, help="the file that gets the table")
    options = parser.parse_args()
    started = time.monotonic()
    shared = SMALL if options.small else {**FULL, "model.weights": options.weights}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        demo_pictures.draw(folder / "pictures", count=64 if options.small else demo_pictures.COUNT)
        shared = {"input.uri": str(folder / "pictures"), "log.format": "json", **shared}
        outputs: dict[str, Path | None] = {
            case.name: train(case, shared, folder) for case in cases(small=options.small)
        }
        resumed_as = "float32, XLA" if not options.small else "float32"
        undisturbed = outputs[resumed_as]
        assert undisturbed is not None
        resumed = outputs["resumed after SIGTERM"] = resume(shared, folder, undisturbed)
        outputs["out of memory"] = None if options.small else run_out_of_memory(shared, folder)
        rows = [row(name, output) for name, output in outputs.items()]
        same_bits = digest(resumed) == digest(undisturbed)
        device = provenance(undisturbed)["device"]
    for stage, (name, *_) in CALLS.items():
        rows.append([f"{name} over several", ratio_of_calls(stage, small=options.small)])
    rows.append(["resumed run ends in the same bits", "yes" if same_bits else "no"])
    rows.append(["whole check", f"{time.monotonic() - started:.0f} s"])
    title = f"GPU check: {device['name']}"
    if device["kind"] == "gpu":
        title += f", driver {device['driver']}, CUDA {device['cuda']}, cuDNN {device['cudnn']}"
    harness.record(
        title, HEADER, [[*cells, *[""] * (len(HEADER) - len(cells))] for cells in rows], path=options.results
    )


def cases(*, small: bool) -> list[Case]:
    """Return every precision with and without XLA; in small, one precision."""
    found = []
    for precision in PRECISIONS[:1] if small else PRECISIONS:
        for xla in (False, True):
            settings = {"device.mixed_precision": precision, "device.xla": str(xla).lower()}
            found.append(Case(precision + (", XLA" if xla else ""), settings))
    return found


def command(settings: Settings, output: Path) -> list[str]:
    """Return the command of a run."""
    flags = [f"--{name}={value}" for name, value in {**settings, "output.uri": str(output)}.items()]
    return [sys.executable, "-m", "job", "run", *flags]


def train(case: Case, shared: Settings, folder: Path) -> Path:
    """Run one case to its end, and return its output."""
    output = folder / case.name
    print(f"{case.name} …", file=sys.stderr, flush=True)
    harness.run(command({**shared, **case.settings}, output))
    return output


def resume(shared: Settings, folder: Path, undisturbed: Path) -> Path:
    """Stop a run with SIGTERM in the first epoch of stage 2, start it again, and return its output."""
    output = folder / "resumed"
    device = provenance(undisturbed)["device"]
    settings = {"device.mixed_precision": device["precision"], "device.xla": str(device["xla"]).lower()}
    print("resumed after SIGTERM …", file=sys.stderr, flush=True)
    flags = command({**shared, **settings}, output)
    with subprocess.Popen(flags, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            event = json.loads(line)
            if (event["message"], event.get("stage")) == ("stage.first_step", "fine_tuning"):
                process.send_signal(signal.SIGTERM)
    if process.returncode != STOPPED:
        raise SystemExit(f"the run ended with {process.returncode} after SIGTERM, expected {STOPPED}")
    harness.run(flags)
    return output


def run_out_of_memory(shared: Settings, folder: Path) -> Path:
    """Run with a large batch while another process holds most of the GPU's memory, and return its output."""
    settings = {"fine_tuning.batch_size": str(LARGE_BATCH), "device.xla": "false"}
    with occupied(LEFT_BYTES):
        return train(Case("out of memory", settings), shared, folder)


def ratio_of_calls(stage: str, *, small: bool) -> str:
    """Measure a stage with several steps a call; return how many times longer it takes with other calls."""
    _, images, steps = CALLS[stage]
    settings = ["model.alpha=0.35", "model.image_size=32"] if small else ["device.require_gpu=true"]
    images, epochs = (128, 1) if small else (images, 3)
    print(f"{stage}, several steps a call …", file=sys.stderr, flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        script = Path(__file__).with_name("calls.py")
        flags = [f"--stage={stage}", f"--images={images}", f"--epochs={epochs}", f"--steps={2 if small else steps}"]
        results = f"--results={scratch}/RESULTS.md"
        done = harness.run([sys.executable, script, *flags, results, "--settings", *settings])
    return done.output.splitlines()[-1]


@contextlib.contextmanager
def occupied(left_bytes: int) -> Iterator[None]:
    """Hold all of the first GPU's free memory but `left_bytes`, through the CUDA driver API."""
    cuda = ctypes.CDLL(gpu.DRIVER_LIBRARY)

    def call(function: str, *arguments: object) -> None:
        if code := getattr(cuda, function)(*arguments):
            raise SystemExit(f"{function} failed with CUresult {code}")

    device, context, held = ctypes.c_int(), ctypes.c_void_p(), ctypes.c_void_p()
    free, total = ctypes.c_size_t(), ctypes.c_size_t()
    call("cuInit", 0)
    call("cuDeviceGet", ctypes.byref(device), 0)
    call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    call("cuCtxSetCurrent", context)
    call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
    call("cuMemAlloc_v2", ctypes.byref(held), ctypes.c_size_t(max(0, free.value - left_bytes)))
    try:
        yield
    finally:
        call("cuMemFree_v2", held)
        call("cuDevicePrimaryCtxRelease_v2", device)


HEADER = (
    "run",
    "published; largest difference of the exported model",
    "val_accuracy",
    "stage 1, images/s",
    "stage 2, images/s",
    "stage 2, waiting for data",
    "validation's share of a stage 2 epoch",
    "peak device memory, MiB",
    "images a training step, validation, feature pass",
)


def row(name: str, output: Path | None) -> list[str]:
    """Return a row of the table; the last epoch's rates, since the first one's count compilation."""
    if output is None:
        return [name, "not measured: it needs a GPU"]
    metrics, rows = harness.document(output, "metrics/metrics.json"), harness.history(output)
    last = {stage: [line for line in rows if line["stage"] == stage][-1] for stage in metrics["stages"]}
    stage_2 = last["fine_tuning"]
    share = harness.validation_share(output)
    peak = metrics["memory"]["device_peak_bytes"]
    sizes = (metrics["micro_batch"], metrics["predict_batch"], metrics["feature_batch"])
    return [
        name,
        f"yes; {metrics['verification']['max_difference']:.1e}",
        f"{metrics['validation']['accuracy']:.3f}",
        f"{float(last['feature_extraction']['images_per_second']):.0f}",
        f"{float(stage_2['images_per_second']):.1f}",
        f"{metrics['stages']['fine_tuning']['input_wait']:.1%}",
        "" if share is None else f"{share:.1%}",
        "" if peak is None else f"{peak / 2**20:,.0f}",
        "; ".join("all" if size is None else str(size) for size in sizes),
    ]


def provenance(output: Path) -> Document:
    """Return what the run's manifest.json says about device and weights."""
    found: Document = harness.document(output, "manifest.json")["provenance"]
    return found


def digest(output: Path) -> str:
    """Return the sha256 over the arrays of the published model."""
    [run] = (output / "runs").iterdir()
    return arrays_sha256(run / "model/model.keras")


if __name__ == "__main__":
    main()
