"""Imports without garbage collection, and without packages that the job does not need."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from paths import ROOT

from job.runtime import imports

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def collections() -> Iterator[list[str]]:
    """The phases of collections as they come; the collector is as it was afterwards."""
    phases: list[str] = []

    def listen(phase: str, _: object) -> None:
        phases.append(phase)

    gc.callbacks.append(listen)
    yield phases
    gc.callbacks.remove(listen)
    gc.enable()


def test_nothing_is_collected_while_importing(collections: list[str]) -> None:
    """However many objects are made."""
    made = [[number] for number in range(100_000)]
    assert collections, "the same number of objects is collected outside"
    collections.clear()
    before = gc.get_freeze_count()
    with imports.fast():
        made += [[number] for number in range(100_000)]
        assert [] == collections
    assert gc.get_freeze_count() >= before + 200_000, "and later collections pass over them"
    assert gc.isenabled()


def test_a_failed_import_leaves_the_collector_on(collections: list[str]) -> None:
    """Its exception is the caller's."""
    with pytest.raises(ImportError), imports.fast():
        raise ImportError
    assert gc.isenabled()
    del collections


def test_a_collector_that_is_off_stays_off(collections: list[str]) -> None:
    """Whoever turned it off had a reason."""
    gc.disable()
    with imports.fast():
        pass
    assert not gc.isenabled()
    del collections


def test_what_is_hidden_can_be_imported_later() -> None:
    """Only in the block it is missing, and not if it is there already."""
    program = """
import importlib, sys
from job.runtime import imports
for name in imports.UNUSED:
    with imports.fast():
        try:
            importlib.import_module(name)
        except ModuleNotFoundError:
            print("hidden", end=" ")
    importlib.import_module(name)
    with imports.fast():
        importlib.import_module(name)
    print(sys.modules[name].__name__, end=" ")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert " ".join(f"hidden {name}" for name in imports.UNUSED) == done.stdout.strip()


def test_scorer_hides_the_same() -> None:
    """It imports nothing of the job, so it has the names once more."""
    hidden = ", ".join(f'"{name}"' for name in imports.UNUSED)

    assert f"dict.fromkeys(({hidden}))" in (ROOT / "job/export/scorer.py").read_text(encoding="utf-8")


def test_keras_imports_nothing_else_that_it_does_not_need() -> None:
    """TensorFlow comes without the packages that only other functions of Keras need."""
    program = """
import sys
from job.runtime import device
device.import_tensorflow()
print(*{name.partition(".")[0] for name in sys.modules} & {"matplotlib", "pandas", "scipy", "sklearn"})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "" == done.stdout.strip()
