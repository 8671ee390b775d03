"""What a setting is called here that has another name in other tools, and suggestions for misspelt names."""

from __future__ import annotations

from difflib import SequenceMatcher
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

SIMILAR = 0.75
"""Similarity from which a name is probably misspelt; ``out`` and ``dropout`` have 0.6."""

_LEARNING_RATE = "--feature_extraction.learning_rate or --fine_tuning.learning_rate"
_EPOCHS = "--feature_extraction.epochs or --fine_tuning.epochs"
_BATCH_SIZE = "--feature_extraction.batch_size or --fine_tuning.batch_size"
_RESUME = "nothing: a run resumes by itself when it is started again with the same settings"
_GPU = "nothing: the first visible GPU is used; --device.require_gpu makes it an error if there is none"
_VALIDATION = "--input.validation_fraction"
_NO_STOPPING = "--keep=best, the default: the weights of the best epoch are published"

ELSEWHERE: Final = MappingProxyType(
    {
        **dict.fromkeys(("lr", "lr0", "learning_rate", "base_lr", "init_lr"), _LEARNING_RATE),
        **dict.fromkeys(("epoch", "epochs", "n_epochs", "num_epochs", "num_train_epochs", "max_epochs"), _EPOCHS),
        **dict.fromkeys(("b", "bs", "batch", "batch_size", "train_batch_size"), _BATCH_SIZE),
        "per_device_train_batch_size": _BATCH_SIZE,
        **dict.fromkeys(("data", "data_dir", "data_path", "dataset", "train", "train_dir", "source"), "--input.uri"),
        **dict.fromkeys(("i", "in", "input", "images", "image_dir", "dataset_dir"), "--input.uri"),
        **dict.fromkeys(("o", "out", "output", "out_dir", "output_dir", "output_path", "save_dir"), "--output.uri"),
        **dict.fromkeys(("model_dir", "job_dir", "project", "export_dir"), "--output.uri"),
        **dict.fromkeys(("imgsz", "img", "img_size", "image_size", "input_size", "size"), "--model.image_size"),
        **dict.fromkeys(("model", "arch", "architecture", "backbone", "base_model"), "--model.backbone"),
        **dict.fromkeys(("weights", "pretrained", "checkpoint", "init_weights"), "--model.weights"),
        **dict.fromkeys(("name", "run_name", "experiment", "exp_name", "run_id"), "--run.id"),
        **dict.fromkeys(("random_seed", "seed"), "--run.seed"),
        **dict.fromkeys(("resume", "resume_from_checkpoint", "auto_resume"), _RESUME),
        **dict.fromkeys(("gpu", "gpus", "num_gpus", "ngpu", "gpu_ids", "cuda", "accelerator"), _GPU),
        **dict.fromkeys(("workers", "num_workers", "j", "threads", "num_threads", "jobs"), "--device.threads"),
        **dict.fromkeys(("amp", "fp16", "bf16", "half", "precision"), "--device.mixed_precision"),
        "jit_compile": "--device.xla",
        **dict.fromkeys(("patience", "early_stopping", "early_stop"), _NO_STOPPING),
        **dict.fromkeys(("optimizer", "opt"), f"nothing: Adam trains both stages; its rate is {_LEARNING_RATE}"),
        **dict.fromkeys(
            ("freeze", "freeze_base", "freeze_backbone"), "--fine_tuning.epochs=0: only the head is trained"
        ),
        **dict.fromkeys(("val_split", "validation_split", "val_fraction", "val_ratio", "valid_pct"), _VALIDATION),
        **dict.fromkeys(("test_split", "test_ratio"), "--input.test_fraction"),
        **dict.fromkeys(("v", "verbose", "verbosity", "log_level", "loglevel", "debug"), "--log.level"),
        **dict.fromkeys(("q", "quiet", "silent"), "--log.level=warning"),
        **dict.fromkeys(("c", "cfg", "conf", "config_file", "f", "values"), "--config"),
        **dict.fromkeys(("save_best_only", "save_best", "load_best_model_at_end"), "--keep"),
        **dict.fromkeys(("cache_dir",), "--cache.dir"),
        **dict.fromkeys(("save_interval", "save_freq", "checkpoint_interval"), "--checkpoint.interval"),
    }
)
"""Name in other tools, in lower case and with "_" -> what to use here."""


def hint(name: str, names: Iterable[str]) -> str:
    """Return ": use …" for a name of other tools, else what `did_you_mean` returns."""
    elsewhere = ELSEWHERE.get(_normalized(name))
    return f": use {elsewhere}" if elsewhere else did_you_mean(name, names)


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ": did you mean …?" with the most similar names; empty if none is similar."""
    nearest = similar(name, names)
    return f": did you mean {' or '.join(nearest)}?" if nearest else ""


def similar(name: str, names: Iterable[str]) -> list[str]:
    """Return the most similar names, at most three; none if the difference is larger than a typing error.

    The last part of a dotted name is enough: ``sede`` is similar to ``run.seed``.
    """
    query = _normalized(name)
    scores = {
        known: max(_similarity(query, part.lower()) for part in (known, known.rpartition(".")[2])) for known in names
    }
    best = max(scores.values(), default=0.0)
    return [known for known, score in scores.items() if score == best][:3] if best >= SIMILAR else []


def _similarity(name: str, known: str) -> float:
    """Return the similarity of two names, from 0 to 1; one wrong letter is always a typing error."""
    if len(name) == len(known) and sum(map(str.__ne__, name, known)) == 1:
        return max(SIMILAR, SequenceMatcher(None, name, known).ratio())
    return SequenceMatcher(None, name, known).ratio()


def _normalized(name: str) -> str:
    return name.lower().strip("-").replace("-", "_")
