"""The environment of this process and of its children."""

from __future__ import annotations

from typing import TYPE_CHECKING

from job.config import environment

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
