"""What `export.formats` publishes, and how far its answers are from the run's own: MobileNetV2 1.0 at 224 pixels.

    python benchmarks/exports.py

One run of stage 1 alone, all other settings at their defaults. Each format is compared with the run's own
probabilities for all validation images: the differences are those of metrics.json. The seconds are those of the
conversion alone; those of the whole run's conversions include three starts of TensorFlow, and the scoring.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import harness

FORMATS = ("tflite", "tflite_int8", "onnx")


def main() -> None:
    """Run once, and record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, harness.pictures(options) as pictures:
        output = Path(scratch) / "out"
        harness.run(
            [
                *(sys.executable, "-m", "job", "run", "--input.uri", pictures, "--output.uri", output),
                *("--fine_tuning.epochs", "0"),
                *("--model.weights", options.weights, "--model.weights_dir", Path.home() / ".keras/models"),
                *("--export.formats", ",".join(FORMATS)),
            ]
        )
        metrics = harness.document(output, "metrics/metrics.json")
    rows: list[list[object]] = []
    for name in FORMATS:
        entry = metrics["exports"][name]
        reach = "agreement >= 0.98" if name == "tflite_int8" else "difference <= 0.001"
        seconds = f"{entry['seconds']:.1f}" if entry["passed"] else f"left out: {entry['reason']}"
        difference, agreement = f"{entry['max_difference']:.1e}", f"{entry['agreement']:.4f}"
        rows.append([name, f"{entry['bytes']:,}", difference, agreement, reach, seconds])
    images, seconds = metrics["verification"]["images"], metrics["timing"]["convert"]
    rows.append([f"all three, with scoring {images} images each", "", "", "", "", f"{seconds:.1f}"])
    harness.record("Exports", ["", "bytes", "largest difference", "agreement", "reach", "seconds"], rows)


if __name__ == "__main__":
    main()
