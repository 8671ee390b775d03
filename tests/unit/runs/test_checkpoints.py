"""Checkpoints are whole or passed over."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from stored_states import IDENTITY, load, open_checkpoints, read_index, save, state
from structlog.testing import capture_logs

from job import errors, storage
from job.data.manifest import Manifest
from job.runs.checkpoints import Checkpoints
from job.runs.data import Data
from job.runtime.timing import Timing

if TYPE_CHECKING:
    from pathlib import Path

    from job.training.state import TrainingState


def test_round_trip(tmp_path: Path) -> None:
    """A state comes back bit for bit, with what the next start must know."""
    save(tmp_path, 5)
    loaded, facts = load(tmp_path)

    assert loaded is not None
    assert state(5).document() == loaded.document()
    for group, arrays in state(5).arrays().items():
        assert {n: a.tobytes() for n, a in arrays.items()} == {
            n: a.tobytes() for n, a in loaded.arrays()[group].items()
        }
    assert {"threads": 2} == facts


def test_nothing_saved(tmp_path: Path) -> None:
    """Where nothing was saved there is no state, and no data."""
    with open_checkpoints(tmp_path) as checkpoints:
        assert (None, None) == (checkpoints.load(), checkpoints.load_data())


def test_only_what_is_needed_is_kept(tmp_path: Path) -> None:
    """Two states are kept; arrays that did not change are stored once."""
    save(tmp_path, 1, 2, 3, 4)
    objects = sorted(path.name for path in (tmp_path / "c").glob("*.npz"))
    index = json.loads((tmp_path / "c/index.json").read_text())

    assert [4, 3] == [entry["state"]["step"] for entry in index["checkpoints"]]
    assert 2 + 2 + 1 + 1 == len(objects)  # weights and optimizer of each; the best weights, the epoch's first optimizer


def test_saved_once_an_interval(tmp_path: Path) -> None:
    """Within an epoch a state is captured once per interval, and not after every step once the first has passed."""
    captured = []

    def capture() -> TrainingState:
        captured.append(state(len(captured)))
        return captured[-1]

    with open_checkpoints(tmp_path, interval=1000.0) as checkpoints:
        for overdue in (0, 1000, 0, 0, 1000, 0):
            checkpoints._saved_at -= overdue
            checkpoints.save(capture, now=False, wait=False)
    assert 2 == len(captured)


class Refusing:
    """A store that refuses every array."""

    def __init__(self, output: storage.Store) -> None:
        self._output = output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._output, name)

    def write(self, name: str, data: bytes, *, if_generation_match: int | None = None) -> storage.ObjectInfo:
        """Write, or raise what a store raises after all retries."""
        if name.endswith(".npz"):
            raise errors.UnavailableError("no room", remedy="")
        return self._output.write(name, data, if_generation_match=if_generation_match)


def test_waiting_while_the_store_refuses(tmp_path: Path) -> None:
    """Who waits until a state is saved gets the reason why it cannot be."""
    output = Refusing(storage.open_store(str(tmp_path)))
    with (
        pytest.raises(errors.UnavailableError, match="no room"),
        Checkpoints(
            output, "c", identity=IDENTITY, owner="job", interval=1000.0, takeover=60.0, timing=Timing()
        ) as opened,
    ):
        opened.save(lambda: state(1), now=True, wait=True)


def test_waiting_until_it_is_saved(tmp_path: Path) -> None:
    """A state is on the store when a call that waits for it returns."""
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(lambda: state(1), now=True, wait=True)
        [saved] = json.loads((tmp_path / "c/index.json").read_bytes())["checkpoints"]

    assert 1 == saved["state"]["step"]


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_damaged_newest(tmp_path: Path, damage: bytes | None) -> None:
    """Where an object of the newest state is missing or damaged, the one before it is loaded."""
    save(tmp_path, 1, 2)
    index = json.loads((tmp_path / "c/index.json").read_text())
    path = tmp_path / index["checkpoints"][0]["objects"]["weights"]["name"]
    path.unlink() if damage is None else path.write_bytes(damage)
    loaded, _ = load(tmp_path)

    assert loaded is not None
    assert 1 == loaded.step


@pytest.mark.parametrize("index", [b"", b"{", b"[]", b'{"checkpoints": [{"format": 99}]}'])
def test_index_that_cannot_be_read(tmp_path: Path, index: bytes) -> None:
    """A damaged index, or states of another format, are as no checkpoint at all."""
    save(tmp_path, 1)
    (tmp_path / "c/index.json").write_bytes(index)

    assert load(tmp_path)[0] is None


def data(*names: str, usable: bool = True) -> Data:
    """Return data of images of these names, each an image of its own class."""
    count = len(names)
    columns = {column: np.arange(count, dtype=np.int64) for column in ("size", "crc32c", "generation")}
    columns |= {column: np.zeros(count, np.int32) for column in ("root", "split")}
    listed = Manifest(
        roots=("gs://b",),
        labels=names,
        names=list(names),
        label=np.arange(count, dtype=np.int32),
        gzip=np.zeros(count, bool),
        **columns,
    )
    return Data(listed=listed, usable=np.full(count, usable), quarantined=[])


def load_data(folder: Path) -> Data | None:
    """Return the data that the next start finds."""
    with open_checkpoints(folder) as checkpoints:
        return checkpoints.load_data()


def test_data(tmp_path: Path) -> None:
    """Saved data are loaded again, also after states were saved; data saved later replace them."""
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save_data(data("a", "b", "c"))
        checkpoints.save_data(data("a", "b", usable=False))
    save(tmp_path, 1, 2, 3)
    loaded = load_data(tmp_path)

    assert loaded is not None
    assert data("a", "b").listed.digest() == loaded.listed.digest()
    assert [False, False] == loaded.usable.tolist()
    assert 1 + 6 == len(list((tmp_path / "c").glob("*.npz")))  # those before are gone; two states have six objects


def test_data_of_a_superseded_process(tmp_path: Path) -> None:
    """A process that was held up leaves its successor's data alone: they are those that the states are of."""
    first = open_checkpoints(tmp_path)
    with first, open_checkpoints(tmp_path) as second:
        second.save_data(data("a", "b"))
        second.save(lambda: state(1), now=True, wait=False)
        second.flush()
        with pytest.raises(errors.StoppedError, match="another process has taken this run over"):
            first.save_data(data("a", "b", usable=False))
    loaded = load_data(tmp_path)

    assert loaded is not None
    assert [True, True] == loaded.usable.tolist()


@pytest.mark.parametrize("damage", [None, b"", b"nonsense", "PK", "flipped", "replaced"])
def test_damaged_data(tmp_path: Path, damage: bytes | str | None) -> None:
    """What was listed is listed again where it is missing, or not as it was saved."""
    for folder, names in ((tmp_path / "other", ("c", "d")), (tmp_path, ("a", "b"))):
        with open_checkpoints(folder) as checkpoints:
            checkpoints.save_data(data(*names))
    path = tmp_path / read_index(tmp_path)["data"]["name"]
    whole, other = path.read_bytes(), next((tmp_path / "other/c").glob("*.npz")).read_bytes()
    flipped = whole[:500] + bytes([whole[500] ^ 1]) + whole[501:]
    damaged = {"PK": whole[:100], "flipped": flipped, "replaced": other}.get(damage, damage)
    path.unlink() if damaged is None else path.write_bytes(damaged)

    with capture_logs() as lines:
        assert load_data(tmp_path) is None
    assert ["checkpoint.damaged"] == [line["event"] for line in lines]


@pytest.mark.parametrize("damage", ["encrypted", "no data"])
def test_data_that_no_archive_holds(tmp_path: Path, damage: str) -> None:
    """An object with the right checksum that cannot be unpacked counts as damaged, whatever exception that raises."""
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save_data(data("a", "b"))
    index = read_index(tmp_path)
    path = tmp_path / index["data"]["name"]
    if damage == "encrypted":  # zipfile raises a RuntimeError
        archive = bytearray(path.read_bytes())
        archive[archive.index(b"PK\x01\x02") + 8] |= 1
    else:  # numpy raises an EOFError
        archive = b""
    path.write_bytes(archive)
    index["data"] |= {"size": len(archive), "crc32c": storage.crc32c(bytes(archive))}
    (tmp_path / "c/index.json").write_text(json.dumps(index))

    assert load_data(tmp_path) is None


@pytest.mark.parametrize("key", ["settings", "data"])
def test_checkpoints_of_another_run(tmp_path: Path, key: str) -> None:
    """States and data that were saved with other settings or data are not loaded; the log reports that."""
    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save_data(data("a", "b"))
    save(tmp_path, 1, 2)
    index = read_index(tmp_path)
    with capture_logs() as lines, open_checkpoints(tmp_path, identity=IDENTITY | {key: "other"}) as checkpoints:
        found = checkpoints.load(), checkpoints.load_data()

    assert [IDENTITY] * 3 == [saved["identity"] for saved in (*index["checkpoints"], index["data"])]
    assert (None, None) == found
    assert ["checkpoint.of_another_run"] * 3 == [line["event"] for line in lines]


def test_commit(tmp_path: Path) -> None:
    """The process that takes a run over finds the hash it is published with; a superseded process cannot change it."""
    first = open_checkpoints(tmp_path)
    with first, open_checkpoints(tmp_path) as second:
        assert second.manifest_sha256 is None
        second.commit("5ec0")
        with pytest.raises(errors.StoppedError):
            first.commit("f125")
    save(tmp_path, 1)  # the index is written again
    with open_checkpoints(tmp_path) as third:
        assert "5ec0" == third.manifest_sha256


def test_saved_for_a_process_that_hangs(tmp_path: Path) -> None:
    """Between two steps the state is saved from another thread, and the claim released."""
    steps = iter([1, 2])
    with open_checkpoints(tmp_path, "a") as checkpoints:
        checkpoints.save(lambda: state(next(steps)), now=True, wait=False)  # the next to ask gets the state of step 2
        assert checkpoints.save_if_possible(20)
        claim = json.loads((tmp_path / "c/index.json").read_text())["claim"]
    loaded, _ = load(tmp_path)

    assert claim["released"]
    assert loaded is not None
    assert 2 == loaded.step


def test_nothing_is_captured_in_a_step(tmp_path: Path) -> None:
    """In the middle of a step what waits to be saved is saved, and no more; and it takes no longer than it may."""
    step_ends, first = threading.Event(), iter([state(1)])

    def capture() -> TrainingState:
        if (captured := next(first, None)) is None:
            step_ends.wait(20)
        return captured or state(2)

    with open_checkpoints(tmp_path) as checkpoints:
        checkpoints.save(capture, now=True, wait=False)
        assert not checkpoints.save_if_possible(0.2)
        index = json.loads((tmp_path / "c/index.json").read_text())
        step_ends.set()

    assert [1] == [entry["state"]["step"] for entry in index["checkpoints"]]


def test_nothing_to_save(tmp_path: Path) -> None:
    """Before the first step there is nothing to save, and nothing is lost."""
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.save_if_possible(20)
    assert load(tmp_path)[0] is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the log has it
def test_superseded_process_saves_nothing(tmp_path: Path) -> None:
    """A process that hung until another one took the run over leaves that one's states alone."""
    first = open_checkpoints(tmp_path)
    with first, open_checkpoints(tmp_path) as second:
        first.save(lambda: state(1), now=False, wait=False)
        second.save(lambda: state(2), now=True, wait=False)
        second.flush()
        assert not first.save_if_possible(20)
    loaded, _ = load(tmp_path)

    assert loaded is not None
    assert 2 == loaded.step


def test_same_state_again(tmp_path: Path) -> None:
    """A state that is saved again does not take the place of the one to fall back to."""
    save(tmp_path, 1, 2, 2)
    index = json.loads((tmp_path / "c/index.json").read_text())

    assert [2, 1] == [entry["state"]["step"] for entry in index["checkpoints"]]


def test_starts_and_timing_add_up(tmp_path: Path) -> None:
    """Each start counts on, and has the seconds of those before it, also where they were killed."""
    killed = open_checkpoints(tmp_path)
    killed.__enter__()
    index = read_index(tmp_path)
    index["timing"] |= {"ingest": 10.0, "total": 20.0}
    (tmp_path / "c/index.json").write_text(json.dumps(index))
    with open_checkpoints(tmp_path) as checkpoints:
        timing = read_index(tmp_path)["timing"]
        assert (2, 2) == (checkpoints.starts, read_index(tmp_path)["starts"])
    assert 10.0 == timing["ingest"]
    assert 20.0 <= timing["total"] < 30.0
