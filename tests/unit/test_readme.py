"""The README and the pages under docs/ say what the code does."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
import readme
from paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

README = readme.TEXT
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

TESTS = {
    "make demo": ["unit/test_readme.py::test_make_targets_of_the_readme", "pipeline/test_demo.py::test_demo"],
    "make unit": ["unit/test_readme.py::test_make_targets_of_the_readme"],
    "make test": ["unit/test_readme.py::test_make_targets_of_the_readme"],
    "make image-gpu": ["unit/test_readme.py::test_make_targets_of_the_readme"],
    "apt-get install make python3-venv": ["unit/test_readme.py::test_packages_of_a_bare_debian"],
    "pip install '.[cpu]'": ["integration/test_wheel.py::test_install_command_of_the_readme"],
    "finetune run --help": ["unit/commands/test_cli.py::test_help_of_run"],
    "finetune run --input.uri": ["pipeline/test_readme.py::test_run"],
    "mkdir -p trained": ["image/test_readme.py::test_docker_commands"],
    "docker run": ["image/test_readme.py::test_docker_commands"],
    "helm install": [
        "chart/test_chart.py::test_install_command_of_the_readme",
        "cluster/test_install.py::test_helm_test",
    ],
    "helm test finetune": ["cluster/test_install.py::test_helm_test"],
    "finetune validate": ["integration/test_validate.py::test_a_bucket"],
    "finetune doctor": [
        "unit/commands/test_doctor.py::test_a_local_run",
        "integration/test_doctor.py::test_a_settings_file",
    ],
    "finetune report RUN": ["pipeline/test_report.py::test_published_report_is_made_again"],
    "finetune watch JOB": ["cluster/test_install.py::test_watch_of_a_finished_job"],
    "kubectl apply -k k8s/": ["cluster/test_starts.py::test_plain_manifests"],
    "kubectl create job first --from=cronjob/finetune": ["cluster/test_starts.py::test_cronjob_by_hand"],
    "kubectl create job x --image=IMAGE -- finetune run": ["cluster/test_starts.py::test_job_by_hand"],
}
"""How a command of the README begins -> the tests that run it, on other places or with smaller settings."""


def test_every_command_is_run_by_a_test() -> None:
    """Each command that the README shows has its test, and each test named here exists."""
    commands = readme.commands()
    beginnings = {
        line: max((start for start in TESTS if line.startswith(start)), key=len, default="") for line in commands
    }

    assert [] == [line for line, start in beginnings.items() if not start], "has no test"
    assert set(TESTS) == set(beginnings.values())
    for names in TESTS.values():
        for name in names:
            path, _, function = name.partition("::")
            assert f"\ndef {function}(" in (ROOT / "tests" / path).read_text(encoding="utf-8"), name


@pytest.mark.parametrize(
    ("target", "command"),
    [
        ("demo", "finetune demo"),
        ("unit", "-m 'not slow' --hypothesis-profile fast tests/unit"),
        ("test", "pytest -m alone"),
        ("image-gpu", "build --tag finetune:gpu --tag finetune:0.1.0"),
    ],
)
def test_make_targets_of_the_readme(target: str, command: str) -> None:
    """Each target runs what the README says of it. Installing for a GPU takes 7 GB, so nothing is executed."""
    done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True)

    assert f"make {target}" in README
    assert command in done.stdout


def test_packages_of_a_bare_debian() -> None:
    """What the README installs on a bare Debian is what CI installs there for `make`."""
    words = set(readme.command("apt-get install").split()[2:])

    assert words <= set(re.findall(r"missing\+=\(([a-z0-9-]+)\)", (ROOT / ".ci/run").read_text()))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as Markdown viewers make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    """Every file and every heading that a page links to is there."""
    links = re.findall(r"\[[^\]\"]+\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name) if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_readme_is_short() -> None:
    """A newcomer reads it to the end; everything else is in docs/."""
    assert len(README) <= 9000


def test_reading_order() -> None:
    """The reading order names modules that exist."""
    modules = re.findall(r"`(job/[a-z_/]+(?:\.py)?)`", README)
    assert len(modules) > 10
    assert [] == [module for module in modules if not (ROOT / module).exists()]


def test_make_targets() -> None:
    """Every make target that the README names exists."""
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?<!install )\bmake ([a-z0-9-]+)\b", README))
    assert {"demo", "test", "unit"} <= named
    assert named <= targets


def test_settings_that_are_named() -> None:
    """Every setting that the README shows exists, with the default that it gives."""
    defaults = dict(re.findall(r"^\| `([a-z_.]+)` \| `?([^`|]*)`? \|", README, re.MULTILINE))
    table = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    for name, default in defaults.items():
        found = re.search(rf"^\| `{re.escape(name)}` \| `([^`]*)` \|", table, re.MULTILINE)
        assert found, name
        if default.strip() not in ("", "the demo's pictures"):
            assert default.strip() == found[1].strip('"').removesuffix(".0"), name


def test_results_are_those_that_were_measured() -> None:
    """Each figure of the README is in benchmarks/RESULTS.md or docs/results.md, perhaps with more digits."""
    measured = {
        float(number.replace(",", ""))
        for page in ("benchmarks/RESULTS.md", "docs/results.md")
        for number in re.findall(r"\d[\d,]*(?:\.\d+)?", (ROOT / page).read_text(encoding="utf-8"))
        if number.strip(",")
    }
    [table] = re.findall(r"^\| what \| figure \|\n\|---\|---\|\n((?:\|.*\n)+)", README, re.MULTILINE)
    figures = re.findall(r"\d+(?:\.\d+)?", re.sub(r"^\|[^|]*\|", "", table, flags=re.MULTILINE))

    assert len(figures) > 5
    for figure in figures:
        digits = len(figure.partition(".")[2])
        assert float(figure) in {round(number, digits) for number in measured}, figure


@pytest.mark.parametrize("name", ["training.svg", "end.svg"])
def test_pictures_load_nothing(name: str) -> None:
    """A picture of the terminal is whole by itself: it names no font and no image elsewhere."""
    text = (ROOT / "docs/screens" / name).read_text(encoding="utf-8")

    assert "url(http" not in text.replace('"', "")
    assert "href=" not in text
