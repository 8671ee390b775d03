"""Finds the run that a user names: by its URI or folder, or by an ID in an output, or the unique beginning of one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from job.config.hints import did_you_mean
from job.config.settings import NAME_PATTERN
from job.errors import DataError, SettingsError
from job.runs.published import LATEST, latest_run_id

if TYPE_CHECKING:
    from job.storage import OpenStore, Store

MAX_NAMED = 5
"""Runs that a message about an ambiguous ID names."""


class NamedRun(NamedTuple):
    """A run of an output.

    Attributes:
        output: the store of the output.
        run_id: of the run.
        store: of the run.
    """

    output: Store
    run_id: str
    store: Store


def find_run(name: str, open_store: OpenStore, output_uri: str = "") -> NamedRun:
    """Return the run of a name; it need not be published.

    Args:
        name: ``OUTPUT_URI/runs/ID``, ``OUTPUT_URI/latest``, or an ID, the unique beginning of one, or ``latest`` in
            `output_uri`.
        open_store: opens a store.
        output_uri: of the output; empty: none was given.

    Raises:
        errors.SettingsError: the name is none of these, or several runs begin with it.
        errors.DataError: there is no such run.
    """
    if output_uri and re.fullmatch(NAME_PATTERN, name):
        output, start = open_store(output_uri), name
    elif "/" not in name and not Path(name).exists():
        raise SettingsError(
            f"{name!r} is the ID of a run, and no output is given", remedy="add --output.uri OUTPUT_URI, or give a URI"
        )
    else:
        location = open_store(name).uri
        parent, _, start = location.rpartition("/")
        if start != LATEST:
            parent, _, folder = parent.rpartition("/")
            if folder != "runs" or not parent:
                raise SettingsError(
                    f"{name!r} is no run of an output: expected OUTPUT_URI/runs/ID or OUTPUT_URI/{LATEST}",
                    remedy="give such a URI or folder; or an ID together with --output.uri OUTPUT_URI",
                )
        output = open_store(parent)
    run_id = latest_run_id(output) if start == LATEST else _complete(output, start)
    return NamedRun(output, run_id, open_store(f"{output.uri}/runs/{run_id}"))


def _complete(output: Store, start: str) -> str:
    """Return the ID of the only run that begins with a text, or is it."""
    names = output.folders("runs")
    if start in names:
        return start
    found = [name for name in names if name.startswith(start)]
    if len(found) > 1:
        shown = ", ".join(found[:MAX_NAMED]) + (", …" if len(found) > MAX_NAMED else "")
        raise SettingsError(
            f"{len(found)} runs in {output.uri} begin with {start!r}: {shown}", remedy="give more of the ID"
        )
    if not found:
        raise DataError(
            f"there is no run {start!r} in {output.uri}, which has {len(names):,} runs{did_you_mean(start, names)}",
            remedy=f"finetune runs list {output.uri} lists them",
        )
    return found[0]
