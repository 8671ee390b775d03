"""Python under the POSIX locale, without its UTF-8 mode: names of files are ASCII."""

from __future__ import annotations

import os
import subprocess
import sys

from paths import ROOT

ENVIRONMENT = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


def output_of(program: str, *arguments: str) -> str:
    """Run a program in a new process; return what it prints, and its traceback if it fails."""
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests"},
        capture_output=True,
        check=False,
    )
    return (done.stdout + done.stderr).decode()
