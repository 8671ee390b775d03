"""``finetune summary``: print the model's layers and which of them each stage trains."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from job.commands.command import Command, check_machine, printing, showing
from job.commands.manual import SETTINGS_USAGE, Manual
from job.config.load import load_settings
from job.runtime import device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import Settings
    from job.observability.progress import Progress

MANUAL = Manual(
    summary="Print the model's layers and which of them each stage trains. Needs no data.",
    usage=(SETTINGS_USAGE,),
    description="""\
It takes the settings of finetune run, of which those of the model and of fine_tuning matter, and loads no weights. The
table is printed to stdout after about 5 seconds, most of which TensorFlow needs to start.
""",
    examples={
        "": "the default model",
        "--model.alpha 0.35 --model.image_size 96": "a smaller one",
        "--fine_tuning.from_layer block_13_expand": "fine-tuning of the last blocks alone",
    },
    exit_codes={0: "printed", 2: "a setting is wrong, or TensorFlow is not installed"},
    settings=("model", "fine_tuning"),
)


def parse(arguments: Sequence[str]) -> Command:
    """Load the settings.

    Raises:
        SettingsError: they are invalid.
    """
    settings = load_settings(arguments).settings
    check_machine(settings)
    return Command(partial(_execute, settings), settings.log)


def _execute(settings: Settings, progress: Progress) -> int:
    device.prepare()
    with showing(progress), progress.phase("import", None, ""):
        device.import_tensorflow()
        from job.model import classifier

        text = classifier.summary(settings.model, settings.fine_tuning)
    return printing(text).execute(progress)
