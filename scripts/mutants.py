"""Plant mistakes one at a time, and report which tier of the tests notices each.

The mistakes are in mutants.toml beside this file. Each replaces a text that occurs once in a file; then the tests that
should notice it are run, and the file is restored. The exit code is 1 if a mistake is not noticed. The working tree
must be clean, so that no uncommitted work is mixed with a planted mistake.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from job.config import environment

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[1]

FAST = ["-m", "not slow", "--hypothesis-profile", "fast"]
"""What `make unit` gives pytest: the unit tier is what that runs."""

NO_TESTS = 5
"""pytest's exit code if it runs no test."""

TIMEOUT_SECONDS = 600
"""A mistake that makes the tests hang for so long is noticed."""


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One mistake, and the tests that should notice it.

    Attributes:
        name: the mistake, as an identifier.
        path: the file, relative to the project's root.
        before: the right text; it occurs once in the file.
        after: the wrong text.
        tests: pytest node IDs below tests/, the cheapest tier first.
    """

    name: str
    path: str
    before: str
    after: str
    tests: list[str]

    def occurrences(self) -> int:
        """Return how often the right text occurs in the file."""
        return (ROOT / self.path).read_text(encoding="utf-8").count(self.before)

    def tiers(self) -> dict[str, list[str]]:
        """Return pytest's arguments by tier: the folder below tests/ of the tests. Slow ones of unit/ are a tier."""
        found: dict[str, list[str]] = {}
        for test in self.tests:
            found.setdefault(test.partition("/")[0], []).append(f"tests/{test}")
        if unit := found.pop("unit", []):
            return {"unit": [*FAST, *unit], "slow": ["-m", "slow", *unit], **found}
        return found


def read() -> dict[str, Mutant]:
    """Return name -> mutant."""
    tables = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
    return {name: Mutant(name=name, **table) for name, table in tables.items()}


@contextlib.contextmanager
def planted(mutant: Mutant) -> Iterator[None]:
    """Plant a mutant; restore the file however the context ends."""
    path = ROOT / mutant.path
    right = path.read_bytes()
    text = right.decode()
    assert text.count(mutant.before) == 1, f"{mutant.name}: expected its text once in {path}"
    try:
        path.write_bytes(text.replace(mutant.before, mutant.after).encode())
        yield
    finally:
        path.write_bytes(right)


def fails(tests: list[str]) -> bool:
    """Return whether one of the tests fails, or hangs.

    Args:
        tests: arguments of pytest: node IDs, and which of their tests are deselected. None may be left.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *tests]
    # note: no bytecode, since Python recognizes a file's by its size and the second of its last change alone
    variables = environment.for_child(PYTHONDONTWRITEBYTECODE="1")
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired:
        return True
    if done.returncode == NO_TESTS and "deselected" in done.stdout:
        return False
    # note: any other code means that the tests could not be run, which says nothing about the mistake
    assert done.returncode in (0, 1), f"pytest ended with {done.returncode}:\n{done.stdout}{done.stderr}"
    assert " passed" in done.stdout or done.returncode, f"no test was run:\n{done.stdout}"
    return done.returncode == 1


def noticed_by(mutant: Mutant) -> str | None:
    """Plant a mutant, and return the first tier that notices it; None if none does."""
    with planted(mutant):
        return next((tier for tier, tests in mutant.tiers().items() if fails(tests)), None)


def main() -> int:
    """Plant the mutants that are named, or all of them; return 1 if one is not noticed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="the mistakes to plant (default: all)")
    parser.add_argument("--list", action="store_true", help="print the names of the mistakes and plant nothing")
    arguments = parser.parse_args()
    mutants = read()
    if unknown := set(arguments.names) - set(mutants):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; --list prints the names")
    if arguments.list:
        print(*mutants, sep="\n")
        return 0
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--untracked-files=no"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    if changed:
        parser.error(f"the working tree has changes; commit or stash them first:\n{changed}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the file is restored
    tiers = []
    for name in arguments.names or mutants:
        started = time.monotonic()
        tiers.append(noticed_by(mutants[name]))
        print(f"{name:50} {time.monotonic() - started:6.1f} s  {tiers[-1] or 'NOT NOTICED'}", flush=True)
    noticed, by_unit = len(tiers) - tiers.count(None), tiers.count("unit")
    print(f"{noticed} of {len(tiers)} noticed ({noticed / len(tiers):.0%}), ", end="")
    print(f"{by_unit} by the unit tier ({by_unit / len(tiers):.0%})")
    return int(noticed < len(tiers))


if __name__ == "__main__":
    sys.exit(main())
