"""Checkpoints are whole or passed over, and belong to one process at a time."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from job import checkpoint, errors, storage
from job.state import EpochResult, TrainingState

if TYPE_CHECKING:
    from pathlib import Path

RESULT = EpochResult(
    stage="fine_tuning",
    epoch=3,
    loss=0.1,
    accuracy=0.9,
    val_loss=1 / 3,
    val_accuracy=0.8,
    seconds=1.5,
    images_per_second=10.0,
    input_wait=0.0,
)


def open_checkpoints(folder: Path, owner: str = "job", takeover: float = 60.0) -> checkpoint.Checkpoints:
    """Return checkpoints below a folder."""
    output = storage.open_store(str(folder))
    return checkpoint.Checkpoints(output, "c", owner=owner, interval=1000.0, takeover=takeover)


def state(step: int) -> TrainingState:
    """Return a state whose arrays tell its step."""
    weights = {"fc1/kernel": np.full((2, 3), step, np.float32), "fc1/bias": np.float32([np.nan, -0.0])}
    optimizer = {"adam/iteration": np.int64(step)}
    moved = TrainingState(stage="fine_tuning", epoch=2, step=step, loss_sum=0.1 + step, history=[RESULT], best=RESULT)
    moved.best_weights = {"fc1/kernel": np.zeros((2, 3), np.float32)}
    return moved.captured(weights, optimizer)


def save(folder: Path, *steps: int) -> None:
    """Save a state for each of the steps, one after the other."""
    with open_checkpoints(folder) as checkpoints:
        checkpoints.facts = {"threads": 2}
        for step in steps:
            checkpoints.after_step(lambda step=step: state(step), always=True)
            checkpoints.flush()


def load(folder: Path) -> tuple[TrainingState | None, dict[str, object]]:
    """Return what the next start finds."""
    with open_checkpoints(folder) as checkpoints:
        return checkpoints.load(), checkpoints.facts


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
    assert 2 + 2 + 1 == len(objects)  # weights and optimizer of each, and one of the best weights


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


def test_damaged_data(tmp_path: Path) -> None:
    """What was listed is listed again where it cannot be read."""
    (tmp_path / "c").mkdir()
    (tmp_path / "c/data.npz").write_bytes(b"nonsense")
    with open_checkpoints(tmp_path) as checkpoints:
        assert checkpoints.load_data() is None


def test_same_owner_takes_over(tmp_path: Path) -> None:
    """The Job's next Pod takes the run over at once; the one before finds itself superseded where it saves next."""
    first = open_checkpoints(tmp_path)
    with first, open_checkpoints(tmp_path) as second:
        second.after_step(lambda: state(1), always=True)
        second.flush()
        first.after_step(lambda: state(7), always=True)
        with pytest.raises(errors.StoppedError, match="another process has taken this run over"):
            first.flush()
    loaded, _ = load(tmp_path)
    assert loaded is not None
    assert 1 == loaded.step


def test_other_owner_waits(tmp_path: Path) -> None:
    """Another owner takes a released claim at once, and gives way to one that is renewed, naming its holder."""
    renewing = open_checkpoints(tmp_path, "a", takeover=0.4)  # four times as often
    with renewing, pytest.raises(errors.SettingsError, match="a works on this run"):
        open_checkpoints(tmp_path, "b", takeover=3.0).__enter__()


def test_released_by_a_failure(tmp_path: Path) -> None:
    """A process that ends before the run does releases its claim."""
    with pytest.raises(ZeroDivisionError), open_checkpoints(tmp_path, "a"):
        raise ZeroDivisionError
    with open_checkpoints(tmp_path, "b"):
        claim = json.loads((tmp_path / "c/index.json").read_text())["claim"]
    assert ("b", False) == (claim["owner"], claim["released"])


def test_saved_for_a_process_that_hangs(tmp_path: Path) -> None:
    """Between two steps the state is saved from another thread, and the claim released."""
    steps = iter([1, 2])
    with open_checkpoints(tmp_path, "a") as checkpoints:
        checkpoints.after_step(lambda: state(next(steps)), always=True)  # the next to ask gets the state of step 2
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
        checkpoints.after_step(capture, always=True)
        assert not checkpoints.save_if_possible(0.5)
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
        first.after_step(lambda: state(1), always=False)
        second.after_step(lambda: state(2), always=True)
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
