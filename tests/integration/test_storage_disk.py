"""What only disks have: links, loops, names that are not text, owners, and other processes beside this one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from structlog.testing import capture_logs

from job.errors import DataError, SettingsError
from job.storage import LostObject, PreconditionFailed, Store, open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

NOBODY = 65532


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder."""
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Return an empty folder that every user may look into, as pytest's own may not be."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture
def store(folder: Path) -> Store:
    """Return a store on that folder."""
    return open_store(str(folder))


def put(folder: Path, names: Iterable[str]) -> None:
    """Write small files by other means than the store's."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode("utf-8", "surrogateescape"))


def names(store: Store) -> list[str]:
    """Return what a listing has, in its order."""
    return [info.name for info in store.list()]


def as_nobody(script: str) -> str:
    """Run a script as a user who owns nothing (as ourselves where we are not root); return what it printed."""
    program = f"""
import os
from job.storage import crc32c, open_store
crc32c(b"")  # imports what the other user may not be allowed to
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
    os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
{script}
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
    return ended.stdout + ended.stderr


def test_a_file_behind_a_link_is_called_by_the_link(folder: Path, store: Store) -> None:
    """Links to files and folders are followed, and names are those of the links."""
    put(folder, ["pool/others/1.jpg", "pool/others/2.jpg"])
    (folder / "abnormal").mkdir()
    (folder / "abnormal" / "a1.jpg").symlink_to(folder / "pool/others/1.jpg")
    (folder / "normal").symlink_to("pool/others")

    assert ["abnormal/a1.jpg", "normal/1.jpg", "normal/2.jpg", "pool/others/1.jpg", "pool/others/2.jpg"] == names(store)
    found = store.read("abnormal/a1.jpg")
    assert found is not None
    assert b"pool/others/1.jpg" == found[0]


def test_a_loop_is_gone_through_once(folder: Path, store: Store) -> None:
    """A link to a folder that contains it, or through which it was reached, is not followed."""
    put(folder, ["a/1.jpg", "b/2.jpg"])
    (folder / "a/up").symlink_to("..")
    (folder / "a/self").symlink_to(".")
    (folder / "a/across").symlink_to("../b")
    (folder / "b/back").symlink_to("../a")

    assert ["a/1.jpg", "a/across/2.jpg", "b/2.jpg", "b/back/1.jpg"] == names(store)


def test_a_loop_behind_a_link_is_a_loop(tmp_path: Path, folder: Path, store: Store) -> None:
    """Where a linked folder has a link to its own parent, that parent's other folders are not the store's."""
    put(tmp_path, ["pool/real/1.jpg", "pool/others/2.jpg"])
    (tmp_path / "pool/real/loop").symlink_to("..")
    (folder / "normal").symlink_to(tmp_path / "pool/real")

    assert ["normal/1.jpg"] == names(store)


def test_what_is_no_file_is_no_object(folder: Path, store: Store) -> None:
    """Pipes, links to nothing and folders are neither listed nor read; one line of the log has how many."""
    put(folder, ["real.jpg"])
    os.mkfifo(folder / "pipe.jpg")
    (folder / "nothing.jpg").symlink_to("nowhere")
    (folder / "round.jpg").symlink_to("round.jpg")
    (folder / "empty").mkdir()

    with capture_logs() as lines:
        assert ["real.jpg"] == names(store)
    assert [("storage.files_skipped", 3)] == [(line["event"], line["files"]) for line in lines]
    for name in ("pipe.jpg", "nothing.jpg", "round.jpg", "empty", "real.jpg/below"):
        assert store.stat(name) is None
        assert store.read(name) is None


def test_names_that_are_not_text_are_kept(folder: Path, store: Store) -> None:
    """A file name that is not UTF-8 is listed with its bytes escaped, and can be read under that name."""
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    put(folder, [name, "cafe.jpg"])
    listed = list(store.list())

    assert ["cafe.jpg", name] == [info.name for info in listed]
    assert {0: b"cafe.jpg", 1: b"caf\xe9.jpg"} == dict(store.read_many(listed))


@pytest.mark.parametrize("name", ["../secret", "a/../../secret", "/etc/passwd", "a//b", "./a", "a/", "", "a\0b"])
def test_no_name_leads_out_of_the_folder(folder: Path, store: Store, name: str) -> None:
    """Names with '..', absolute and empty names are rejected in every operation."""
    put(folder.parent, ["secret"])

    for call in (store.stat, store.read, store.delete, lambda name: store.write(name, b"x")):
        with pytest.raises(DataError, match="cannot be the name of a file"):
            call(name)

    assert b"secret" == (folder.parent / "secret").read_bytes()


def test_a_file_that_was_only_touched_is_the_same(folder: Path, store: Store) -> None:
    """Another modification time with the same bytes is no change; other bytes are, also with the same time."""
    put(folder, ["touched", "changed"])
    listed = list(store.list())
    os.utime(folder / "touched", ns=(1, 1))
    (folder / "changed").write_bytes(b"CHANGED")
    os.utime(folder / "changed", ns=(listed[0].generation, listed[0].generation))

    assert {0: LostObject("changed"), 1: b"touched"} == dict(store.read_many(listed))


def test_generations_grow_whatever_the_clock_says(folder: Path, store: Store) -> None:
    """A write over a file from the future is still a later generation."""
    put(folder, ["a"])
    future = 4_000_000_000 * 10**9
    os.utime(folder / "a", ns=(future, future))

    written = store.write("a", b"x", if_generation_match=future)

    assert written.generation > future
    assert written == store.stat("a")


def test_nothing_but_the_objects_is_left_behind(folder: Path, store: Store) -> None:
    """After writes, also those that fail, no temporary or lock file is there; one of a killed process is not listed."""
    store.write("d/a", b"1", if_generation_match=0)
    store.write("d/b", b"1")
    with pytest.raises(PreconditionFailed):
        store.write("d/a", b"2", if_generation_match=0)

    assert ["a", "b"] == sorted(path.name for path in (folder / "d").iterdir())
    put(folder, ["d/.finetune-0123.tmp", "d/.finetune-lock"])
    assert ["d/a", "d/b"] == names(store)
    store.write("d/c", b"1", if_generation_match=0)
    assert ["d/a", "d/b", "d/c"] == names(store)


def test_processes_do_not_lose_each_others_writes(folder: Path, store: Store) -> None:
    """Three processes that count up one file by generation match end at the sum of their counts."""
    store.write("count", b"0")
    script = f"""
from job.storage import PreconditionFailed, open_store
store = open_store({str(folder)!r})
for _ in range(20):
    while True:
        data, seen = store.read("count")
        try:
            store.write("count", b"%d" % (int(data) + 1), if_generation_match=seen.generation)
            break
        except PreconditionFailed:
            pass
"""
    writers = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]

    assert [0, 0, 0] == [writer.wait(60) for writer in writers]
    found = store.read("count")
    assert found is not None
    assert b"60" == found[0]
    assert ["count"] == [path.name for path in folder.iterdir()]


def test_a_file_in_the_place_of_a_folder(folder: Path) -> None:
    """If a file is in the place of a folder, nothing is listed, and a write fails with an error that says so."""
    put(folder, ["file"])
    store = open_store(str(folder / "file"))

    assert [] == names(store)
    with pytest.raises(SettingsError, match=r"Not a directory|File exists"):
        store.write("a", b"1")


def test_lost_and_found_is_skipped(open_folder: Path) -> None:
    """The folder that every ext4 volume has, and that only root may read, is skipped with one warning."""
    put(open_folder, ["cats/1.jpg"])
    (open_folder / "lost+found").mkdir(mode=0o700)
    (open_folder / "lost+found").chmod(0 if os.geteuid() else 0o700)

    printed = as_nobody(f"print([info.name for info in open_store({str(open_folder)!r}).list()])")

    assert "['cats/1.jpg']" in printed
    assert 1 == printed.count("storage.folder_skipped")


@pytest.mark.parametrize("closed", ["cats", "cats/1.jpg"])
def test_what_may_not_be_read_is_named(open_folder: Path, closed: str) -> None:
    """A folder or file that cannot be read ends the listing with an error that names it and the user."""
    put(open_folder, ["cats/1.jpg", "dogs/2.jpg"])
    (open_folder / closed).chmod(0 if os.geteuid() else 0o700)

    printed = as_nobody(f"list(open_store({str(open_folder)!r}).list())")

    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    assert "job.errors.AccessError: cannot " in printed
    assert f"{str(open_folder / closed)!r}: Permission denied (as user id {user})" in printed
    (open_folder / closed).chmod(0o755)


def test_where_nothing_may_be_written(open_folder: Path) -> None:
    """A write into another's folder names the path, the user and what to do."""
    open_folder.chmod(0o555)

    printed = as_nobody(
        f"""
try:
    open_store({str(open_folder / "out")!r}).write("runs/a", b"1")
except Exception as error:
    print(type(error).__name__, error.message, error.remedy)
"""
    )

    assert printed.startswith(f"AccessError cannot write '{open_folder}/out/runs/a': Permission denied (as user id ")
    assert "chown" in printed
    open_folder.chmod(0o755)
