"""Imports without garbage collection."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest

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
    with imports.without_gc():
        made += [[number] for number in range(100_000)]
        assert [] == collections
    assert gc.get_freeze_count() >= before + 200_000, "and later collections pass over them"
    assert gc.isenabled()


def test_a_failed_import_leaves_the_collector_on(collections: list[str]) -> None:
    """Its exception is the caller's."""
    with pytest.raises(ImportError), imports.without_gc():
        raise ImportError
    assert gc.isenabled()
    del collections


def test_a_collector_that_is_off_stays_off(collections: list[str]) -> None:
    """Whoever turned it off had a reason."""
    gc.disable()
    with imports.without_gc():
        pass
    assert not gc.isenabled()
    del collections
