"""Buckets with customer-managed keys, and buckets that bill the caller: whole runs behind a proxy."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import keras
import pytest
from attempts import Attempt
from fault_proxy import Fault, reply
from runs import ONE_STAGE

from job import storage

if TYPE_CHECKING:
    from pathlib import Path

    from fault_proxy import Proxy, Seen

NO_CHECKSUMS = Fault(replace=('"crc32c"', '"absent"'))


@pytest.mark.parametrize("format_", ["folders", "csv"])
def test_customer_managed_keys(uploaded: tuple[str, ...], bucket: str, proxy: Proxy, format_: str) -> None:
    """Input and output in a bucket whose listings have no checksums: the run ends as any other."""
    *flags, input_uri = uploaded
    store = storage.open_store(input_uri)
    if format_ == "csv":
        rows = (f"{input_uri}/{info.name},{info.name.split('/')[0]}\n" for info in store.list())
        storage.open_store(f"gs://{bucket}").write("rows.csv", "".join(rows).encode())
        input_uri = f"gs://{bucket}/rows.csv"

    def fault(request: Seen) -> Fault | None:
        return NO_CHECKSUMS if request.method == "GET" and request.path.partition("?")[0].endswith("/o") else None

    proxy.fault = fault
    with Attempt([*flags, input_uri, "--output.uri", f"gs://{bucket}/out", *ONE_STAGE]) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]

    # Few rows of a folder are looked up one by one, each with its checksum.
    assert (format_ == "folders") == bool(attempt.named("storage.checksums_requested"))


def bills(request: Seen) -> bool:
    """Whether a request names the project that pays."""
    return "userProject=payer-1" in request.path or request.headers.get("x-goog-user-project") == "payer-1"


def requester_pays(request: Seen) -> Fault | None:
    """Refuse a request as a bucket does that bills the caller."""
    message = b'{"error": {"code": 400, "message": "Bucket is a requester pays bucket but no user project provided."}}'
    return None if bills(request) else reply(400, message, **{"Content-Type": "application/json"})


@pytest.mark.usefixtures("light")  # of this process, too: it makes the weights
def test_requester_pays(uploaded: tuple[str, ...], bucket: str, proxy: Proxy, tmp_path: Path) -> None:
    """With storage.user_project every request of a run, of its weights and of `finetune doctor` names who pays."""
    base_model = keras.applications.MobileNetV2((32, 32, 3), alpha=0.35, include_top=False, weights=None)
    base_model.save_weights(tmp_path / "w.weights.h5")
    storage.open_store(f"gs://{bucket}").write("w.weights.h5", tmp_path / "w.weights.h5")
    weights = ("--model.weights", f"gs://{bucket}/w.weights.h5")
    flags = [*uploaded, *weights, *ONE_STAGE, "--output.uri", f"gs://{bucket}/out"]
    check = [sys.executable, "-m", "job", "doctor", "--only", "storage,weights", *flags]
    proxy.fault = requester_pays

    with Attempt(flags) as attempt:
        assert 2 == attempt.wait()
    assert "storage.user_project" in attempt.named("run.failed")[0]["remedy"]
    assert 2 == subprocess.run(check, check=False, capture_output=True).returncode
    payer = ("--storage.user_project", "payer-1")
    with Attempt([*flags, *payer]) as attempt:
        assert 0 == attempt.wait(), attempt.events[-1]
    assert 0 == subprocess.run([*check, *payer], check=False, capture_output=True).returncode
