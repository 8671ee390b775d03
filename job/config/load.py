"""Settings from defaults, file, environment and flags: all mistakes at once, before anything heavy is imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from job.config import environment, sources
from job.config.settings import Settings, setting_fields
from job.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic.fields import FieldInfo


@dataclass(frozen=True)
class Loaded:
    """The settings of one run, and where each came from.

    Attributes:
        settings: the effective settings.
        origins: dotted name -> ``default``, ``file``, ``environment`` or ``flag``, for every setting.
    """

    settings: Settings
    origins: Mapping[str, sources.Origin]

    def document(self) -> dict[str, Any]:
        """Return what config.json holds. There are no secrets among the settings."""
        return {"settings": self.settings.model_dump(mode="json"), "origins": dict(self.origins)}


def load_settings(
    arguments: Sequence[str],
    variables: Mapping[str, str] | None = None,
    *,
    required: Sequence[str] = (),
) -> Loaded:
    """Read the settings: defaults < YAML file < environment < flags.

    Args:
        arguments: flags: ``--config FILE``, ``--name value``, ``--name=value``; a switch may stand alone. The last
            wins where one is repeated.
        variables: in place of the process environment. Only names with ``__`` are settings; an empty variable counts
            as not set, unless its setting is a text. A null or an empty value in the file likewise.
        required: settings that must not be empty.

    Raises:
        SettingsError: one message with everything that is wrong, in all sources, a line each.
    """
    fields = setting_fields()
    read = sources.Sources({name: _kind(field) for name, field in fields.items()})
    read.read(arguments, environment.everything() if variables is None else variables)
    settings, mistakes = _validate({name: given.text for name, given in read.given.items()})
    for names, what in mistakes:
        values = (
            f"{name} = {read.given[name].text!r} ({read.given[name].where})"
            if name in read.given
            else f"{name} = {fields[name].default!r} (the default)"
            for name in names
        )
        read.mistakes.append(f"{', '.join(values)}: {what}")
    read.mistakes += [
        f"{name}: must be given, as in --{name} {(fields[name].examples or ['VALUE'])[0]}"
        for name in required
        if name not in read.given or not read.given[name].text
    ]
    if settings is None or read.mistakes:
        count = "1 mistake" if len(read.mistakes) == 1 else f"{len(read.mistakes)} mistakes"
        raise SettingsError(
            "\n  ".join([f"{count} in the settings:", *read.mistakes]),
            remedy="finetune run --help lists every setting with its default; finetune schema prints their JSON Schema",
        )
    return Loaded(settings, {name: read.given[name].origin if name in read.given else "default" for name in fields})


_Mistake = tuple[tuple[str, ...], str]
"""The settings that are wrong, or wrong together, and what is wrong."""


def _validate(texts: Mapping[str, str]) -> tuple[Settings | None, list[_Mistake]]:
    nested: dict[str, Any] = {}
    for name, text in texts.items():
        group, _, last = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[last] = text
    try:
        return Settings.model_validate(nested), []
    except ValidationError as error:
        mistakes = list(_mistakes(error))
    # pydantic looks at values together only once each is right alone. All shall be said at once: look at the rest.
    wrong = {name for names, _ in mistakes for name in names}
    _, among_rest = _validate({name: text for name, text in texts.items() if name not in wrong})
    return None, mistakes + [mistake for mistake in among_rest if wrong.isdisjoint(mistake[0])]


def _mistakes(error: ValidationError) -> Iterator[_Mistake]:
    for one in error.errors(include_url=False):
        if one["type"] == "conflict":
            yield from one["ctx"]["found"]
        else:
            what = one["msg"].removeprefix("Value error, ").replace("Input should", "must")
            yield (".".join(map(str, one["loc"][:2])),), what.split(", unable to", 1)[0]


def _kind(field: FieldInfo) -> sources.Kind:
    return "text" if field.annotation is str else "switch" if field.annotation is bool else "other"
