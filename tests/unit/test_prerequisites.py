"""What `make test` needs: each thing is checked, listed, and missed in one clear line."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import prerequisites
import pytest
from paths import ROOT
from prerequisites import Prerequisite

if TYPE_CHECKING:
    from prerequisites import Without

MISSING = "are skipped; with `CI` set that is a failure"


def one(without: Without, *, is_met: bool = False) -> Prerequisite:
    """Return a prerequisite of some tests."""
    return Prerequisite("a thing", "tests/some", without, "get it", lambda: is_met)


@pytest.mark.parametrize(
    ("found", "ci", "code"),
    [
        (one("fail", is_met=True), "", 0),
        (one("fail"), "", 1),
        (one("may fail"), "true", 0),
        (one(MISSING), "", 0),
        (one(MISSING), "true", 1),
        (one("are left out"), "true", 0),
    ],
)
def test_report(
    found: Prerequisite, ci: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is missing is one line; the suite is not started where it would fail for that, in CI also for a skip."""
    monkeypatch.setattr(prerequisites, "ALL", (found,))
    monkeypatch.setenv("CI", ci)

    assert code == prerequisites.main()
    lines = capsys.readouterr().err.splitlines()
    assert [f"missing: a thing. Without it these {found.without}: tests/some. Remedy: get it"] * (
        not found.is_met()
    ) == lines


def test_reason_to_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test skips with the name of what is missing and the remedy."""
    monkeypatch.setattr(prerequisites, "ALL", (one(MISSING), one("fail", is_met=True)._replace(name="another")))

    assert "there is no a thing: get it" == prerequisites.reason_to_skip("a thing")
    assert "" == prerequisites.reason_to_skip("another")


@pytest.mark.parametrize("found", prerequisites.ALL, ids=lambda found: found.name)
def test_each_is_checked(found: Prerequisite) -> None:
    """Each prerequisite has a check that gives an answer on this machine, and stands in CONTRIBUTING.md."""
    assert found.is_met() in (True, False)
    assert f"| {found.name} |" in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def test_tests_skip_for_what_is_listed() -> None:
    """Each prerequisite that a test asks for is listed: else the test fails with a name that is unknown."""
    text = "".join(
        path.read_text(encoding="utf-8")
        for tier in ("faults", "integration")
        for path in (ROOT / "tests" / tier).glob("*.py")
    )
    asked = set(re.findall(r'reason_to_skip\("([^"]+)"\)', text))

    assert {"root, with loop devices", "root, with PID namespaces", "libfaketime", "Chromium"} == asked
    assert asked <= {found.name for found in prerequisites.ALL}


@pytest.mark.slow
def test_no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that does not answer is noticed, unless what the tests install is there."""
    monkeypatch.setattr(prerequisites, "ROOT", ROOT / "nowhere")
    monkeypatch.setenv("PIP_NO_INDEX", "1")

    assert not prerequisites._index_answers.__wrapped__()
