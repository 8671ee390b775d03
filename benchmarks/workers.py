"""Two workers against one, each on a core of its own: the pass over the data, and an epoch of stage 2.

    python benchmarks/workers.py
    python benchmarks/workers.py --data DIR --weights FILE --rounds 5

The workers are processes on this machine, so nothing is measured of a network. The pass is that of worker 0: with the
wait for the other one, and the exchange of what they found and of the features.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

import harness
from attempts import Attempt


def main() -> None:
    """Train with one worker and with two in turn, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    harness.add_inputs(parser)
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if len(cores := sorted(os.sched_getaffinity(0))) < 2:
        sys.exit("two cores are needed")
    seconds: dict[int, list[dict[str, float]]] = {1: [], 2: []}
    with harness.pictures(options) as pictures:
        flags = ["--input.uri", str(pictures), "--model.weights", options.weights, "--device.threads", "1"]
        flags += ["--model.image_size", str(options.image_size), "--report.enabled", "false"]
        flags += ["--feature_extraction.epochs", "1", "--fine_tuning.epochs", "2", "--report.label_errors", "false"]
        for number in range(1, options.rounds + 1):
            for count, measured in seconds.items():
                measured.append(train(flags, cores[:count]))
                print(f"round {number} of {options.rounds}: {count} workers: {measured[-1]}", file=sys.stderr)
    names = {"ingest": "the pass over the data", "fine_tuning": "an epoch of stage 2, training alone"}
    rows = []
    for part, name in names.items():
        one, two = ([measured[part] for measured in seconds[count]] for count in (1, 2))
        rows.append([name, harness.Spread.of(one), harness.Spread.of(two), f"{harness.ratio(one, two)}x"])
    harness.record("Two workers against one", ["", "one worker, s", "two workers, s", "ratio"], rows)


def train(flags: list[str], cores: list[int]) -> dict[str, float]:
    """Run one worker on each core; return the seconds of each part."""
    with tempfile.TemporaryDirectory() as output, contextlib.ExitStack() as stack:
        shared = [*flags, "--output.uri", output]
        if len(cores) > 1:
            with contextlib.ExitStack() as taken:
                sockets = [taken.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in cores]
                addresses = ",".join(f"127.0.0.1:{each.getsockname()[1]}" for each in sockets)
            shared += ["--run.job_uid", "uid-1", "--workers.count", str(len(cores)), "--workers.addresses", addresses]
        workers = []
        for index, core in enumerate(cores):
            own = ["--workers.index", str(index)] if len(cores) > 1 else []
            pinned = ["taskset", "--cpu-list", str(core)]
            workers.append(stack.enter_context(Attempt([*shared, *own], within=pinned)))
        while any(worker.process.poll() is None for worker in workers):
            time.sleep(0.1)
            if failed := [worker for worker in workers if worker.process.poll()]:
                sys.exit(f"a worker has failed: {failed[0].events[-1]}")
        metrics, last = harness.document(Path(output), "metrics/metrics.json"), harness.history(Path(output))[-1]
        images = sum(line["split"] == "train" for line in harness.lines(Path(output), "data/split.jsonl"))
        return {"ingest": metrics["timing"]["ingest"], "fine_tuning": images / float(last["images_per_second"])}


if __name__ == "__main__":
    main()
