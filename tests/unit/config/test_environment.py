"""The environment of this process and of its children."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from job.config import environment
from job.config.load import load_settings

if TYPE_CHECKING:
    import pytest


def test_child_gets_what_is_given_over_what_is_inherited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child process inherits every variable but those that are given, and this process keeps its own."""
    monkeypatch.setenv("INHERITED", "parent")
    monkeypatch.setenv("GIVEN", "parent")

    variables = environment.for_child(GIVEN="child")

    assert ("parent", "child") == (variables["INHERITED"], variables["GIVEN"])
    assert "parent" == environment.get("GIVEN")


def test_default_leaves_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A default is set only where the user has set nothing."""
    monkeypatch.setenv("SET", "user")
    monkeypatch.setenv("UNSET", "")
    monkeypatch.delenv("UNSET")

    environment.set_default("SET", "default")
    environment.set_default("UNSET", "default")

    assert ("user", "default") == (environment.get("SET"), environment.get("UNSET"))


def test_value_replaces_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable gets the value, whether or not it was set before."""
    for name in ("SET", "UNSET"):
        monkeypatch.setenv(name, "before")
    monkeypatch.delenv("UNSET")

    environment.set_value("SET", "after")
    environment.set_value("UNSET", "after")

    assert ("after", "after") == (environment.get("SET"), environment.get("UNSET"))


def test_the_environment_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others read and set variables here; what the user has set stays."""
    monkeypatch.setenv("FINETUNE_RUN__SEED", "3")
    monkeypatch.setenv("A_VARIABLE", "set")
    monkeypatch.delenv("ANOTHER_VARIABLE", raising=False)

    environment.set_default("A_VARIABLE", "default")
    environment.set_default("ANOTHER_VARIABLE", "default")

    assert 3 == load_settings([]).settings.run.seed
    assert ("set", None) == (environment.get("A_VARIABLE"), environment.get("NO_SUCH_VARIABLE"))
    assert {"ANOTHER_VARIABLE": "default", "EXTRA": "1"}.items() <= environment.for_child(EXTRA="1").items()
    assert "EXTRA" not in os.environ
    monkeypatch.delenv("ANOTHER_VARIABLE")
