"""The published model of a run, loaded for commands that score images with it."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from job.runtime import device, imports

if TYPE_CHECKING:
    from collections.abc import Iterator

    from job.config.settings import Settings
    from job.export.predictor import Predictor
    from job.observability.progress import Progress
    from job.storage import Store


@contextlib.contextmanager
def loaded_model(run: Store, settings: Settings, progress: Progress) -> Iterator[Predictor]:
    """Load the model of a published run, verified, from a temporary folder that is removed afterwards.

    Args:
        run: the store of the run.
        settings: of the device, and where temporary files may be.
        progress: receives the events.

    Raises:
        errors.DataError: the model is not as published, or cannot be loaded.
        errors.DeviceError: a GPU is required, and none can be used.
        errors.SettingsError: there is no directory for temporary files.
    """
    from job.runs.download import download_model

    device.ensure_temp_dir(settings.cache.dir)
    with tempfile.TemporaryDirectory(prefix="finetune-model-") as folder:
        with progress.phase("download model", None, ""):
            download_model(run, Path(folder))
        with progress.phase("import", None, ""), imports.fast():
            device.prepare()
            machine = device.configure(settings, notify=progress.event, single=True)
            from job.export.predictor import Predictor
        progress.event("device.configured", **vars(machine))
        with progress.phase("model", None, ""):
            predictor = Predictor(Path(folder))
        yield predictor
