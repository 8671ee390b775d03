"""TensorFlow is imported in less processor time: without garbage collection, and without what the job does not call.

    python benchmarks/imports.py

Each round imports TensorFlow in three processes: as it is, without garbage collection, and as the job does. The image
has neither SciPy nor scikit-learn, so all three do without them.
"""

from __future__ import annotations

import argparse
import sys

import harness

AS_IN_THE_IMAGE = "import sys; sys.modules |= dict.fromkeys(('scipy', 'sklearn'))\n"
PROGRAMS = {
    "import tensorflow": "import tensorflow",
    "without garbage collection": "import gc; gc.disable(); import tensorflow; gc.freeze()",
    "and without matplotlib": "from job.runtime import imports\nwith imports.fast(): import tensorflow",
}


def main() -> None:
    """Import in turn."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    commands = {name: [sys.executable, "-c", AS_IN_THE_IMAGE + program] for name, program in PROGRAMS.items()}
    taken = {
        name: [run.cpu_seconds for run in runs]
        for name, runs in harness.alternate(commands, rounds=options.rounds).items()
    }
    first, *_ = taken
    rows = [[name, harness.Spread.of(taken[name]), harness.ratio(taken[name], taken[first])] for name in taken]
    harness.record("Importing TensorFlow", ["", "seconds of processor time", "as a part of the first"], rows)


if __name__ == "__main__":
    main()
