"""`finetune validate` as a process, on a bucket."""

from __future__ import annotations

import io
import json
import subprocess
import sys

from PIL import Image

from job import storage


def validate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    command = [sys.executable, "-m", "job", "validate", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def put(bucket: str, names: list[str]) -> None:
    """Store images of different sizes."""
    store = storage.open_store(f"gs://{bucket}")
    for number, name in enumerate(names):
        file = io.BytesIO()
        Image.effect_noise((300 + number, 200), 90).convert("RGB").save(file, "JPEG", quality=95)
        store.write(name, file.getvalue())


def test_a_bucket(bucket: str) -> None:
    """Images of over 64 KiB are judged by their first bytes; the table is on stdout, the log on stderr."""
    put(bucket, [f"flowers/{label}/{number}.jpg" for label in ("roses", "tulips") for number in range(20)])

    table = validate("--input.uri", f"gs://{bucket}/flowers")
    document = validate("--json", "--input.uri", f"gs://{bucket}/flowers")

    assert (0, 0) == (table.returncode, document.returncode), table.stderr
    assert table.stdout.startswith(f"gs://{bucket}/flowers: 40 images, ")
    assert ({"jpeg": 40}, 40) == (json.loads(document.stdout)["formats"], json.loads(document.stdout)["images"])
    assert all(json.loads(line)["severity"] for line in table.stderr.splitlines())


def test_folders_that_are_no_classes(bucket: str) -> None:
    """Exit 3, the folders as they were found, and nothing written."""
    put(
        bucket,
        [f"{site}/{label}/{n}.jpg" for site in ("fit", "holdout") for label in ("roses", "tulips") for n in (1, 2)],
    )
    before = [info.name for info in storage.open_store(f"gs://{bucket}").list()]

    done = validate("--input.uri", f"gs://{bucket}", "--log.format", "console")

    assert 3 == done.returncode
    assert "holdout/  4 images: roses/ 2, tulips/ 2" in done.stderr
    assert before == [info.name for info in storage.open_store(f"gs://{bucket}").list()]
