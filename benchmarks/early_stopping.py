"""Early stopping: the epochs that it saves, and whether it keeps the model that the full run had as its best by then.

    python benchmarks/early_stopping.py --data DIR --patience 3 5

The full run trains all epochs; the others end stage 2 early. The validation losses of a stopped run must be those of
the full run, digit for digit. The model that it keeps is compared, by the sha256 over all arrays, with that of a run of
only so many epochs, which is the full run's best up to there, and with that of the full run.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import harness
from digests import arrays_sha256


def main() -> None:
    """Train with and without patience, compare, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    parser.add_argument("--epochs", type=int, default=20, help="of stage 2")
    parser.add_argument("--patience", type=int, nargs="+", default=[3])
    parser.add_argument("--settings", default="", help="flags of every run")
    options = parser.parse_args()
    flags = ["--model.weights", options.weights, *shlex.split(options.settings)]
    with harness.pictures(options) as pictures, tempfile.TemporaryDirectory() as scratch:
        trained: dict[tuple[int, int], Trained] = {}

        def trained_with(epochs: int, patience: int) -> Trained:
            if (epochs, patience) not in trained:
                stage = {"epochs": epochs, "patience": patience}
                changed = [f"--fine_tuning.{name}={value}" for name, value in stage.items()]
                trained[epochs, patience] = train(pictures, Path(scratch, f"{epochs}-{patience}"), [*flags, *changed])
            return trained[epochs, patience]

        full = trained_with(options.epochs, 0)
        rows = [["0: the full run", options.epochs, 0, f"{full.cpu_seconds:.0f}", "", f"{full.kept_loss:.4f}", ""]]
        for patience in options.patience:
            stopped = trained_with(options.epochs, patience)
            epochs = len(stopped.losses)
            assert full.losses[:epochs] == stopped.losses
            rows.append(
                [
                    patience,
                    epochs,
                    options.epochs - epochs,
                    f"{stopped.cpu_seconds:.0f}",
                    "equal" if trained_with(epochs, 0).sha256 == stopped.sha256 else "differs",
                    f"{stopped.kept_loss:.4f}",
                    "the same" if stopped.sha256 == full.sha256 else "another",
                ]
            )
    header = [
        "fine_tuning.patience",
        "epochs of stage 2",
        "saved",
        "CPU seconds",
        "kept model against the best of so many epochs",
        "its val_loss",
        "kept model of the full run",
    ]
    harness.record("Early stopping", header, rows)


@dataclass(frozen=True)
class Trained:
    """A run.

    Attributes:
        losses: val_loss of each epoch of stage 2.
        kept_loss: of the published epoch.
        sha256: over all arrays of the published model.
        cpu_seconds: of the process.
    """

    losses: list[str]
    kept_loss: float
    sha256: str
    cpu_seconds: float


def train(pictures: Path, output: Path, flags: list[str]) -> Trained:
    """Run the job once."""
    command: list[str | Path] = [sys.executable, "-m", "job", "run", "--input.uri", pictures, "--output.uri", output]
    done = harness.run([*command, "--report.enabled", "false", "--report.label_errors", "false", *flags])
    [folder] = (output / "runs").iterdir()
    return Trained(
        losses=[row["val_loss"] for row in harness.history(output) if row["stage"] == "fine_tuning"],
        kept_loss=harness.document(output, "metrics/metrics.json")["kept"]["val_loss"],
        sha256=arrays_sha256(folder / "model/model.keras"),
        cpu_seconds=done.cpu_seconds,
    )


if __name__ == "__main__":
    main()
