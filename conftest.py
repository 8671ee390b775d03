"""Rules for the whole suite.

Where ``CI`` is set, nothing may be skipped: nobody reads a skip there. A test that needs ``../shared`` is not collected
where that is absent. No example of hypothesis is timed, since a busy machine is no fault of the code.
"""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

import hypothesis
import pytest
from paths import SHARED

if TYPE_CHECKING:
    from pathlib import Path

hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.register_profile("fast", deadline=None, max_examples=20)  # for `make unit`
hypothesis.settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Name the markers."""
    config.addinivalue_line("markers", "needs_shared: reads ../shared; not collected where that is absent")
    config.addinivalue_line("markers", "long: takes a minute or more; started first, or one worker would wait for it")
    config.addinivalue_line("markers", "slow: takes half a second of CPU time or more; `make unit` leaves it out")
    config.addinivalue_line("markers", "alone: asserts seconds; runs beside no other")


TIERS = ("unit", "integration", "pipeline", "faults", "chart", "image", "cluster")
"""The folders of tests/, cheapest first."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave tests/replicas out unless it is all that is asked for: it configures TensorFlow's devices for a process."""
    folder = config.rootpath / "tests/replicas"
    if collection_path != folder:
        return None
    asked = [(config.invocation_params.dir / argument.partition("::")[0]).resolve() for argument in config.args]
    return None if all(path.is_relative_to(folder) for path in asked) else True


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run tier after tier, in random order within each, and long tests first; deselect what needs ../shared if absent.

    The cluster's tests come last, since a process that has run one knows the cluster. They run as they are written:
    those of one file share an installation, which each of them leaves as the next one needs it.
    """

    def position(item: pytest.Item) -> tuple[int, bool, str, int]:
        is_long = item.get_closest_marker("long") is not None
        folders = item.path.relative_to(config.rootpath).parts
        tier = next((number for number, name in enumerate(TIERS) if name in folders), 0)
        if TIERS[tier] == "cluster":
            return tier, not is_long, str(item.path), item.location[1] or 0
        return -1 if is_long else tier, False, "", 0

    items.sort(key=position)
    if SHARED.is_dir():
        return
    unavailable = [item for item in items if item.get_closest_marker("needs_shared")]
    config.hook.pytest_deselected(items=unavailable)
    items[:] = [item for item in items if item not in unavailable]


def pytest_collection_finish() -> None:
    """Exempt what is imported by now from garbage collection: with TensorFlow, that takes a sixth of the CPU time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run of passed tests that skipped some, where CI forbids it."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") and reporter and reporter.stats.get("skipped") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which tests those were, and why they were skipped."""
    skipped = terminalreporter.stats.get("skipped", [])
    if os.environ.get("CI") and skipped:
        terminalreporter.section("skipped, which CI forbids", red=True)
        for report in skipped:
            terminalreporter.line(f"{report.nodeid}: {report.longrepr[2]}")
