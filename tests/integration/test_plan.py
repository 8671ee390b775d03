"""`finetune plan` as a process, on a bucket."""

from __future__ import annotations

import json
import subprocess
import sys

import published_runs

from job import storage


def plan(bucket: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command from and to a bucket."""
    places = ("--input.uri", f"gs://{bucket}/pictures", "--output.uri", f"gs://{bucket}/models")
    command = [sys.executable, "-m", "job", "plan", *places, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def put(bucket: str, *numbers: int) -> None:
    """Store pictures of two classes."""
    store = storage.open_store(f"gs://{bucket}/pictures")
    for label in ("cats", "dogs"):
        for number in numbers:
            store.write(f"{label}/{number}.jpg", f"{label} {number}".encode())


def names(bucket: str) -> list[str]:
    """Return the names of all objects."""
    return [info.name for info in storage.open_store(f"gs://{bucket}").list()]


def test_a_bucket(bucket: str) -> None:
    """New pictures are work (10), a published run is none (0), and more pictures are work again; nothing is written."""
    put(bucket, 1, 2, 3)
    before = names(bucket)
    new = plan(bucket, "--json")
    assert before == names(bucket)
    first = json.loads(new.stdout)
    published_runs.publish(storage.open_store(first["run_uri"]), {"model/labels.txt": b"cats\ndogs\n"})

    again = plan(bucket)
    put(bucket, 4)
    more = plan(bucket, "--json")

    assert (10, True, "new") == (new.returncode, first["work"], first["state"])
    assert (0, f"nothing to do: {first['run_uri']} was published on 2026-01-01\n") == (again.returncode, again.stdout)
    assert 10 == more.returncode
    assert first["run_id"] != json.loads(more.stdout)["run_id"]
    assert [] == [line for line in new.stderr.splitlines() if json.loads(line)["severity"] not in ("INFO", "DEBUG")]


def test_create_job_outside_of_a_pod(bucket: str) -> None:
    """Where there is no API server to create the Job at, work is not reported as done: exit 2, and the reason."""
    put(bucket, 1)

    done = plan(bucket, "--create-job", "finetune")

    assert 2 == done.returncode
    last = json.loads(done.stderr.splitlines()[-1])
    assert ("run.failed", "Settings") == (last["event"], last["reason"])
    assert "cronjob.plan" in last["remedy"]
