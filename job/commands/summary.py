"""``finetune summary``: print the model's layers and which of them each stage trains."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from job.commands.command import Command, check_machine, printing, settings_help
from job.config.load import load_settings
from job.runtime import device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from job.config.settings import ModelSettings
    from job.observability.progress import Progress

SUMMARY = "Print the model's layers and which of them each stage trains. Needs no data."


def help_text(topic: str = "") -> str:
    """Return what ``finetune summary --help`` prints."""
    return settings_help("summary", SUMMARY, topic)


def parse(arguments: Sequence[str]) -> Command:
    """Load the settings.

    Raises:
        SettingsError: they are invalid.
    """
    settings = load_settings(arguments).settings
    check_machine(settings)
    return Command(partial(_execute, settings.model), settings.log)


def _execute(settings: ModelSettings, progress: Progress) -> int:
    device.prepare()
    from job.model import classifier

    return printing(classifier.summary(settings)).execute(progress)
