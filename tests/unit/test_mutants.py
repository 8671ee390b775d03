"""The mistakes of `make mutants` can be planted: its table does not fall behind the code."""

from __future__ import annotations

import contextlib
import importlib.util
import re
import sys
from typing import TYPE_CHECKING, Any

import pytest
from paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def load_script() -> Any:
    """Return scripts/mutants.py as a module."""
    spec = importlib.util.spec_from_file_location("mutants", ROOT / "scripts/mutants.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["mutants"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SCRIPT = load_script()
MUTANTS = SCRIPT.read()


@pytest.mark.parametrize("name", MUTANTS)
def test_its_text_occurs_once(name: str) -> None:
    """The text that a mistake replaces occurs once in its file, and is replaced by another."""
    mutant = MUTANTS[name]

    assert 1 == mutant.occurrences()
    assert mutant.before != mutant.after


@pytest.mark.parametrize("name", MUTANTS)
def test_its_tests_exist(name: str) -> None:
    """Every test that should notice a mistake exists."""
    for test in MUTANTS[name].tests:
        path, _, function = test.partition("::")
        assert (ROOT / "tests" / path).exists()
        assert not function or re.search(rf"^def {function}\b", (ROOT / "tests" / path).read_text(), re.MULTILINE)


def test_file_is_restored(tmp_path: Path) -> None:
    """A file is as it was before the mistake even after Ctrl-C."""
    path = tmp_path / "right.py"
    path.write_text("1 <= 2\n")
    mutant = SCRIPT.Mutant(name="m", path=str(path), before="<=", after="<", tests=[])

    with contextlib.suppress(KeyboardInterrupt), SCRIPT.planted(mutant):
        planted = path.read_text()
        raise KeyboardInterrupt

    assert ("1 < 2\n", "1 <= 2\n") == (planted, path.read_text())
