"""A folder as a store: what a write leaves on the disk, and when."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from posix_locale import output_of

from job.errors import AccessError, FinetuneError, SettingsError, UnavailableError
from job.storage import PreconditionFailed
from job.storage.local import LocalStore, _convert_error


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_bytes_are_on_the_disk_before_they_have_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """A file is synchronized before it gets its name: after a power failure it is the old one or the whole new one."""
    synchronized = []
    target, source = tmp_path / "store" / "name", tmp_path / "source"
    source.write_bytes(b"data")

    def fsync(file: int) -> None:
        synchronized.append((os.fstat(file).st_size, target.exists()))

    monkeypatch.setattr(os, "fsync", fsync)

    LocalStore(str(target.parent)).write("name", b"data" if kind == "bytes" else source)

    assert [(4, False)] == synchronized
    assert b"data" == target.read_bytes()


def test_generation_0_means_that_nothing_may_be_there(tmp_path: Path) -> None:
    """A write on the condition that there is nothing leaves what is there as it is."""
    store = LocalStore(str(tmp_path))
    store.write("name", b"first", if_generation_match=0)

    with pytest.raises(PreconditionFailed):
        store.write("name", b"second", if_generation_match=0)

    assert b"first" == (tmp_path / "name").read_bytes()


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
def test_errors_of_the_disk_name_the_remedy(number: int, expected: type[FinetuneError]) -> None:
    """Each kind of trouble has its exit code; the message has the path, and there is a remedy."""
    error = _convert_error(OSError(number, "trouble"), Path("/data/x"), "write")

    assert expected is type(error)
    assert "cannot write '/data/x': trouble" in error.message
    assert error.remedy


def test_name_that_the_locale_cannot_spell(tmp_path: Path) -> None:
    """Under the POSIX locale a name from elsewhere may be unusable: the error blames the locale, not the name."""
    program = "import sys; from job.storage.local import LocalStore; print(LocalStore(sys.argv[1]).stat('caf\\xe9'))"

    output = output_of(program, str(tmp_path))

    assert "SettingsError: the locale's encoding of file names is 'ascii'" in output
