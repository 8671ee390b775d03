"""What a run costs by the number of images and of GPUs: the formulas of docs/scaling.md, and its table.

    python scripts/scaling.py                                  with the assumed values: the tables of the page
    python scripts/scaling.py --stage_2 850 --validation_share 0.06 --images 300000 --gpus 1 4

Nothing is measured here. Put in what `make gpu-check` reports for your GPU, what benchmarks/phases.py measures on your
CPU, and what you know of your nodes and your network.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

IMAGES = (10_000, 1_000_000, 100_000_000)
GPUS = (1, 8, 64)

EPOCHS = (10, 10)
VALIDATION = 0.2
"""Share of the images that are held out, in a run's default and in `make gpu-check`."""
GRADIENT_BYTES = 9.0e6
"""Of a step of stage 2 at alpha 1.0: float32, without BatchNormalization."""
FEATURE_BYTES = 1280 * 4 + 4
RECORD_BYTES = 40
"""Of an image in the cache's indexes, at most."""


def _of(default: float, unit: str, text: str) -> float:
    """Return a field of `Inputs`: its default, its unit, and what it is."""
    value: float = field(default=default, metadata={"unit": unit, "text": text})
    return value


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a reader knows of GPU, CPU, network and images. The defaults of the GPU and the network are assumed."""

    stage_1: float = _of(50_000, "images/s", "gpu-check: stage 1, images/s")
    stage_2: float = _of(1_000, "images/s", "gpu-check: stage 2, images/s")
    validation_share: float = _of(0.08, "of an epoch", "gpu-check: validation's share of a stage 2 epoch")
    batch: float = _of(32, "images", "images of a step on each GPU, as in gpu-check")
    list_ms: float = _of(0.1, "ms an image", "listing, the store's answers included")
    objects_per_second: float = _of(3_000, "images/s", "downloads of a Pod")
    decode_ms: float = _of(3, "ms an image", "decoding, checking and hashing on one core")
    documents_ms: float = _of(0.1, "ms an image", "splitting, search for duplicates, lists of images: one core")
    metrics_ms: float = _of(0.2, "ms a held-out image", "metrics with their intervals: one core")
    label_errors: float = _of(2, "times", "the search for label errors, over the epochs of stage 1; 0: it is off")
    fixed_seconds: float = _of(60, "s", "once for a run: import, model, compilation, export, verification, publication")
    image_bytes: float = _of(100_000, "bytes", "an encoded image")
    image_size: float = _of(224, "pixels", "`model.image_size`")
    gpus_per_pod: float = _of(8, "GPUs", "more GPUs are those of several Pods")
    cores_per_gpu: float = _of(8, "cores", "CPU cores for each GPU")
    cache_terabytes: float = _of(1, "TB", "local disk for the cache, of a Pod")
    network_gigabytes: float = _of(1.25, "GB/s", "bandwidth between the GPUs in an all-reduce")
    latency_ms: float = _of(1, "ms", "of an all-reduce, besides its bytes")
    memory_bytes: float = _of(280, "bytes an image", "memory of the list of images, at most")
    saved_bytes: float = _of(80, "bytes an image", "the saved list, one object")

    @property
    def forward(self) -> float:
        """Images a second of a forward pass, from gpu-check's columns."""
        share = self.validation_share
        return self.stage_2 * VALIDATION / (1 - VALIDATION) * (1 - share) / share


def costs(images: float, gpus: int, inputs: Inputs) -> dict[str, float]:
    """Return the seconds of each phase of a run with the default recipe.

    Args:
        images: listed, of which a share is held out.
        gpus: that train together, of one Pod or of several.
        inputs: see there.
    """
    pod = min(gpus, inputs.gpus_per_pod)
    pods = math.ceil(gpus / inputs.gpus_per_pod)
    scoring = gpus if pods == 1 else 1
    core_ms, forward = inputs.decode_ms / inputs.cores_per_gpu, inputs.forward * gpus
    download, decoding = 1 / (inputs.objects_per_second * pods), core_ms / 1000 / gpus
    again = 0.0 if cached(images, inputs) == "pixels" else decoding
    train, held_out = images * (1 - VALIDATION), images * VALIDATION
    step = 1 / (inputs.stage_2 * gpus) + communication(gpus, inputs) / (inputs.batch * gpus)
    # of the images that a Pod trains on in an epoch, those that it has not decoded yet
    new = [(1 - 1 / pods) ** epoch for epoch in range(1, EPOCHS[1] + 1)]
    epochs = sum(
        train * max(step, again, share * decoding) + held_out * max(1 / forward, again, share * decoding)
        for share in new
    )
    stage_1 = EPOCHS[0] * images / inputs.stage_1 * (1 + inputs.label_errors)
    others = images * (1 - 1 / pods) / inputs.objects_per_second  # downloaded beside both stages
    scored = held_out * max(1 / (inputs.forward * scoring), again * gpus / pod)
    return {
        "list": images * inputs.list_ms / 1000,
        "read": images * (max(download, decoding, 1 / forward) + exchange(pods, inputs)),
        "stage 1": stage_1,
        "stage 2": max(epochs, others - stage_1),
        "score": 2 * scored + held_out * inputs.metrics_ms / 1000,
        "documents": images * inputs.documents_ms / 1000,
        "fixed": inputs.fixed_seconds,
    }


def communication(gpus: int, inputs: Inputs) -> float:
    """Return the seconds of a step's all-reduce: each GPU sends and receives 2 (g - 1) / g of the gradients."""
    if gpus == 1:
        return 0.0
    return inputs.latency_ms / 1000 + 2 * (gpus - 1) / gpus * GRADIENT_BYTES / (inputs.network_gigabytes * 1e9)


def exchange(pods: int, inputs: Inputs) -> float:
    """Return the seconds in which Pods send each other the features of an image, as float64, in an all-reduce."""
    return 2 * (pods - 1) / pods * 2 * (FEATURE_BYTES - 4) / (inputs.network_gigabytes * 1e9)


def cache_bytes(images: float, inputs: Inputs) -> tuple[float, float]:
    """Return the bytes that the cache of a Pod needs, and those with which no image is decoded a second time."""
    needed = images * (inputs.image_bytes + FEATURE_BYTES + RECORD_BYTES)
    return needed, needed + images * 3 * inputs.image_size**2


def cached(images: float, inputs: Inputs) -> str:
    """Return what fits into the cache of a Pod: "pixels", so that stage 2 decodes none; "encoded"; or "nothing"."""
    needed, with_pixels = cache_bytes(images, inputs)
    available = inputs.cache_terabytes * 1e12
    if with_pixels <= available:
        return "pixels"
    return "encoded" if needed <= available else "nothing"


def time_table(inputs: Inputs, counts: Iterable[float] = IMAGES, gpus: Sequence[int] = GPUS) -> str:
    """Return the table of seconds, in Markdown."""
    names = list(costs(1, 1, inputs))
    lines = ["| images | GPUs | " + " | ".join(names) + " | all | longest | cached |"]
    lines.append("|---:|---:|" + "---:|" * (len(names) + 1) + "---|---|")
    for images in counts:
        for count in gpus:
            found = costs(images, count, inputs)
            longest = max(found, key=found.__getitem__)
            times = [duration(seconds) for seconds in (*found.values(), sum(found.values()))]
            lines.append(
                f"| {images:,} | {count} | " + " | ".join(times) + f" | {longest} | {cached(images, inputs)} |"
            )
    return "\n".join(lines) + "\n"


def size_table(inputs: Inputs, counts: Iterable[float] = IMAGES) -> str:
    """Return the table of bytes, in Markdown."""
    lines = [
        "| images | memory of the list | the saved list, one object | cache of a Pod, at least | with all pixels |"
    ]
    lines.append("|---:|---:|---:|---:|---:|")
    for images in counts:
        sizes = (images * inputs.memory_bytes, images * inputs.saved_bytes, *cache_bytes(images, inputs))
        lines.append(f"| {images:,} | " + " | ".join(map(size, sizes)) + " |")
    return "\n".join(lines) + "\n"


def input_table(inputs: Inputs) -> str:
    """Return the table of the inputs, in Markdown."""
    lines = ["| input | value | unit | |", "|---|---:|---|---|"]
    for one in dataclasses.fields(inputs):
        value = getattr(inputs, one.name)
        lines.append(f"| `{one.name}` | {value:,} | {one.metadata['unit']} | {one.metadata['text']} |")
    return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    """Return seconds with two digits, in the unit in which they are below 100 or so."""
    for limit, unit, length in ((100, "s", 1), (6_000, "min", 60), (360_000, "h", 3_600)):
        if seconds < limit:
            return f"{_two_digits(seconds / length)} {unit}"
    return f"{_two_digits(seconds / 86_400)} d"


def size(count: float) -> str:
    """Return bytes with two digits."""
    for limit, unit, length in ((1e9, "MB", 1e6), (1e12, "GB", 1e9)):
        if count < limit:
            return f"{_two_digits(count / length)} {unit}"
    return f"{_two_digits(count / 1e12)} TB"


def _two_digits(value: float) -> str:
    digits = 1 - math.floor(math.log10(value)) if value > 0 else 0
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES)
    parser.add_argument("--gpus", type=int, nargs="+", default=GPUS)
    for one in dataclasses.fields(Inputs):
        text = f"{one.metadata['text']}, {one.metadata['unit']} (default: {one.default:,})"
        parser.add_argument(f"--{one.name}", type=float, default=one.default, help=text)
    options = vars(parser.parse_args(arguments))
    images, gpus = options.pop("images"), options.pop("gpus")
    inputs = Inputs(**options)
    print(time_table(inputs, images, gpus), size_table(inputs, images), input_table(inputs), sep="\n")


if __name__ == "__main__":
    main()
