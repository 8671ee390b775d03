"""What the image weighs beside a bare ``pip install`` on the same base, how soon it works, how soon it is built again.

    python benchmarks/image.py [--gpu]

Needs a Docker engine, and measures nothing where none answers. The images for a GPU take 20 GB of disk and ten minutes
more: they are weighed with --gpu alone. The container's times are those of the demo pictures, all settings at their
defaults, the weights out of the image and no network.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import Spread, record

ROOT = Path(__file__).parents[1]
DOCKER = "/usr/bin/docker" if os.access("/usr/bin/docker", os.X_OK) else "docker"
ROUNDS = 3

BARE = """\
FROM python:3.13-slim-trixie
COPY . /source
RUN --mount=type=cache,target=/root/.cache/pip --mount=type=secret,id=ca \
    [ ! -e /run/secrets/ca ] || export PIP_CERT=/run/secrets/ca; \
    python3 -m venv /venv && /venv/bin/pip install --quiet {requirement} /source
ENTRYPOINT ["/venv/bin/finetune"]
"""
"""What one writes first. The packages that pip downloaded are not counted: they stay in the cache."""

MOMENTS = {
    "first line of the log": '"message"',
    "TensorFlow is there": '"device.configured"',
    "the first step is done": '"stage.first_step"',
    "end of the first epoch of eight steps": '"epoch.finished"',
}


def main() -> None:
    """Measure, and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--gpu", action="store_true", help="weigh the images for a GPU as well")
    with_gpu = parser.parse_args().gpu
    if shutil.which(DOCKER) is None or subprocess.run([DOCKER, "version"], capture_output=True, check=False).returncode:
        print("no Docker engine answers: nothing is measured", file=sys.stderr)
        return
    header = ["", "", "beside"]
    if with_gpu:
        record("The image for a GPU", header, [weigh("image-gpu", "finetune:gpu", "'tensorflow[and-cuda]'")])
    size = weigh("image", "finetune:cpu", "tensorflow")
    moments = [start() for _ in range(ROUNDS)]
    rebuilds = rebuild()
    record(
        "The image",
        header,
        [
            size,
            *([f"docker run to: {name}", f"{Spread.of(run[name] for run in moments)} s", ""] for name in MOMENTS),
            ["build after a change of the sources", f"{Spread.of(rebuilds)} s", ""],
        ],
    )


def weigh(target: str, tag: str, requirement: str) -> list[str]:
    """Build the image, and the bare one beside it, and return their row."""
    bare = f"{tag}-bare"
    subprocess.run(["make", "--silent", target], cwd=ROOT, check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".Dockerfile") as file:
        file.write(BARE.format(requirement=requirement))
        file.flush()
        build(ROOT, bare, "--file", file.name)
    ours, theirs = size(tag), size(bare)
    subprocess.run([DOCKER, "image", "rm", bare], check=True, capture_output=True)
    return [f"size of {tag}", f"{ours / 1e9:.2f} GB", f"bare pip install {requirement}: {theirs / 1e9:.2f} GB"]


def build(context: Path, tag: str, *options: str) -> None:
    """Build an image as the Makefile does."""
    bundle = Path("/etc/ssl/certs/ca-certificates.crt")
    secret = ["--secret", f"id=ca,src={bundle}"] if bundle.exists() else []
    environment = os.environ | {"DOCKER_BUILDKIT": "1"}
    subprocess.run([DOCKER, "build", "--quiet", "--tag", tag, *secret, *options, context], check=True, env=environment)


def size(tag: str) -> int:
    """Return an image's bytes, its base counted."""
    found = subprocess.run([DOCKER, "image", "inspect", tag], capture_output=True, check=True)
    return int(json.loads(found.stdout)[0]["Size"])


def start() -> dict[str, float]:
    """Run the demo pictures until their first epoch is done, and return the seconds until each moment."""
    name = f"finetune-benchmark-{os.getpid()}"
    command = [DOCKER, "run", "--rm", "--name", name, "--network", "none", "finetune:cpu"]
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    with subprocess.Popen([*command, "run", "--output.uri", "/output"], stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            for moment, sign in MOMENTS.items():
                if sign in line:
                    seconds.setdefault(moment, time.perf_counter() - started)
            if len(seconds) == len(MOMENTS):
                subprocess.run([DOCKER, "kill", name], check=False, capture_output=True)
                break
    return seconds


def rebuild() -> list[float]:
    """Change a copy of the sources, build, and return the seconds of each time."""
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        context = Path(folder, "source")
        shutil.copytree(ROOT, context, ignore=shutil.ignore_patterns(".*cache", ".venv", ".git", "finetune-demo"))
        for number in itertools.count():
            with (context / "job/data/labels.py").open("a") as file:
                file.write(f"# {time.time_ns()}\n")
            started = time.perf_counter()
            build(context, "finetune:benchmark", "--build-arg", "ACCELERATOR=cpu")
            seconds.append(time.perf_counter() - started)
            if number == ROUNDS:
                break
    subprocess.run([DOCKER, "image", "rm", "finetune:benchmark"], check=True, capture_output=True)
    return seconds[1:]  # the first one may build what no other does


if __name__ == "__main__":
    main()
