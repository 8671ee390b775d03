"""`finetune doctor`, which is also what `helm test` runs, against real buckets: whole, narrow, silent and paid for."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from fault_proxy import Fault, reply
from https_server import Authority, serving

from job import storage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from fault_proxy import Proxy, Seen

OUTPUT = ["create", "precondition", "overwrite", "read", "clock", "delete"]
JSON = {"Content-Type": "application/json"}
HANG = 60.0
DOCTOR = [sys.executable, "-m", "job", "doctor", "--only", "storage"]


def doctor(*flags: str | Path, timeout: float = HANG) -> tuple[int, dict[str, Any], float]:
    """Return the exit code of the command, check -> row, and its seconds."""
    started = time.monotonic()
    done = subprocess.run([*DOCTOR, "--json", *flags], capture_output=True, text=True, check=False, timeout=timeout)
    seconds = time.monotonic() - started
    assert done.stdout, done.stderr
    return done.returncode, {row["check"]: row for row in json.loads(done.stdout)}, seconds


def verdicts(rows: dict[str, Any]) -> list[str]:
    """Return the verdicts on the output's operations."""
    return [rows[f"output {name}"]["verdict"] for name in OUTPUT]


@pytest.fixture
def flags(bucket: str) -> tuple[str, ...]:
    """Return flags that name an input with one object and an output, both in a bucket."""
    storage.open_store(f"gs://{bucket}/in").write("cats/1.jpg", b"1")
    return ("--input.uri", f"gs://{bucket}/in", "--output.uri", f"gs://{bucket}/out")


def names(bucket: str) -> list[str]:
    """Return what is in a bucket."""
    return [info.name for info in storage.open_store(f"gs://{bucket}").list()]


def denied(message: str, reason: str = "forbidden") -> Fault:
    """Return the answer 403 of the JSON API."""
    error = {"code": 403, "message": message, "errors": [{"reason": reason, "message": message}]}
    return reply(403, json.dumps({"error": error}).encode(), **JSON)


def test_a_settings_file(bucket: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    """With the settings file of a release, as `helm test` gives it, all is well, and nothing is left."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump({"input": {"uri": flags[1]}, "output": {"uri": flags[3]}}))

    code, rows, _ = doctor("--config", file)

    assert (0, ["ok"] * 6, "ok") == (code, verdicts(rows), rows["input"]["verdict"]), rows
    assert ["in/cats/1.jpg"] == names(bucket)


def test_no_bucket(bucket: str) -> None:
    """A bucket that does not exist ends with 3, as a run would."""
    code, rows, _ = doctor("--output.uri", f"gs://{bucket}-typo/models")

    assert (3, ["failed", *["skipped"] * 5]) == (code, verdicts(rows))


def test_no_permission_on_the_bucket_itself(bucket: str, flags: tuple[str, ...], proxy: Proxy) -> None:
    """Object roles lack storage.buckets.get: it is not asked for."""
    proxy.fault = lambda seen: denied("no") if seen.path.partition("?")[0].endswith(f"/b/{bucket}") else None

    assert 0 == doctor(*flags)[0]


def bills(request: Seen) -> bool:
    """Whether a request names the project that pays."""
    return "userProject=payer-1" in request.path or request.headers.get("x-goog-user-project") == "payer-1"


def test_requester_pays(flags: tuple[str, ...], proxy: Proxy) -> None:
    """A bucket that bills the caller names the setting; with it every request names who pays."""
    message = b'{"error": {"code": 400, "message": "Bucket is a requester pays bucket but no user project provided."}}'
    proxy.fault = lambda seen: None if bills(seen) else reply(400, message, **JSON)

    code, rows, _ = doctor(*flags)

    assert 2 == code
    for name in ("input", "output create"):
        assert ("failed", True) == (rows[name]["verdict"], "storage.user_project" in rows[name]["remedy"])
    assert 0 == doctor(*flags, "--storage.user_project", "payer-1")[0]


def test_a_bucket_that_cannot_be_written(bucket: str, flags: tuple[str, ...], proxy: Proxy) -> None:
    """The permission that is missing is named, the input is read all the same, and nothing is left to delete."""
    message = "a@b does not have storage.objects.create access"
    proxy.fault = lambda seen: denied(message) if seen.method != "GET" else None

    code, rows, _ = doctor(*flags)

    assert (5, "ok", ["failed", *["skipped"] * 5]) == (code, rows["input"]["verdict"], verdicts(rows))
    assert "storage.objects.create" in rows["output create"]["detail"]
    assert "roles/storage.objectUser" in rows["output create"]["remedy"]
    assert ["in/cats/1.jpg"] == names(bucket)


@pytest.mark.parametrize(
    ("message", "reason", "named"),
    [
        ("a@b does not have storage.objects.delete access", "forbidden", "storage.objects.delete"),
        ("Object is subject to bucket's retention policy", "retentionPolicyNotMet", "retention policy"),
    ],
)
def test_an_object_that_cannot_be_deleted(
    bucket: str, flags: tuple[str, ...], proxy: Proxy, message: str, reason: str, named: str
) -> None:
    """Without the permission to delete, or under a retention policy, the message names that and the object's URI."""

    def fault(seen: Seen) -> Fault | None:
        overwrites = "ifGenerationMatch=" in seen.path and "ifGenerationMatch=0" not in seen.path
        return denied(message, reason) if seen.method == "DELETE" or overwrites else None

    proxy.fault = fault

    code, rows, _ = doctor(*flags)

    assert (5, ["ok", "ok", "failed", "ok", "ok", "failed"]) == (code, verdicts(rows))
    assert named in rows["output overwrite"]["detail"]
    [left] = [name for name in names(bucket) if name.startswith("out/")]
    assert f"gs://{bucket}/{left} is left" in rows["output delete"]["detail"]


@pytest.fixture
def silent() -> Iterator[str]:
    """Return the address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_store_that_does_not_answer(flags: tuple[str, ...], silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check ends at its limit with code 20, the others are carried out, and the process ends soon after."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", silent)

    code, rows, seconds = doctor(*flags, "--timeout", "2")

    assert (20, "failed", ["failed", *["skipped"] * 5]) == (code, rows["input"]["verdict"], verdicts(rows))
    assert "no answer within 2 s" == rows["input"]["detail"]
    assert ".finetune-doctor-" in rows["output create"]["remedy"]
    assert seconds < HANG / 2  # a request alone waits 60 s for an answer


def test_a_store_that_refuses_connections(flags: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreachable store ends with 20, and the message names the tries."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", host)

    code, rows, _ = doctor(*flags, "--timeout", "5")

    assert (20, "skipped") == (code, rows["output delete"]["verdict"])
    assert "is unreachable after" in rows["input"]["detail"]


def test_a_certificate_that_is_not_trusted(
    flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An authority that is not in the bundle ends with 2 and names the variables; with its bundle all is well."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    authority = Authority.create(tmp_path)
    with serving(authority.issue(None), os.environ["STORAGE_EMULATOR_HOST"]) as url:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
        code, rows, _ = doctor(*flags)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.bundle))
        trusted, trusted_rows, _ = doctor(*flags)

    assert (2, "failed", "failed") == (code, rows["input"]["verdict"], rows["output create"]["verdict"])
    assert "SSL_CERT_FILE" in rows["input"]["remedy"]
    assert (0, f"SSL_CERT_FILE={authority.bundle}") == (trusted, trusted_rows["CA bundle"]["detail"])


def test_a_bundle_that_is_none(flags: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without certificates ends with 2 and names the variable."""
    (tmp_path / "ca.pem").write_text("no certificate")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))

    code, rows, _ = doctor(*flags)

    assert (2, "failed") == (code, rows["CA bundle"]["verdict"])
    assert "REQUESTS_CA_BUNDLE" in rows["CA bundle"]["detail"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_leaves_nothing(
    bucket: str, flags: tuple[str, ...], proxy: Proxy, number: signal.Signals
) -> None:
    """A signal while the store is slow deletes the object and ends with 75."""

    def fault(seen: Seen) -> Fault | None:
        return (
            Fault(delay=HANG) if "ifGenerationMatch=" in seen.path and "ifGenerationMatch=0" not in seen.path else None
        )

    proxy.fault = fault
    with subprocess.Popen([*DOCTOR, *flags, "--timeout", str(HANG)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        for line in process.stdout:
            if line.startswith("ok       output precondition"):
                break
        process.send_signal(number)

        assert 75 == process.wait(HANG)

    assert ["in/cats/1.jpg"] == names(bucket)


def test_no_credentials(silent: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are none, and nothing answers at the metadata server's address, it ends with 5 within the limit."""
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "STORAGE_EMULATOR_HOST", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_IP", silent.removeprefix("http://"))

    code, rows, _ = doctor("--output.uri", "gs://bucket/out")

    assert (5, "failed", ["failed", *["skipped"] * 5]) == (code, rows["credentials"]["verdict"], verdicts(rows))


def test_credentials_that_are_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that cannot be used end with 5; nothing of the file is printed."""
    (tmp_path / "key.json").write_text(json.dumps({"type": "service_account", "private_key": "SECRET"}))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)

    code, rows, _ = doctor("--output.uri", "gs://bucket/out", "--timeout", "4")

    assert (5, "failed", 5) == (code, rows["credentials"]["verdict"], rows["credentials"]["exit_code"])
    assert "SECRET" not in json.dumps(rows)
