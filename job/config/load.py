"""Loads the settings from defaults, file, environment and flags, and reports all mistakes at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_origin

from pydantic import ValidationError

from job.config import environment, sources
from job.config.settings import Settings, setting_fields
from job.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Loaded:
    """The settings of one run, and the origin of each.

    Attributes:
        settings: the effective settings.
        origins: dotted name -> ``default``, ``preset``, ``file``, ``environment`` or ``flag``, for every setting.
    """

    settings: Settings
    origins: Mapping[str, sources.Origin]

    def document(self) -> dict[str, Any]:
        """Return the content of config.json. The settings contain no secrets."""
        return {"settings": self.settings.model_dump(mode="json"), "origins": dict(self.origins)}


def load_settings(
    arguments: Sequence[str],
    variables: Mapping[str, str] | None = None,
    *,
    required: Sequence[str] = (),
) -> Loaded:
    """Read the settings: defaults < preset < YAML file < environment < flags.

    Args:
        arguments: flags: ``--config FILE``, ``--name value``, ``--name=value``; a switch needs no value. The last of
            repeated flags wins.
        variables: used instead of the process environment. Only names with ``__`` are settings. An empty variable
            counts as not set, unless its setting is a text; so does a null or an empty value in the file.
        required: settings that must not be empty.

    Raises:
        SettingsError: one message with the mistakes in all sources, one per line.
    """
    fields = setting_fields()
    collected = sources.Sources({name: _kind(field) for name, field in fields.items()})
    collected.read(arguments, environment.everything() if variables is None else variables)
    collected.apply_preset()
    settings, mistakes = _validate({name: raw.text for name, raw in collected.raw.items()})
    for names, problem in mistakes:
        values = (
            f"{name} = {collected.raw[name].text!r} ({collected.raw[name].where})"
            if name in collected.raw
            else f"{name} = {fields[name].default!r} (the default)"
            for name in names
        )
        collected.mistakes.append(f"{', '.join(values)}: {problem}")
    collected.mistakes += [
        f"{name}: must be given, as in --{name} {(fields[name].examples or ['VALUE'])[0]}"
        for name in required
        if name not in collected.raw or not collected.raw[name].text
    ]
    if settings is None or collected.mistakes:
        count = "1 mistake" if len(collected.mistakes) == 1 else f"{len(collected.mistakes)} mistakes"
        raise SettingsError(
            "\n  ".join([f"{count} in the settings:", *collected.mistakes]),
            remedy="finetune run --help lists every setting with its default; finetune schema prints their JSON Schema",
        )
    return Loaded(
        settings, {name: collected.raw[name].origin if name in collected.raw else "default" for name in fields}
    )


_Mistake = tuple[tuple[str, ...], str]
"""The invalid or conflicting settings, and the problem."""


def _validate(texts: Mapping[str, str]) -> tuple[Settings | None, list[_Mistake]]:
    nested: dict[str, Any] = {}
    for name, text in texts.items():
        group, _, last = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[last] = text
    try:
        return Settings.model_validate(nested), []
    except ValidationError as error:
        mistakes = list(_mistakes(error))
    # pydantic checks combinations only if every value is valid alone. To report all mistakes, check the valid rest too.
    invalid = {name for names, _ in mistakes for name in names}
    _, other_mistakes = _validate({name: text for name, text in texts.items() if name not in invalid})
    return None, mistakes + [mistake for mistake in other_mistakes if invalid.isdisjoint(mistake[0])]


def _mistakes(error: ValidationError) -> Iterator[_Mistake]:
    for details in error.errors(include_url=False):
        if details["type"] == "conflict":
            yield from details["ctx"]["found"]
        else:
            problem = details["msg"].removeprefix("Value error, ").replace("Input should", "must")
            yield (".".join(map(str, details["loc"][:2])),), problem.split(", unable to", 1)[0]


def _kind(field: FieldInfo) -> sources.Kind:
    kinds: dict[Any, sources.Kind] = {str: "text", bool: "switch"}
    return "list" if get_origin(field.annotation) is tuple else kinds.get(field.annotation, "other")
