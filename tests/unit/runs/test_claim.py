"""The claim: a run belongs to one process at a time."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from stored_states import load, open_checkpoints, read_index, state
from structlog.testing import capture_logs

from job import errors
from job.runs.claim import Claimant


def test_same_owner_takes_over(tmp_path: Path) -> None:
    """The Job's next Pod takes the run over at once; the one before finds itself superseded where it saves next."""
    first = open_checkpoints(tmp_path)
    with first, open_checkpoints(tmp_path) as second:
        second.save(lambda: state(1), now=True, wait=False)
        second.flush()
        first.save(lambda: state(7), now=True, wait=False)
        with pytest.raises(errors.StoppedError, match="another process has taken this run over"):
            first.flush()
    loaded, _ = load(tmp_path)
    assert loaded is not None
    assert 1 == loaded.step


def test_other_owner_waits(tmp_path: Path) -> None:
    """Another owner gives way to a claim that is renewed twice, naming its holder: that is no mistake in the settings.

    One renewal may be the last one of a process that is stopped.
    """
    renewing = open_checkpoints(tmp_path, "a", takeover=2.0)  # it renews four times as often as it has to
    with (
        renewing,
        pytest.raises(errors.StoppedError, match=r"a works on this run: .* renewed its claim 2 times") as caught,
    ):
        open_checkpoints(tmp_path, "b", takeover=2.0).__enter__()
    assert 75 == caught.value.exit_code


def test_holder_saves_and_ends_while_another_owner_waits(tmp_path: Path) -> None:
    """A claim that is renewed once and then released is taken over."""
    with open_checkpoints(tmp_path, "a", takeover=600.0) as holder:
        looks = []

        def read_index() -> tuple[dict[str, Any], int]:
            looks.append(holder._read_index())
            if len(looks) == 1:
                holder.flush()
            elif len(looks) == 2:
                assert holder.save_if_possible(5.0)
            return looks[-1]

        found, _ = Claimant(owner="b", takeover_seconds=1.0).wait_until_free(read_index)

    assert 3 == len(looks)
    assert ("a", True) == (found["claim"]["owner"], found["claim"]["released"])


@pytest.mark.parametrize(("holder", "other"), [("", "job-uid"), ("job-uid", "")])
def test_local_process_and_job_wait_for_each_other(tmp_path: Path, holder: str, other: str) -> None:
    """A process outside Kubernetes waits until a Job's claim expires, and a Job until that of such a process does."""
    with capture_logs() as lines, open_checkpoints(tmp_path, holder):
        started = time.monotonic()
        with open_checkpoints(tmp_path, other, takeover=0.2):
            assert time.monotonic() - started >= 0.2
    assert "claim.waiting" in [line["event"] for line in lines]


def test_claim_is_renewed_by_the_same_state(tmp_path: Path) -> None:
    """Where the same state is saved again and again, as in a long validation, the claim is renewed all the same."""
    renewals = set()
    with open_checkpoints(tmp_path, takeover=1.0, interval=0.01) as checkpoints:
        until = time.monotonic() + 1
        while time.monotonic() < until:
            checkpoints.save(lambda: state(1), now=False, wait=False)
            renewals.add(read_index(tmp_path)["claim"]["renewed_at"])
            time.sleep(0.02)
    assert len(renewals) > 4, renewals


def test_another_pid_namespace(tmp_path: Path) -> None:
    """A claim from another container is held, although its host has our name and none of our processes has its PID."""
    with open_checkpoints(tmp_path, ""):
        index = read_index(tmp_path)
    process = index["claim"]["process"]
    assert Path("/proc/self/ns/pid").stat().st_ino == process["pid_namespace"]
    ended = process | {"started": "long ago"}
    for namespace, expected in ((process["pid_namespace"], []), (1, ["claim.waiting"])):
        index["claim"] |= {"process": ended | {"pid_namespace": namespace}, "released": False}
        (tmp_path / "c/index.json").write_text(json.dumps(index))
        with capture_logs() as lines, open_checkpoints(tmp_path, "", takeover=0.2):
            pass
        assert expected == [line["event"] for line in lines]


def test_released_by_a_failure(tmp_path: Path) -> None:
    """A process that ends before the run does releases its claim."""
    with pytest.raises(ZeroDivisionError), open_checkpoints(tmp_path, "a"):
        raise ZeroDivisionError
    with open_checkpoints(tmp_path, "b"):
        claim = json.loads((tmp_path / "c/index.json").read_text())["claim"]
    assert ("b", False) == (claim["owner"], claim["released"])


@pytest.mark.parametrize(
    ("owner", "released", "age", "holder"),
    [("b", False, 10.0, "b"), ("b", True, 10.0, None), ("b", False, 61.0, None), ("a", False, 10.0, None)],
)
def test_holder_at_one_look(owner: str, released: bool, age: float, holder: str | None) -> None:
    """Another owner's claim that is neither released nor expired names who works on the run."""
    claim = Claimant(owner=owner, takeover_seconds=60.0).claim(released=released)

    assert holder == Claimant(owner="a", takeover_seconds=60.0).find_holder(claim, age)


def test_no_claim_has_no_holder() -> None:
    """A run that nobody has begun belongs to nobody, and so does that of a process that has ended."""
    claimant = Claimant(owner="", takeover_seconds=60.0)
    ended = claimant.claim(released=False)
    ended["process"] = ended["process"] | {"pid": 2**22 + 1}  # above the largest PID

    assert None is claimant.find_holder(None, 0.0)
    assert None is claimant.find_holder(ended, 0.0)
