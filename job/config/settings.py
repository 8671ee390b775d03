"""The settings: typed, frozen, and documented only here; docs, help, schema and chart are generated from it.

Sources, later ones override earlier ones: defaults, a YAML file (``--config``), environment variables
(``FINETUNE_INPUT__URI``), flags (``--input.uri``). All mistakes are reported at once.
Nothing heavy is imported here: mistakes are reported before TensorFlow is loaded.
"""

from __future__ import annotations

import os
import re
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from job import uri
from job.config.backbones import BACKBONES, BackboneName
from job.config.presets import Preset

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.config import JsonDict
    from pydantic.fields import FieldInfo


StageName = Literal["feature_extraction", "fine_tuning"]
Schedule = Literal["constant", "cosine", "linear"]
ClassWeight = Literal["none", "sqrt", "balanced"]
InitialBias = Literal["zero", "prior"]
Flip = Literal["none", "horizontal", "vertical", "both"]
ExportFormat = Literal["tflite", "tflite_int8", "onnx"]
STAGES: tuple[StageName, StageName] = ("feature_extraction", "fine_tuning")
_RESULT: JsonDict = {"changes_result": True}
"""Marks a setting that changes the result, and so is part of the run's identity."""

_RESULT_IF_SET: JsonDict = {"changes_result": "if set"}
"""Marks one that was added after version 0.1.0: it is part of the identity where it differs from its default, so that
a new version finds the runs of an older one."""

NAME_PATTERN = r"^([A-Za-z0-9][A-Za-z0-9._-]{0,99})?$"
"""Names are used in object names and paths, and must not escape from them."""


def _parse_integer(value: object) -> object:
    """Accept 1e+06 for 1000000, as templates and YAML writers format integers; reject True."""
    if isinstance(value, bool):
        raise ValueError("must be a whole number")  # noqa: TRY004  # pydantic reports a ValueError
    # At most two digits of exponent: int(Decimal("1e999999999")) would never finish.
    if isinstance(value, str) and re.fullmatch(r"-?\d+(\.\d+)?[eE]\+?\d{1,2}", value):
        number = Decimal(value)
        return int(number) if number == int(number) else value
    return value


def _check_name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise ValueError("must be 1 to 100 letters, digits, '.', '_' or '-', the first a letter or a digit")
    return text


def _normalize_uri(text: str) -> str:
    return str(uri.parse(text)) if text else text


def _check_local(text: str) -> str:
    if text and uri.parse(text).scheme != "file":
        raise ValueError("must be a local folder")
    return _normalize_uri(text)


def _check_input(text: str) -> str:
    """Reject ``bucket/folder`` if there is no such local folder: the scheme was probably forgotten."""
    head = text.split("/", 1)[0]
    if uri.is_bucket_name(head) and not os.path.exists(text):  # noqa: PTH110  # Path.exists raises if a name is too long
        raise ValueError(f"there is no such folder here: did you mean gs://{text} or ./{text}?")
    return _normalize_uri(text)


def _check_weights(text: str) -> str:
    if text in ("imagenet", "none", "latest"):
        return text
    uri.check_unquoted(text)
    if not text or "/" not in text:
        raise ValueError(
            "must be imagenet, none, latest, gs://… or a path with a slash in it (./FILE for a file in this folder)"
        )
    return _normalize_uri(text)


def _check_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return text


def _sort_formats(formats: tuple[ExportFormat, ...]) -> tuple[ExportFormat, ...]:
    """Return each format once, in one order: the order of a list must not make another run."""
    return tuple(sorted(set(formats)))


def _split_list(value: object) -> object:
    """Accept one text with commas, the spelling of a list in every source."""
    return [text for part in value.split(",") if (text := part.strip())] if isinstance(value, str) else value


def _check_addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    for address in addresses:
        host, _, port = address.rpartition(":")
        if not host or not re.fullmatch(r"\d{1,5}", port) or not 0 < int(port) < 2**16:
            raise ValueError(f"{address!r} is not HOST:PORT")
    return addresses


Integer = Annotated[int, BeforeValidator(_parse_integer)]
Name = Annotated[str, AfterValidator(_check_name), Field(json_schema_extra={"pattern": NAME_PATTERN})]
Uri = Annotated[str, AfterValidator(_normalize_uri)]
LocalPath = Annotated[str, AfterValidator(_check_local)]
Texts = Annotated[
    tuple[str, ...],
    BeforeValidator(_split_list),
    WithJsonSchema({"type": ["array", "string"], "items": {"type": "string"}}),
]


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


class InputSettings(_Group):
    """What to train on."""

    # Neither uri nor format is part of the run's identity: the hash of the data is.
    uri: Annotated[str, AfterValidator(_check_input)] = ""
    """Labelled images: `gs://BUCKET/PREFIX` or a local path; a folder per class, or a CSV or JSONL manifest. Empty:
    the built-in demo pictures."""

    format: Literal["auto", "folders", "csv", "jsonl"] = "auto"
    """How the input names its labels. `auto`: by the name's ending."""

    # Nor are these two: what they leave of the data is.
    layout: Literal["auto", "classes", "splits"] = "auto"
    """What the top folders of the input are. `auto`: splits if all are called like splits, else classes; what can be
    read in two ways is refused."""

    exclude: Texts = Field((), examples=["extra/,*/masks/"])
    """Patterns of names, relative to the input, that are left out, with all below them: a list, or one text with
    commas. `*` matches any characters, also a slash; `?` and `[…]` as in a shell."""

    # The columns are not part of the run's identity either: the hash of the data has what they hold.
    image_column: str = ""
    """Column of a CSV, or key of a JSONL manifest, that holds the images. Empty: the one with a known name, such as
    `image`, `image_uri`, `filename` or `path`."""

    label_column: str = ""
    """Column or key that holds the labels. Empty: the one with a known name, such as `label`, `class` or `target`."""

    split_column: str = ""
    """Column or key that holds the splits. Empty: the one with a known name, such as `split` or `ml_use`, if there is
    one."""

    group_column: str = ""
    """Column or key that holds the name of an image's group, such as a patient's: a group is never shared out over
    several splits, and an image whose cell is empty is a group of its own. Empty: no groups."""

    group_pattern: Annotated[str, AfterValidator(_check_pattern)] = Field(
        "", examples=["patient-([0-9]+)"], json_schema_extra=_RESULT_IF_SET
    )
    """Regular expression that finds an image's group in its name, relative to the input: its first part in brackets, or
    all that it matches. A group is never shared out over several splits. Empty: no groups."""

    validation_fraction: float = Field(0.2, gt=0, lt=1, json_schema_extra=_RESULT)
    """Share of the images to validate on, where the input itself names no split."""

    test_fraction: float = Field(0.0, ge=0, lt=1, json_schema_extra=_RESULT)
    """Share of the images to test on, where the input itself names no split."""

    max_bad_fraction: float = Field(0.01, ge=0, le=1)
    """More unreadable images than this share of all end the run with exit code 3."""

    damaged: Literal["quarantine", "warn"] = Field("warn", json_schema_extra=_RESULT_IF_SET)
    """A JPEG that can be decoded, but that libjpeg warns about (an invalid code, a part of its pixels missing), is used
    and named in the log, or quarantined. `warn`: browsers and Keras use such files, too, in most of them hardly a pixel
    is wrong, and the checksum has shown that they are as they were stored."""

    near_duplicate_distance: Integer = Field(6, ge=0, le=7)
    """Pictures show nearly the same if their hashes of 64 bits differ in at most this many. 0: only copies, byte by
    byte, are looked for."""

    max_leaking_duplicates: Annotated[int, Field(ge=0), BeforeValidator(_parse_integer)] | None = None
    """More held-out images that show the same, or nearly the same, as one of the train split end the run with exit
    code 3. Null: they are only reported."""

    max_pixels: Integer = Field(64_000_000, ge=1, json_schema_extra=_RESULT)
    """Images of more pixels (width x height) are not decoded: they count as unreadable."""


class OutputSettings(_Group):
    """Where everything is published."""

    uri: Uri = Field("", examples=["gs://my-bucket/trained"])
    """Where the run is published: `gs://BUCKET/PREFIX` or a local path, not inside the input. Required by
    `finetune run`."""


class StorageSettings(_Group):
    """How buckets are accessed."""

    user_project: str = ""
    """Google Cloud project that is billed for all requests: requester-pays buckets need it."""

    anonymous: bool = False
    """Read the input and the weights without credentials: for public buckets. The output is always written with
    credentials."""

    retry_seconds: float = Field(600.0, ge=0)
    """Seconds for which a request is retried while the store is unreachable, once training is under way: the run would
    lose its GPU. Before that, at most 120; never more than half of `device.stall_minutes`."""


class RunSettings(_Group):
    """One run."""

    id: Name = ""
    """The run's name: 1 to 100 letters, digits, `.`, `_` or `-`. Empty: made from a hash of the data and the
    settings, so that a second start resumes the run, or finds it published."""

    job_uid: Name = ""
    """UID of the Kubernetes Job that this is a Pod of; the chart sets it. All Pods of a Job work on the run of the
    first one."""

    job_name: str = ""
    """Name of that Job; the chart sets it, and the next four."""

    namespace: str = ""
    """Namespace of that Job."""

    node: str = ""
    """Node that this Pod runs on."""

    image: str = ""
    """Container image that this Pod runs."""

    seed: Integer = Field(7, ge=0, lt=2**32, json_schema_extra=_RESULT)
    """Seed of everything random: the head's first weights, the order of the images, dropout, augmentation."""

    reproducible: bool = Field(default=True, json_schema_extra=_RESULT)
    """The same seed, data and settings end in the same bits (same CPU type and thread count)."""


class ModelSettings(_Group):
    """The network."""

    backbone: BackboneName = Field("MobileNetV2", json_schema_extra=_RESULT)
    """The pretrained network under the head, by its name in keras.applications."""

    alpha: float = Field(1.0, gt=0, json_schema_extra=_RESULT)
    """Width multiplier of MobileNetV2 or MobileNetV3; the other backbones have none. With the `imagenet` weights one of
    0.35, 0.5, 0.75, 1.0, 1.3, 1.4 (MobileNetV2), or 0.75, 1.0 (MobileNetV3)."""

    image_size: Integer = Field(224, ge=32, le=1024, json_schema_extra=_RESULT)
    """Side of the square, in pixels, to which every image is resized. The `imagenet` weights of MobileNetV2 were
    trained at 96, 128, 160, 192 and 224; every other size starts from those of 224, as Keras does. The other backbones
    have weights of one size."""

    weights: Annotated[str, AfterValidator(_check_weights)] = Field("imagenet", json_schema_extra=_RESULT)
    """The first weights of the backbone: `imagenet`, `none` (random), or a file (a path or `gs://…`, ending in `.h5`).
    Or those of a published model, with its head where the labels fit: the URI or folder of its run,
    `OUTPUT_URI/latest`, or `latest` for that of `output.uri`, which is looked up when the run starts and does not make
    it another run."""

    # Not part of the identity: the digest of the weights is, not their location.
    weights_dir: LocalPath = "/opt/finetune/weights"
    """Folder with the ImageNet weights that are baked into the image."""

    head_units: Integer = Field(50, ge=0, json_schema_extra=_RESULT)
    """Units of the head's hidden layer `fc1`. 0: no hidden layer, so that the head is linear in the features."""

    dropout: float = Field(0.0, ge=0, lt=1, json_schema_extra=_RESULT)
    """Share of the pooled features dropped in each training step of both stages."""

    @property
    def is_warm_start(self) -> bool:
        """Whether `weights` names a published run."""
        return self.weights not in ("imagenet", "none") and not self.weights.endswith(".h5")


class StageSettings(_Group):
    """One of the two stages: one function runs both."""

    epochs: Integer = Field(10, ge=0, json_schema_extra=_RESULT)
    """Passes over the training images; 0 skips the stage."""

    learning_rate: float = Field(gt=0, json_schema_extra=_RESULT)
    """Adam's learning rate."""

    batch_size: Integer = Field(32, ge=1, json_schema_extra=_RESULT)
    """Images in each training step."""

    schedule: Schedule = Field("constant", json_schema_extra=_RESULT_IF_SET)
    """How the learning rate falls from step to step, from `learning_rate` to `min_learning_rate` over all `epochs`,
    whether or not the stage is stopped early. See docs/training.md."""

    warmup_epochs: float = Field(0.0, ge=0, json_schema_extra=_RESULT_IF_SET)
    """Epochs, or a fraction of one, over which the learning rate first rises linearly to `learning_rate`."""

    min_learning_rate: float = Field(0.0, ge=0, json_schema_extra=_RESULT_IF_SET)
    """Learning rate at the end of `cosine` and `linear`."""

    patience: Integer = Field(0, ge=0, json_schema_extra=_RESULT_IF_SET)
    """Early stopping: the stage ends after this many epochs in a row without an improvement of the validation loss. 0:
    never before its last epoch. See docs/training.md."""

    min_delta: float = Field(0.0, ge=0, json_schema_extra=_RESULT_IF_SET)
    """Decrease of the validation loss that must be exceeded to count as an improvement for `patience`."""

    restore: bool = Field(default=False, json_schema_extra=_RESULT_IF_SET)
    """End the stage with the weights of its epoch with the lowest validation loss instead of those of its last epoch:
    stage 2 then starts from stage 1's best epoch."""

    weight_decay: float = Field(0.0, ge=0, json_schema_extra=_RESULT_IF_SET)
    """Decoupled weight decay: above 0, the optimizer is AdamW. Kernels decay; biases, and the scale and offset of
    normalization layers, do not."""

    clip_norm: float = Field(0.0, ge=0, json_schema_extra=_RESULT_IF_SET)
    """Limit of the norm of all gradients of a step together, above which they are scaled down. 0: none."""

    label_smoothing: float = Field(0.0, ge=0, lt=1, json_schema_extra=_RESULT_IF_SET)
    """Share of the target that is spread evenly over all labels, in the training loss alone. 0: none."""


class FeatureExtractionSettings(StageSettings):
    """Stage 1: only the head is trained."""

    learning_rate: float = Field(1e-4, gt=0, json_schema_extra=_RESULT)
    """Adam's learning rate."""

    views: Integer = Field(4, ge=0, le=1000, json_schema_extra=_RESULT_IF_SET)
    """With augmentation: augmented versions of each training image whose features are cached; epoch e, counted from 0,
    trains on version e modulo `views`. The cache holds them all, and each costs a forward pass over the train split. 0:
    no such cache; the backbone computes the features of a new version in every epoch. Without augmentation it has no
    effect."""


class FineTuningSettings(StageSettings):
    """Stage 2: everything is trained except every BatchNormalization layer."""

    learning_rate: float = Field(1e-5, gt=0, json_schema_extra=_RESULT)
    """Adam's learning rate."""

    from_layer: str = Field("", examples=["block_13_expand"], json_schema_extra=_RESULT_IF_SET)
    """Train the backbone from this layer on, and keep what precedes it frozen; BatchNormalization stays frozen
    everywhere. `finetune summary` lists the layers. Empty: the whole backbone is trained."""

    cache_frozen: bool = Field(default=False, json_schema_extra=_RESULT_IF_SET)
    """Compute the frozen part of the backbone once for each image, in float32, and train on its cached outputs. Needs
    `fine_tuning.from_layer`, and a layer whose inputs are a single tensor. See docs/training.md."""


class TrainSettings(_Group):
    """The training loss of both stages, and where the head starts."""

    class_weight: ClassWeight = Field("none", json_schema_extra=_RESULT_IF_SET)
    """Weight of an image in the training loss, and in the `val_loss` that chooses the best epoch, by its label:
    `balanced` gives every label the same total weight, `sqrt` weighs by the root of that. The mean over the training
    images is 1. Published metrics are not weighted. See docs/training.md."""

    initial_bias: InitialBias = Field("zero", json_schema_extra=_RESULT_IF_SET)
    """First bias of the output layer. `prior`: such that the untrained head answers with about the shares of the labels
    in the training split, each times its class weight."""


class AugmentationSettings(_Group):
    """Random changes of the training images, off by default. Validation, test and label errors use unchanged images."""

    flip: Flip = Field("none", json_schema_extra=_RESULT_IF_SET)
    """Mirror half of the images: `horizontal` exchanges left and right, `vertical` top and bottom; `both` does each
    independently."""

    rotation: float = Field(0.0, ge=0, le=180, json_schema_extra=_RESULT_IF_SET)
    """Rotate about the centre by up to this many degrees, in either direction."""

    zoom: float = Field(0.0, ge=0, le=0.9, json_schema_extra=_RESULT_IF_SET)
    """Enlarge or shrink about the centre: 0.2 means by a factor from 0.8 to 1.2."""

    shift: float = Field(0.0, ge=0, le=0.9, json_schema_extra=_RESULT_IF_SET)
    """Move horizontally and vertically, each by up to this fraction of the side, in either direction."""

    crop: float = Field(0.0, ge=0, le=0.9, json_schema_extra=_RESULT_IF_SET)
    """Cut out a square at a random position and enlarge it to the whole image: 0.2 means that its side is 0.8 to 1
    times that of the image."""

    brightness: float = Field(0.0, ge=0, le=1, json_schema_extra=_RESULT_IF_SET)
    """Add up to this fraction of the range of pixel values to all of them, or subtract it: 0.1 means up to 25.5 of 255.
    """

    contrast: float = Field(0.0, ge=0, le=1, json_schema_extra=_RESULT_IF_SET)
    """Multiply the distance of each pixel from the image's mean: 0.2 means by a factor from 0.8 to 1.2."""

    mixup: float = Field(0.0, ge=0, le=1, json_schema_extra=_RESULT_IF_SET)
    """Blend each image, and its loss, with another one of its batch; the shares are drawn from Beta(mixup, mixup), and
    the image's own share is the larger one. In stage 1 with cached features, features are blended instead of pixels.
    0: none; 0.2 is usual."""

    @property
    def warps(self) -> bool:
        """Whether pixels are moved."""
        return self.flip != "none" or any((self.rotation, self.zoom, self.shift, self.crop))

    @property
    def changes_images(self) -> bool:
        """Whether images are changed each by itself: everything but mixup."""
        return self.warps or any((self.brightness, self.contrast))

    @property
    def enabled(self) -> bool:
        """Whether there is any augmentation."""
        return self.changes_images or self.mixup > 0


class DeviceSettings(_Group):
    """The device."""

    require_gpu: bool = False
    """End with exit code 4 if there is no usable GPU."""

    gpus: Annotated[Literal["all"] | Annotated[int, Field(ge=1)], BeforeValidator(_parse_integer)] = "all"
    """GPUs to train on: all that are visible, or the first N of them; fewer than N visible ones end the run with exit
    code 4. If none can be used, `device.require_gpu` decides."""

    # The thread count changes the bits but is not part of the identity: checkpoints store it, and a resume keeps it.
    threads: Annotated[int, Field(ge=1), BeforeValidator(_parse_integer)] | None = None
    """CPU threads of one operation. Null: the container's CPU quota, rounded up."""

    mixed_precision: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", json_schema_extra=_RESULT)
    """Precision of the backbone in stage 2's training step; everything else, validation included, is float32. `auto`:
    bfloat16 on GPUs that have it (compute capability 8.0), else float16 (7.0), else float32, as on the CPU."""

    # These change only the last bits of the result, as another GPU would.
    xla: bool | None = None
    """Compile the training step with XLA. Null: where the run has a single GPU, and XLA works on it."""

    memory_growth: bool | None = None
    """Allocate GPU memory on demand instead of all of it at the start. Null: true."""

    stall_minutes: float = Field(30.0, gt=0)
    """Minutes without any progress after which the run ends with exit code 20. At least 60 while kernels are compiled
    for a GPU that is newer than TensorFlow."""


class CacheSettings(_Group):
    """The cache on the local disk. It is filled with features, encoded images and decoded pixels, in this order."""

    dir: LocalPath = ""
    """Folder for the cache. If it outlives a stopped run, the next start uses what is in it. Empty: a temporary
    folder."""

    max_bytes: Annotated[int, Field(ge=0), BeforeValidator(_parse_integer)] | None = None
    """Bytes that the cache may take. Null: half of the free disk."""

    volume_limit_bytes: Annotated[int, Field(ge=0), BeforeValidator(_parse_integer)] | None = None
    """Limit of the Pod's ephemeral storage, above which it is evicted: no more than this counts as free disk."""


class CheckpointSettings(_Group):
    """How often the state is saved."""

    interval: float = Field(60.0, gt=0)
    """Seconds between two checkpoints; there is one at the end of every epoch as well."""

    takeover: float = Field(180.0, gt=0)
    """Seconds after which another owner's claim on a run expires unless it is renewed."""


class GateSettings(_Group):
    """What a model must reach before `latest.json` points to it."""

    min_accuracy: float = Field(0.0, ge=0, le=1)
    """Validation accuracy that the model must reach. Below it: published under its run, `latest.json` not moved, exit
    code 6. The same applies to each setting of this group; 0 or null requires nothing."""

    min_auc: float = Field(0.0, ge=0, le=1)
    """Area under the validation ROC curve that the model must reach; for more than two labels the mean of the
    one-vs-rest areas of those that have validation images. The check fails if it cannot be computed."""

    min_recall: float = Field(0.0, ge=0, le=1)
    """Validation recall that the model must reach for each class. The check fails if a class has no validation
    image."""

    no_worse_than_latest: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Largest allowed drop of the validation accuracy from that of the run that `latest.json` names, both measured on
    the validation images (at most 10,000) that the latter did not train on. If these are fewer than 30, the labels
    differ or that run is damaged, the check is not judged, with a warning."""


class ExportSettings(_Group):
    """The exported model: more formats, and how it is checked."""

    formats: Annotated[
        tuple[ExportFormat, ...],
        BeforeValidator(_split_list),
        AfterValidator(_sort_formats),
        WithJsonSchema({"type": ["array", "string"], "items": {"type": "string", "enum": [*get_args(ExportFormat)]}}),
    ] = Field((), examples=["tflite,onnx"], json_schema_extra=_RESULT_IF_SET)
    """Further formats of the model, beside `saved_model/` and `model.keras`: a list, or one text with commas. `tflite`:
    TensorFlow Lite, float32; `tflite_int8`: quantized to int8 with images of the train split; `onnx`: needs an image
    built with `--build-arg EXPORTS=onnx`. A format that cannot be converted, or that does not answer as the model does,
    is left out with a warning. See docs/serving.md."""

    verify_images: Integer = Field(2000, ge=1)
    """At most this many held-out images are scored once more, by a fresh process with the exported SavedModel; the
    first 32 of them with `model.keras`, too."""


class ReportSettings(_Group):
    """The page that shows how a run went, `report/index.html`."""

    enabled: bool = True
    """Write the report with the run. `finetune report RUN` writes it afterwards, into a folder here."""

    max_images: Integer = Field(24, ge=0, le=1000)
    """Most pictures of mistakes on the page, and of suspected label errors as many again. Fewer are shown where the
    page would exceed 3 MB; it says so."""

    gpu_price_per_hour: Annotated[float, Field(ge=0)] | None = None
    """Price of one GPU for an hour, in any currency, from which the report computes the cost of the run. Null: no cost
    is shown."""

    label_errors: bool = True
    """Look for images whose label may be wrong, and list them in `data/label_errors.jsonl`. For the training images
    five more heads are trained on the features of stage 1, each without a fifth of the images."""


class EventsSettings(_Group):
    """Kubernetes Events on the Job and its Pod. The chart sets all of these."""

    enabled: bool = False
    """Record what happens (stages, resume, quarantine, gate, failure, published) as Events, which `kubectl describe`
    shows. The Pod's ServiceAccount must be allowed to create Events."""

    pod_name: str = ""
    """Name of this Pod."""

    pod_uid: str = ""
    """UID of this Pod."""


class WorkersSettings(_Group):
    """Several processes that train one run together, each with its own GPUs. The chart sets all of these."""

    count: Integer = Field(1, ge=1, le=1000)
    """Number of workers. Above 1, all of them need `run.job_uid`, `workers.addresses` and their own `workers.index`."""

    index: Integer = Field(0, ge=0)
    """Number of this worker, from 0. Worker 0 lists the data, claims the run, and writes the output."""

    addresses: Annotated[Texts, AfterValidator(_check_addresses)] = Field((), examples=["train-0:2222,train-1:2222"])
    """HOST:PORT of each worker, in the order of their numbers, under which the others reach it."""


class LogSettings(_Group):
    """The log."""

    format: Literal["auto", "console", "json"] = "auto"
    """`json`: one object a line, as Cloud Logging reads it. `auto`: console on a terminal, else json."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Minimum severity of the lines that are logged."""

    tensorboard: bool = False
    """Write the curves of both stages as TensorBoard files to `tensorboard/` under the run, while it trains."""


class Settings(_Group):
    """All settings of the job."""

    # Not part of the identity: the settings that it stands for are, so that a newer version of it makes another run.
    preset: Preset = "none"
    """A named set of settings, for what it was measured on: docs/training.md. What is set elsewhere overrides it."""

    input: InputSettings = InputSettings()
    output: OutputSettings = OutputSettings()
    storage: StorageSettings = StorageSettings()
    run: RunSettings = RunSettings()
    model: ModelSettings = ModelSettings()
    feature_extraction: FeatureExtractionSettings = FeatureExtractionSettings()
    fine_tuning: FineTuningSettings = FineTuningSettings()
    train: TrainSettings = TrainSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    keep: Literal["best", "last"] = Field("best", json_schema_extra=_RESULT)
    """Which weights are published: those with the `best` validation loss over both stages, or the `last` ones. The
    loss is the `val_loss` of the log and of `history.csv`, weighted as `train.class_weight` says."""

    device: DeviceSettings = DeviceSettings()
    cache: CacheSettings = CacheSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    gate: GateSettings = GateSettings()
    export: ExportSettings = ExportSettings()
    report: ReportSettings = ReportSettings()
    events: EventsSettings = EventsSettings()
    workers: WorkersSettings = WorkersSettings()
    log: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        if conflicts := list(_conflicts(self)):
            raise PydanticCustomError(
                "conflict", "{text}", {"text": "; ".join(text for _, text in conflicts), "found": conflicts}
            )
        return self


def _conflicts(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield (the settings involved, the problem) for values that are valid alone but conflict."""
    inputs, output, model = settings.input, settings.output, settings.model
    if inputs.group_column and inputs.group_pattern:
        yield ("input.group_column", "input.group_pattern"), "both say what belongs together: set one of them"
    if inputs.validation_fraction + inputs.test_fraction >= 1:
        yield (
            ("input.validation_fraction", "input.test_fraction"),
            "together must be below 1: something must remain to train on",
        )
    if settings.feature_extraction.epochs == settings.fine_tuning.epochs == 0:
        yield ("feature_extraction.epochs", "fine_tuning.epochs"), "at least one must be above 0"
    for name in STAGES:
        stage: StageSettings = getattr(settings, name)
        if stage.min_learning_rate > stage.learning_rate:
            yield (
                (f"{name}.min_learning_rate", f"{name}.learning_rate"),
                "the learning rate would rise: the minimum must not exceed it",
            )
    yield from _backbone_conflicts(model)
    yield from _frozen_conflicts(settings)
    yield from _worker_conflicts(settings)
    if inputs.uri and output.uri:
        # The output of a run would be listed as input by the next one.
        written = [f"{output.uri}/runs", f"{output.uri}/jobs"]
        if uri.is_inside(output.uri, inputs.uri) or any(uri.is_inside(inputs.uri, folder) for folder in written):
            yield ("output.uri", "input.uri"), "the output must not lie inside the input: give it a folder of its own"
    if inputs.uri and settings.cache.dir and uri.is_inside(settings.cache.dir, inputs.uri):
        yield ("cache.dir", "input.uri"), "the cache must not lie inside the input: give it a folder of its own"


def _backbone_conflicts(model: ModelSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    alphas = BACKBONES[model.backbone].alphas
    if not alphas and model.alpha != 1:
        yield ("model.alpha", "model.backbone"), f"{model.backbone} has no width multiplier: leave model.alpha at 1.0"
    if alphas and model.weights == "imagenet" and model.alpha not in alphas:
        yield (
            ("model.alpha", "model.weights"),
            f"ImageNet weights exist for alpha {', '.join(map(str, alphas))}: other widths need other weights",
        )


def _worker_conflicts(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    workers = settings.workers
    if workers.index >= workers.count:
        yield (
            ("workers.index", "workers.count"),
            "the workers are numbered from 0: the index must be below their number",
        )
    if workers.count == 1:
        return
    if len(workers.addresses) != workers.count:
        yield ("workers.addresses", "workers.count"), "each worker needs one address: HOST:PORT,HOST:PORT,…"
    if len(set(workers.addresses)) < len(workers.addresses):
        yield ("workers.addresses",), "two workers must not have the same address"
    if not settings.run.job_uid:
        yield (
            ("run.job_uid", "workers.count"),
            "the workers find their run by it: set it to one name, the same for all of them",
        )


def _frozen_conflicts(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    if settings.fine_tuning.cache_frozen and not settings.fine_tuning.from_layer:
        yield (
            ("fine_tuning.cache_frozen", "fine_tuning.from_layer"),
            "without a first trained layer nothing is frozen that could be cached: set fine_tuning.from_layer",
        )
    if settings.fine_tuning.cache_frozen and settings.augmentation.enabled:
        changed = [name for name, value in settings.augmentation if value not in ("none", 0)]
        yield (
            ("fine_tuning.cache_frozen", *(f"augmentation.{name}" for name in changed)),
            "cached outputs are those of the unchanged images: leave one of them out",
        )


# Queries


def view_count(settings: Settings) -> int:
    """Return how many augmented versions of each training image stage 1 caches the features of; 0: none."""
    stage = settings.feature_extraction
    return min(stage.views, stage.epochs) if settings.augmentation.changes_images else 0


def runs_backbone(settings: Settings) -> bool:
    """Whether stage 1 computes the features of newly augmented images in every epoch."""
    return settings.augmentation.enabled and settings.feature_extraction.views == 0


def setting_fields() -> dict[str, FieldInfo]:
    """Return dotted name -> field, in the order of the models."""
    fields: dict[str, FieldInfo] = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            fields |= {f"{name}.{member}": inner for member, inner in field.annotation.model_fields.items()}
        else:
            fields[name] = field
    return fields


def result_settings(settings: Settings) -> dict[str, Any]:
    """Return dotted name -> value of the settings that change the result: those in the run's identity."""
    values, defaults = (chosen.model_dump(mode="json") for chosen in (settings, Settings()))
    found = {}
    for name, field in setting_fields().items():
        group, _, member = name.partition(".")
        value, default = (dump[group][member] if member else dump[group] for dump in (values, defaults))
        extra = field.json_schema_extra
        if extra == _RESULT or (extra == _RESULT_IF_SET and value != default):
            found[name] = value
    return found
