"""What a setting is called here that has another name in other tools, and suggestions for misspelt names."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_LEARNING_RATE = "--feature_extraction.learning_rate or --fine_tuning.learning_rate"
_EPOCHS = "--feature_extraction.epochs or --fine_tuning.epochs"
_BATCH_SIZE = "--feature_extraction.batch_size or --fine_tuning.batch_size"
_RESUME = "a run resumes by itself when it is started again with the same settings"
_GPU = "all visible GPUs are used, or --device.gpus of them; --device.require_gpu makes it an error if there is none"
_VALIDATION = "--input.validation_fraction"
_WORKERS = "--workers.count; in the chart, workers"

_OPTIMIZER = f"Adam trains both stages, AdamW with weight_decay; its rate is {_LEARNING_RATE}"
_CLASS_WEIGHT = "--train.class_weight=balanced or --train.class_weight=sqrt"


def _of_stages(name: str) -> str:
    """Return the setting of both stages."""
    return f"--feature_extraction.{name} or --fine_tuning.{name}"


ELSEWHERE: Final = MappingProxyType(
    {
        **dict.fromkeys(("lr", "lr0", "learning_rate", "base_lr", "init_lr"), _LEARNING_RATE),
        **dict.fromkeys(("epoch", "epochs", "n_epochs", "num_epochs", "num_train_epochs", "max_epochs"), _EPOCHS),
        **dict.fromkeys(("b", "bs", "batch", "batch_size", "train_batch_size"), _BATCH_SIZE),
        "per_device_train_batch_size": _BATCH_SIZE,
        **dict.fromkeys(("data", "data_dir", "data_path", "dataset", "train", "train_dir", "source"), "--input.uri"),
        **dict.fromkeys(("i", "in", "input", "images", "image_dir", "dataset_dir"), "--input.uri"),
        **dict.fromkeys(("o", "out", "output", "out_dir", "output_dir", "output_path", "save_dir"), "--output.uri"),
        **dict.fromkeys(("model_dir", "job_dir", "export_dir"), "--output.uri"),
        "project": "--output.uri or --storage.user_project",
        **dict.fromkeys(("imgsz", "img", "img_size", "image_size", "input_size", "size"), "--model.image_size"),
        **dict.fromkeys(("arch", "architecture", "backbone", "base_model"), "--model.backbone"),
        **dict.fromkeys(("model", "model_name_or_path"), "--model.backbone or --model.weights"),
        **dict.fromkeys(("weights", "pretrained", "init_weights"), "--model.weights"),
        "checkpoint": "--model.weights to start from a file; a run resumes by itself",
        **dict.fromkeys(("width_mult", "width_multiplier"), "--model.alpha"),
        **dict.fromkeys(("hidden_units", "head_size", "dense_units"), "--model.head_units"),
        **dict.fromkeys(("drop_rate", "dropout_rate"), "--model.dropout"),
        **dict.fromkeys(("hflip", "fliplr", "horizontal_flip", "random_flip"), "--augmentation.flip=horizontal"),
        **dict.fromkeys(("vflip", "flipud", "vertical_flip"), "--augmentation.flip=vertical"),
        **dict.fromkeys(("degrees", "rotation_range", "random_rotation"), "--augmentation.rotation"),
        **dict.fromkeys(("zoom_range", "random_zoom", "scale"), "--augmentation.zoom"),
        **dict.fromkeys(("translate", "width_shift_range", "height_shift_range"), "--augmentation.shift"),
        **dict.fromkeys(("random_crop", "random_resized_crop"), "--augmentation.crop"),
        "mixup_alpha": "--augmentation.mixup",
        **dict.fromkeys(("fine_tune_epochs", "unfreeze_epochs"), "--fine_tuning.epochs"),
        **dict.fromkeys(("freeze_epochs", "initial_epochs"), "--feature_extraction.epochs"),
        **dict.fromkeys(("nodes", "nnodes", "num_nodes", "world_size"), _WORKERS),
        **dict.fromkeys(("deterministic", "enable_op_determinism"), "--run.reproducible"),
        **dict.fromkeys(("name", "run_name", "experiment", "exp_name", "run_id"), "--run.id"),
        **dict.fromkeys(("random_seed", "seed"), "--run.seed"),
        **dict.fromkeys(("resume", "resume_from_checkpoint", "auto_resume"), _RESUME),
        **dict.fromkeys(("gpus", "num_gpus", "ngpu", "nproc_per_node", "replicas"), "--device.gpus"),
        **dict.fromkeys(("gpu", "gpu_ids", "cuda", "accelerator"), _GPU),
        **dict.fromkeys(("device", "devices"), _GPU),
        **dict.fromkeys(("workers", "num_workers", "j", "threads", "num_threads", "jobs"), "--device.threads"),
        **dict.fromkeys(("amp", "fp16", "bf16", "half", "precision"), "--device.mixed_precision"),
        "jit_compile": "--device.xla",
        **dict.fromkeys(
            ("patience", "early_stopping", "early_stop", "early_stopping_patience"), _of_stages("patience")
        ),
        "restore_best_weights": _of_stages("restore"),
        **dict.fromkeys(
            ("schedule", "scheduler", "sched", "lr_scheduler", "lr_scheduler_type"), _of_stages("schedule")
        ),
        **dict.fromkeys(("cos_lr", "cosine"), "--feature_extraction.schedule=cosine or --fine_tuning.schedule=cosine"),
        **dict.fromkeys(("warmup", "warmup_epochs", "lr_warmup_epochs"), _of_stages("warmup_epochs")),
        **dict.fromkeys(("min_lr", "lr_min", "eta_min"), _of_stages("min_learning_rate")),
        **dict.fromkeys(("weight_decay", "wd", "l2"), _of_stages("weight_decay")),
        **dict.fromkeys(("clip_grad", "clip_norm", "max_grad_norm", "clip_grad_norm"), _of_stages("clip_norm")),
        **dict.fromkeys(("smoothing", "label_smoothing", "label_smoothing_factor"), _of_stages("label_smoothing")),
        **dict.fromkeys(("class_weight", "class_weights", "balance", "weighted_loss"), _CLASS_WEIGHT),
        **dict.fromkeys(("optimizer", "opt"), _OPTIMIZER),
        **dict.fromkeys(
            ("fine_tune_at", "unfreeze_from", "freeze_until", "freeze_layers", "unfreeze_layers"),
            "--fine_tuning.from_layer",
        ),
        **dict.fromkeys(
            ("freeze", "freeze_base", "freeze_backbone"), "--fine_tuning.epochs=0: only the head is trained"
        ),
        **dict.fromkeys(("val_split", "validation_split", "val_fraction", "val_ratio", "valid_pct"), _VALIDATION),
        **dict.fromkeys(("test_split", "test_ratio"), "--input.test_fraction"),
        **dict.fromkeys(("log_level", "loglevel"), "--log.level"),
        **dict.fromkeys(("v", "verbose", "verbosity", "debug"), "--log.level=debug"),
        **dict.fromkeys(("q", "quiet", "silent"), "--log.level=warning"),
        **dict.fromkeys(("c", "cfg", "conf", "config_file", "f", "values"), "--config"),
        **dict.fromkeys(("save_best_only", "save_best", "load_best_model_at_end"), "--keep"),
        **dict.fromkeys(("cache_dir",), "--cache.dir"),
        **dict.fromkeys(("cache_size", "max_cache_size"), "--cache.max_bytes"),
        **dict.fromkeys(("save_interval", "save_freq", "checkpoint_interval"), "--checkpoint.interval"),
    }
)
"""Name in other tools, in lower case and with "_" -> what to use here."""


def hint(name: str, names: Iterable[str]) -> str:
    """Return what to use instead of a name of other tools, after ": ", else what `did_you_mean` returns.

    ``fine_tuning.lr`` is answered as ``lr`` is, with the settings of its group alone.
    """
    group, _, last = _normalized(name).rpartition(".")
    meant = ELSEWHERE.get(last, "")
    if group:
        meant = " or ".join(setting for setting in meant.split(" or ") if setting.startswith(f"--{group}."))
    if not meant:
        return did_you_mean(name, names)
    return f": use {meant}" if meant.startswith("--") else f": {meant}"


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return ": did you mean …?" with the most similar names; empty if none is similar."""
    nearest = similar(name, names)
    return f": did you mean {' or '.join(nearest)}?" if nearest else ""


def similar(name: str, names: Iterable[str]) -> list[str]:
    """Return the most similar names, at most three; none if the difference is larger than a typing error.

    A typing error is one edit, and one more for every eight letters. The last part of a dotted name is enough: ``sede``
    is similar to ``run.seed``.
    """
    query = _normalized(name)
    limit = 1 + len(query) // 8
    edits = {
        known: min(_edits(query, _normalized(part)) for part in (known, known.rpartition(".")[2])) for known in names
    }
    least = min(edits.values(), default=limit + 1)
    return [known for known, count in edits.items() if count == least][:3] if least <= limit else []


def _edits(name: str, known: str) -> int:
    """Return how many letters must be inserted, removed, replaced or exchanged with their neighbour."""
    before, row = [0], list(range(len(known) + 1))
    for i, letter in enumerate(name):
        above, before, row = before, row, [i + 1]
        for j, other in enumerate(known):
            row.append(min(before[j + 1] + 1, row[j] + 1, before[j] + (letter != other)))
            if i and j and (letter, name[i - 1]) == (known[j - 1], other):
                row[-1] = min(row[-1], above[j - 1] + 1)
    return row[-1]


def _normalized(name: str) -> str:
    return name.lower().strip("-").replace("-", "_")
