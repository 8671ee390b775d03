"""Write every file that is generated from the code: tables of the documentation, helm/, k8s/ and some of examples/.

--check only compares. k8s/ and examples/ need helm, which renders the chart. Without it, --check leaves them out, and
writing ends with exit code 1.
"""

from __future__ import annotations

import argparse
import difflib
import json
import re
import shutil
import sys
from typing import TYPE_CHECKING

import generate_chart
import generate_examples
import prerequisites
import scaling
from generate_chart import ROOT

from job import errors
from job.commands import cli
from job.config import reference
from job.data import litter, validation
from job.data.quarantine import REASONS
from job.evaluation import metrics_schema

if TYPE_CHECKING:
    from pathlib import Path

JOB_DOES: dict[errors.JobAction, str] = {
    "Complete": "completes",
    "Count": "counts it, tries again",
    "FailJob": "fails",
    "Ignore": "ignores it, tries again",
}


def main() -> int:
    """Write the files, or compare them; return 1 where one differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where something would change")
    parser.add_argument("--helm", default="helm", help="the program (default: helm)")
    arguments = parser.parse_args()
    failed = _write(documents() | generate_chart.chart(), only_compare=arguments.check)
    if helm := shutil.which(arguments.helm):  # it reads what was just written
        files = generate_chart.manifests(helm) | generate_examples.examples(helm)
        failed |= _write(files, only_compare=arguments.check)
    elif not arguments.check:
        failed = True
        print("k8s/ and examples/ are not written: there is no helm. Set HELM=/path/to/helm.", file=sys.stderr)
    return int(failed)


def _write(files: dict[Path, str], *, only_compare: bool) -> bool:
    """Write the files, or compare them; return whether one that is only compared differs."""
    differs = False
    for path, expected in files.items():
        found = path.read_text(encoding="utf-8") if path.exists() else ""
        if found == expected:
            continue
        name = str(path.relative_to(ROOT))
        if only_compare:
            differs = True
            lines = difflib.unified_diff(found.splitlines(), expected.splitlines(), name, "generated", lineterm="")
            print(f"{name} is stale: run `make generated`", *lines, sep="\n")
        else:
            path.write_text(expected, encoding="utf-8")
            print(f"wrote {name}")
    return differs


def documents() -> dict[Path, str]:
    """Return the documents whose tables have their source in the code."""
    reasons = [f"| `{reason}` | {meaning} |" for reason, meaning in REASONS.items()]
    manuals = [
        f"## finetune {name}\n\n```text\n{command.MANUAL.overview(name)}\n```\n"
        for name, command in cli.all_commands().items()
    ]
    kinds = [f"| {kind} | {' '.join(f'`{one}`' for one in endings)} |" for kind, endings in litter.kinds().items()]
    assumed = scaling.Inputs()
    tables = [
        ("docs/cli.md", "commands", "\n" + "\n".join(manuals) + "\n"),
        ("CONTRIBUTING.md", "prerequisites", prerequisites.table()),
        ("docs/settings.md", "settings", reference.settings_table()),
        ("docs/input.md", "litter", "\n".join(["| files | endings |", "|---|---|", *kinds]) + "\n"),
        ("docs/input.md", "quarantine", "\n".join(["| reason | meaning |", "|---|---|", *reasons]) + "\n"),
        ("docs/scaling.md", "scaling times", scaling.time_table(assumed)),
        ("docs/scaling.md", "scaling inputs", scaling.input_table(assumed)),
        ("docs/scaling.md", "scaling sizes", scaling.size_table(assumed)),
    ]
    operations = ROOT / "docs/operations.md"
    paths = {ROOT / name for name, _, _ in tables} | {operations}
    files = {path: path.read_text(encoding="utf-8") for path in sorted(paths)}
    for name, what, table in tables:
        pattern = rf"(<!-- generated: {what} -->\n).*?(?=<!-- end -->)"
        files[ROOT / name] = _replace(files[ROOT / name], pattern, rf"\g<1>{_escape(table)}")
    # Causes and remedies are written by hand, between what the code knows of each exit code.
    for code, (meaning, action) in errors.exit_codes().items():
        row = rf"| {code} | {_escape(meaning)} |\1| {JOB_DOES[action]} |\n"
        files[operations] = _replace(files[operations], rf"(?<=\n)\| {code} \|[^|]*\|([^\n]*)\|[^|]*\|\n", row)
    schema = json.dumps(validation.schema(), indent=2, ensure_ascii=False) + "\n"
    return files | {
        ROOT / "docs/validate.schema.json": schema,
        ROOT / "docs/metrics.schema.json": metrics_schema.schema_text(),
    }


def _replace(text: str, pattern: str, replacement: str) -> str:
    text, count = re.subn(pattern, replacement, text, flags=re.DOTALL)
    assert count == 1, f"{count} places match {pattern}"
    return text


def _escape(text: str) -> str:
    return text.replace("\\", r"\\")


if __name__ == "__main__":
    sys.exit(main())
