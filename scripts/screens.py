"""Take the pictures of the terminal that the README shows, from a real run: docs/screens/*.svg.

    PYTHONPATH=benchmarks python scripts/screens.py

The demo runs on a terminal; what it shows in the middle of stage 2, and in the end, is exported by rich.
"""

from __future__ import annotations

import io
import re
import sys
import tempfile
from pathlib import Path

import terminal
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

FOLDER = Path(__file__).parents[1] / "docs/screens"
COLUMNS = 90
LINES = 18
"""Lines of a picture: the last ones on the screen."""
TRAINING = re.compile(r"^fine_tuning .* epoch 6/10 .*\n. 6/10 [^a-z]* images", re.MULTILINE)
"""What is on the screen in the middle of stage 2: its bar, and below it that of the epoch."""


def main() -> None:
    """Run the demo, and export two screens."""
    screen, training = terminal.Screen(COLUMNS), ""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "job", "demo"]
        variables = {"PYTHONPATH": str(FOLDER.parents[1]), "TMPDIR": folder}
        for _, data in terminal.run(command, columns=COLUMNS, environment=variables, folder=Path(folder)):
            screen.write(data)
            if TRAINING.search("\n".join(screen.text())):
                training = export(screen.ansi())
        end = export(screen.ansi())
    if not training:
        sys.exit("no screen was seen in the middle of stage 2")
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "training.svg").write_text(training, encoding="utf-8")
    (FOLDER / "end.svg").write_text(end, encoding="utf-8")


def export(lines: list[str]) -> str:
    """Return lines with ANSI styles as an SVG document."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for line in lines[-LINES:]:
        console.print(Text.from_ansi(line), soft_wrap=True)
    document = console.export_svg(title="finetune demo", theme=MONOKAI, unique_id="finetune")
    # Fonts from elsewhere: a picture in a README must not load anything.
    return re.sub(r" *@font-face \{.*?\}\n", "", document, flags=re.DOTALL).replace("Fira Code, monospace", "monospace")


if __name__ == "__main__":
    main()
