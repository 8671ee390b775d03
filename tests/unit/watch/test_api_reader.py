"""What `finetune watch` makes of the API server's answers."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, NoReturn

import pytest
from kubernetes.client import ApiException

from job.errors import AccessError, FinetuneError, UnavailableError
from job.watch.api_reader import Cluster

if TYPE_CHECKING:
    from pathlib import Path


def answer(status: int) -> object:
    """Return what a reader makes of an answer with a status."""

    def refuse(**_: object) -> NoReturn:
        raise ApiException(status=status, reason="reason")

    return object.__new__(Cluster)._get(refuse)  # without a kubeconfig


def test_absent_object_is_none() -> None:
    """An object that does not exist is no error."""
    assert answer(404) is None


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, AccessError),
        (403, AccessError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
        (0, UnavailableError),
        (400, ApiException),
    ],
)
def test_refusals(status: int, expected: type[FinetuneError | ApiException]) -> None:
    """Missing permission and a busy server each have their error; any other refusal is a bug, and raised as it is."""
    with pytest.raises(expected):
        answer(status)


def test_no_cluster(tmp_path: Path) -> None:
    """Without a kubeconfig it exits with 2, naming the variable."""
    environment = os.environ | {"KUBECONFIG": str(tmp_path / "none"), "HOME": str(tmp_path)}
    command = [sys.executable, "-m", "job", "watch", "flowers"]

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert 2 == done.returncode
    assert "KUBECONFIG" in done.stderr
    assert "run.failed" not in done.stderr
