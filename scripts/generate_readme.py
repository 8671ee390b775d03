"""Write the tables of README.md that have their source in the code: settings, exit codes, reasons of the quarantine.

python scripts/generate_readme.py [--check]
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from job import config, errors, images

README = Path(__file__).resolve().parents[1] / "README.md"


def main() -> int:
    """Rewrite the README, or with --check only say whether it would change."""
    before = README.read_text(encoding="utf-8")
    after = generated(before)
    if "--check" in sys.argv:
        return int(before != after)
    README.write_text(after, encoding="utf-8")
    return 0


def generated(readme: str) -> str:
    """Return the README with what stands between its markers made anew."""
    codes = [f"| {code} | {meaning} | {action} |" for code, (meaning, action) in errors.exit_codes().items()]
    reasons = [f"| `{reason}` | {meaning} |" for reason, meaning in images.REASONS.items()]
    tables = {
        "settings": config.settings_table(),
        "exit codes": "\n".join(["| code | meaning | the Job |", "|---|---|---|", *codes]) + "\n",
        "quarantine": "\n".join(["| reason | meaning |", "|---|---|", *reasons]) + "\n",
    }
    for name, table in tables.items():
        pattern = re.compile(rf"(<!-- generated: {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        readme, count = pattern.subn(lambda found, table=table: found[1] + table + found[2], readme)  # type: ignore[misc]
        assert count == 1, f"README.md has no section for {name}"
    return readme


if __name__ == "__main__":
    sys.exit(main())
