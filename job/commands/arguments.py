"""Arguments of commands that take places beside flags and settings: ``finetune predict RUN PATH… --top-k 3``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from job import uri
from job.config.hints import did_you_mean
from job.config.settings import setting_fields
from job.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

_SWITCH_VALUES = {"true", "false", "yes", "no", "on", "off", "1", "0"}


class Arguments(NamedTuple):
    """A command line, divided.

    Attributes:
        places: what is no flag and no value of one, in order.
        flags: the command's own flags -> their values; "" for a switch.
        settings: the rest: flags that are settings, for load_settings.
    """

    places: list[str]
    flags: dict[str, str]
    settings: list[str]


def divide(
    arguments: Sequence[str], *, command: str, flags: Mapping[str, str], places: Collection[str], more: bool = False
) -> Arguments:
    """Divide a command line.

    ``--`` ends the flags: what follows are places, also where it begins with a dash; ``-`` alone is one anywhere.

    Args:
        arguments: those that follow the command's name.
        command: its name, for messages.
        flags: the command's own flags -> an example of the value; "" for a switch.
        places: the names of the places that must be given; RUN or OUTPUT_URI, the first one, must be a URI or a path.
        more: the last place may be repeated.

    Raises:
        SettingsError: a flag is unknown or lacks its value, or there are too few or too many places. The message has
            all mistakes.
    """
    found, mistakes, remaining = Arguments([], {}, []), [], list(arguments)
    known = [*flags, "--config", *(f"--{name}" for name in setting_fields())]
    while remaining:
        argument = remaining.pop(0)
        name, equals, value = argument.partition("=")
        if argument == "--":
            found.places.extend(remaining)
            break
        if argument == "-" or not argument.startswith("-"):
            found.places.append(argument)
        elif name in flags:
            if flags[name] and not equals:
                value = remaining.pop(0) if remaining and not remaining[0].startswith("--") else ""
            found.flags[name] = value
            mistakes += _mistakes(name, value, flags[name], given=bool(equals))
        elif name in known:
            found.settings.append(argument)
            if not equals and remaining and _is_value(name, remaining[0]):
                found.settings.append(remaining.pop(0))
        else:
            mistakes.append(f"unknown flag {name!r}{did_you_mean(name, known)}")
    mistakes += _mistakes_of_run(found.places[:1] if {"RUN", "OUTPUT_URI"}.intersection(places) else [])
    mistakes += [f"{place} is missing" for place in list(places)[len(found.places) :]]
    mistakes += [f"unexpected argument {place!r}" for place in found.places[len(places) :] if not more]
    if mistakes:
        usage = " ".join([*places]) + ("…" if more else "")
        raise SettingsError("; ".join(mistakes), remedy=f"usage: finetune {command} {usage}; --help explains its flags")
    return found


def _mistakes(name: str, value: str, example: str, *, given: bool) -> list[str]:
    """Return what is wrong with one of the command's own flags.

    Args:
        name: of the flag.
        value: of the flag.
        example: of its values; "" for a switch.
        given: it was written with an equals sign.
    """
    if example and not value:
        return [f"{name}: needs a value, as in {name} {example}"]
    return [f"{name}: takes no value"] if given and not example else []


def _mistakes_of_run(run: Sequence[str]) -> list[str]:
    """Return what is wrong with the location of a run, if there is one."""
    try:
        for location in run:
            uri.parse(location)
    except ValueError as error:
        return [str(error)]
    return []


def _is_value(name: str, text: str) -> bool:
    """Whether a word is the value of the setting before it: a switch has one only where it can be nothing else."""
    if text.startswith("--"):
        return False
    field = setting_fields().get(name.removeprefix("--"))
    return field is None or field.annotation is not bool or text.lower() in _SWITCH_VALUES
