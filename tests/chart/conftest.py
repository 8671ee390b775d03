"""Every test that takes `helm` runs with every version of it that there is."""

from __future__ import annotations

import pytest
from charts import Helm, helm_3, helm_4
from paths import SHARED

# Without Helm, and without ../shared to install one, this tier is not collected.
collect_ignore_glob = [] if SHARED.is_dir() or helm_4() or helm_3() else ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    """Name the marker."""
    config.addinivalue_line("markers", "newest_helm: one version is enough, or only the newest can do it")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test that takes `helm` with every version that there is."""
    if "helm" in metafunc.fixturenames:
        found = [Helm(str(path), version) for version, path in ((4, helm_4()), (3, helm_3())) if path]
        nothing = pytest.param(None, marks=pytest.mark.skip("no helm on the path, nor beside the project"))
        if metafunc.definition.get_closest_marker("newest_helm"):
            found = found[:1]
        metafunc.parametrize("helm", found or [nothing], ids=[f"helm{one.version}" for one in found] or ["none"])
