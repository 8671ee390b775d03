"""The project's own files agree with each other: pyproject, locks, imports, the rule about skips."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib import metadata

import paths
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from paths import ROOT

pytest_plugins = ["pytester"]

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, GROUPS = PYPROJECT["project"], PYPROJECT["dependency-groups"]
LOCKS = {path.stem: path for path in sorted((ROOT / "requirements").glob("*.txt"))}


def requirements(extra: str | None = None) -> list[Requirement]:
    """Return what an installation with this extra, or of this group alone, asks for; the project's own followed."""
    if extra in GROUPS:
        return [Requirement(line) for line in GROUPS[extra]]
    found = [Requirement(line) for line in PROJECT["dependencies"]]
    for line in PROJECT["optional-dependencies"][extra] if extra else []:
        requirement = Requirement(line)
        if requirement.name == PROJECT["name"]:
            for inner in requirement.extras:
                found += requirements(inner)
        else:
            found.append(requirement)
    return found


def pins(lock: str) -> dict[str, str]:
    """Return name -> version of one lock."""
    return dict(re.findall(r"^([a-z0-9][a-z0-9.-]*)(?:\[.*?\])?==([^ ;\\]+)", LOCKS[lock].read_text(), re.MULTILINE))


def test_there_is_a_lock_for_each_way_to_install() -> None:
    """Locks for CPU, GPU and development, for ONNX beside them, for what builds the image, and for the proxy."""
    assert ["build", "cpu", "dev", "gpu", "onnx", "proxy"] == list(LOCKS)


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_holds_what_pyproject_asks_for(lock: str) -> None:
    """Every direct dependency is locked, at a version within its range: else `make lock` was forgotten."""
    locked = pins(lock)

    missing = [
        str(requirement)
        for requirement in requirements(lock)
        if not requirement.specifier.contains(locked.get(canonicalize_name(requirement.name), "0"))
    ]

    assert [] == missing


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_pins_hashes_and_names_no_host(lock: str) -> None:
    """Every requirement is one exact version with hashes; where to get it is the installer's business."""
    text = LOCKS[lock].read_text()
    entries = re.split(r"\n(?=[^\s#])", text.strip())

    assert "://" not in text
    assert not re.search(r"^\s*-(?!-hash=)", text, re.MULTILINE)
    assert [] == [entry for entry in entries if not re.match(r"\S+==\S+.* \\\n    --hash=sha256:[0-9a-f]{64}", entry)]
    assert len(entries) == len(pins(lock))


def test_dev_lock_names_the_extras() -> None:
    """A pin without its extra is no pin for pip before 24, which then takes the newest version and refuses its hash."""
    text = LOCKS["dev"].read_text()
    asked = [
        requirement
        for distribution in metadata.distributions()
        if distribution.name != PROJECT["name"]
        for requirement in map(Requirement, distribution.requires or ())
        if requirement.extras and requirement.marker is None
    ]

    missing = [
        str(requirement)
        for requirement in asked
        for extra in requirement.extras
        if not re.search(rf"^{canonicalize_name(requirement.name)}\[.*\b{extra}\b.*\]==", text, re.MULTILINE)
    ]

    assert asked
    assert [] == missing


def test_locks_agree() -> None:
    """What is tested (dev) and what is shipped (cpu, gpu, onnx) are the same versions."""
    dev = pins("dev")

    differing = {
        (lock, name) for lock in ("cpu", "gpu", "onnx") for name, pin in pins(lock).items() if dev.get(name, pin) != pin
    }

    assert set() == differing


def test_every_import_is_a_declared_dependency() -> None:
    """The package imports nothing that only another package happens to bring."""
    declared = {canonicalize_name(requirement.name) for requirement in requirements("cpu") + requirements("onnx")}
    owners = metadata.packages_distributions()
    imported = set()
    for path in (ROOT / "job").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                imported.add(node.module.partition(".")[0])

    undeclared = {
        name
        for name in imported - sys.stdlib_module_names - {"job"}
        if declared.isdisjoint(map(canonicalize_name, owners.get(name, [])))
    }

    assert set() == undeclared


@pytest.mark.parametrize(("environment", "code"), [({"CI": "true"}, 1), ({}, 0)])
def test_a_skip_fails_the_run_in_ci_alone(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], code: int
) -> None:
    """With CI set a skipped test fails the run and is named with its reason; at a developer's desk it does not."""
    pytester.makeconftest((ROOT / "conftest.py").read_text())
    pytester.makepyfile(test_it="import pytest\ndef test_it(): pytest.skip('no data here')")
    monkeypatch.delenv("CI", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")

    assert code == done.ret
    assert ("test_it.py::test_it: Skipped: no data here" in done.stdout.str()) == bool(environment)


@pytest.mark.parametrize(("shared", "outcomes"), [(True, {"passed": 2}), (False, {"passed": 1, "deselected": 1})])
def test_what_needs_shared_is_not_collected_without_it(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, shared: bool, outcomes: dict[str, int]
) -> None:
    """Where ../shared is absent, a marked test is deselected and not skipped: the suite passes in CI."""
    pytester.makeconftest((ROOT / "conftest.py").read_text())
    pytester.makepyfile("import pytest\n@pytest.mark.needs_shared\ndef test_data(): pass\ndef test_other(): pass")
    monkeypatch.setattr(paths, "SHARED", pytester.path / "shared")
    if shared:
        paths.SHARED.mkdir()
    monkeypatch.setenv("CI", "true")

    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")

    assert 0 == done.ret
    done.assert_outcomes(**outcomes)
