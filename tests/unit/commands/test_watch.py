"""`finetune watch`: its arguments."""

from __future__ import annotations

import pytest

from job import errors
from job.commands import watch
from job.watch.follow import Target


@pytest.mark.parametrize(
    ("arguments", "target"),
    [
        (["flowers"], Target("flowers")),
        (["job/flowers", "-n", "ml"], Target("flowers", "ml")),
        (["job.batch/flowers", "--namespace=ml", "--context", "gke"], Target("flowers", "ml", "gke")),
        (["gs://b/models/runs/x"], Target("gs://b/models/runs/x")),
    ],
)
def test_what_is_watched(arguments: list[str], target: Target) -> None:
    """A Job, as kubectl names it, with its namespace and context; or a run by its URI."""
    assert target == watch.read_target(arguments)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: JOB"),
        (["a", "b"], "unrecognized arguments: b"),
        (["a", "--namespce", "x"], "unrecognized arguments: --namespce x"),
        (["a", "-n"], "expected one argument"),
    ],
)
def test_mistakes(arguments: list[str], said: str) -> None:
    """What cannot be watched is refused, with the usage."""
    with pytest.raises(errors.SettingsError) as caught:
        watch.read_target(arguments)

    assert said in caught.value.message
    assert "JOB [--namespace NAME]" in caught.value.remedy
