"""The parts of the stores that need neither bucket nor disk."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from job.errors import AccessError, DataError, FinetuneError, SettingsError, UnavailableError
from job.storage import ObjectInfo, crc32c, open_store
from job.storage.local import _convert_error
from job.storage.parallel import HELD_BYTES, HELD_OBJECTS, UNPACKED_BYTES, in_parallel


def objects(count: int, size: int = 1, *, gzip: bool = False) -> list[ObjectInfo]:
    """Return so many listed objects."""
    return [ObjectInfo(str(number), size, 0, 1, gzip) for number in range(count)]


def test_importing_the_stores_imports_no_client() -> None:
    """Neither Google's libraries nor obstore nor TensorFlow is loaded before a bucket is opened."""
    script = (
        "import sys, job.storage; job.storage.open_store('/tmp');"
        "print(sorted({'google', 'google_crc32c', 'obstore', 'requests', 'tensorflow'} & set(sys.modules)))"
    )

    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout

    assert "[]" == printed.strip()


def test_the_checksum_is_castagnolis() -> None:
    """crc32c gives the check value of CRC-32C's definition, whole and piece by piece."""
    assert 0xE3069283 == crc32c(b"123456789") == crc32c(b"6789", crc32c(b"12345"))


@pytest.mark.parametrize("uri", ["gs:/bucket/d", "https://console.cloud.google.com/storage/browser/bucket/d;tab=x"])
def test_a_pasted_place_is_answered_with_the_uri_that_was_meant(uri: str) -> None:
    """What is pasted instead of a URI is a settings error with the right URI in it."""
    with pytest.raises(SettingsError, match="gs://bucket/d"):
        open_store(uri)


@pytest.mark.parametrize("uri", ["", "s3://bucket/d", "gs://"])
def test_other_places_are_settings_errors(uri: str) -> None:
    """What is no place at all, or one of a kind that is not supported, is a settings error."""
    with pytest.raises(SettingsError):
        open_store(uri)


def test_a_relative_path_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store's URI does not depend on where the process is later."""
    monkeypatch.chdir(tmp_path)

    assert str(tmp_path / "out") == open_store("out/").uri


def test_everything_is_read_with_its_position() -> None:
    """Each object is handed out once, and its result comes with its position."""
    assert [(number, str(number)) for number in range(500)] == sorted(
        in_parallel(lambda info, _: info.name, objects(500))
    )


def test_a_slow_consumer_is_not_overrun() -> None:
    """No more objects are read ahead than agreed, however long the consumer takes."""
    started: list[str] = []
    reader = in_parallel(lambda info, _: started.append(info.name), objects(500))

    next(reader)
    time.sleep(0.2)

    assert len(started) <= HELD_OBJECTS
    reader.close()


@pytest.mark.parametrize(
    ("size", "gzip", "most"),
    [(HELD_BYTES // 4, False, 4), (2 * HELD_BYTES, False, 1), (1, True, HELD_BYTES // UNPACKED_BYTES)],
)
def test_large_objects_are_held_within_the_bytes_agreed(size: int, gzip: bool, most: int) -> None:
    """Objects in flight stay within the byte budget, packed ones by what they may be; a larger one is read alone."""
    lock = threading.Lock()
    running = peak = 0

    def read(_: ObjectInfo, __: threading.Event) -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(0.01)
        with lock:
            running -= 1

    assert 12 == len(list(in_parallel(read, objects(12, size, gzip=gzip))))
    assert 1 <= peak <= most


def test_objects_of_different_sizes_are_held_within_the_bytes_agreed() -> None:
    """What a finished object took is free again, and not what the next one takes."""
    small, large = objects(4), objects(4, HELD_BYTES // 2)
    started, released = [], threading.Event()

    def read(info: ObjectInfo, _: threading.Event) -> int:
        started.append(info.size)
        if info.size > 1:
            released.wait(20)
        return info.size

    results = in_parallel(read, [*small, *large])
    first = [next(results)[1] for _ in small]
    time.sleep(0.05)  # for what was handed out too early to start
    at_once = started.count(HELD_BYTES // 2)
    released.set()

    assert ([1] * 4, 1) == (first, at_once)
    assert [HELD_BYTES // 2] * 4 == [size for _, size in results]


def test_an_error_of_a_reader_is_the_consumers() -> None:
    """An exception in a thread is raised where the results are taken, and the threads end."""

    def read(info: ObjectInfo, _: threading.Event) -> None:
        if info.name == "7":
            raise UnavailableError("no 7", remedy="")

    with pytest.raises(UnavailableError, match="no 7"):
        list(in_parallel(read, objects(100)))

    assert "storage" not in [thread.name for thread in threading.enumerate()]


def test_readers_that_wait_are_told_to_end() -> None:
    """Closing sets the event that readers wait on, so nobody waits for their retries."""
    reader = in_parallel(lambda info, closed: info.name == "0" or closed.wait(60), objects(20))
    assert (0, True) == next(reader)

    started = time.monotonic()
    reader.close()

    assert time.monotonic() - started < 2
    assert "storage" not in [thread.name for thread in threading.enumerate()]


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.EACCES, AccessError),
        (errno.EROFS, AccessError),
        (errno.ENOSPC, UnavailableError),
        (errno.EDQUOT, UnavailableError),
        (errno.EIO, UnavailableError),
        (errno.ENOTDIR, SettingsError),
    ],
)
def test_what_a_disk_says_is_told_as_what_to_do(number: int, expected: type[FinetuneError]) -> None:
    """Each kind of trouble has its exit code; the message has the path, and there is a remedy."""
    told = _convert_error(OSError(number, "trouble"), Path("/data/x"), "write")

    assert expected is type(told)
    assert "cannot write '/data/x': trouble" in told.message
    assert told.remedy


@pytest.mark.parametrize(
    ("status", "expected", "message"),
    [(404, DataError, "there is no bucket gs://bucket"), (410, UnavailableError, "its session was lost 3 times: lost")],
)
def test_upload_sessions_that_stay_lost(
    status: int, expected: type[FinetuneError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large upload whose session is lost every time ends after three tries, and not after the whole retry time."""
    from google.api_core.exceptions import from_http_status
    from google.auth.credentials import AnonymousCredentials

    from job.storage import RetryPolicy, gcs

    uploads = []

    def lose(*arguments: object) -> None:
        uploads.append(arguments)
        raise from_http_status(status, "lost")

    monkeypatch.setattr(gcs, "_upload", lose)
    monkeypatch.setattr(gcs, "MULTIPART_BYTES", 10)
    retry = RetryPolicy(seconds=0.5, first_wait=0.001, longest_wait=0.001)
    store = gcs.GoogleStore("bucket", "", AnonymousCredentials(), retry, endpoint="http://127.0.0.1:1")

    with pytest.raises(expected, match=message):
        store.write("large.bin", bytes(11))
    assert 3 == len(uploads)
