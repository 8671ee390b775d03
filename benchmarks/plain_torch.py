"""The peer in another library: the recipe as a practitioner writes it in PyTorch, with torchvision's MobileNetV2.

It runs in the environment that peers.py makes, and needs nothing but torch and torchvision. It is what the job is
measured against, so it must stay what it is: float32 on the CPU with channels_last, oneDNN as PyTorch uses it, no
torch.compile, no caching, the backbone of stage 1 under no_grad, BatchNormalization in inference mode in both stages,
workers that decode. Like plain_keras.py it exports nothing.

    python benchmarks/plain_torch.py --data FOLDER --weights weights.npz --threads 2 --json history.json

FOLDER has ``train/`` and ``validation/``, with a folder for each class in both.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn
from torchvision.transforms import v2

WORKERS = 2
"""Processes that decode; they stay for all epochs."""


def main() -> None:
    """Train both stages and write or print the history."""
    options = parse()
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    train, validation = (load(options, folder) for folder in ("train", "validation"))
    classes = len(train.dataset.classes)
    base, head = build(options, classes)
    loss = Loss(classes)
    history, seconds = [], {}
    for stage, epochs, rate in zip(("feature_extraction", "fine_tuning"), options.epochs, (1e-4, 1e-5), strict=True):
        trained = set_trainable(base, head, backbone=stage == "fine_tuning")
        network = Network(base, head, frozen=stage == "feature_extraction")
        optimizer = torch.optim.Adam(trained, lr=rate, eps=1e-7)  # note: Keras's epsilon
        started = time.perf_counter()
        for epoch in range(1, epochs + 1):
            row: dict[str, Any] = {"stage": stage, "epoch": epoch, **train_epoch(network, train, loss, optimizer)}
            row |= {f"val_{name}": value for name, value in evaluate(network, validation, loss).items()}
            history.append(row | {"seconds": row["train_seconds"] + row["val_seconds"]})
            print(history[-1], flush=True)
        seconds[stage] = time.perf_counter() - started
    text = json.dumps({"history": history, "seconds": seconds, "build": versions()}, indent=1)
    if options.json:
        options.json.write_text(text + "\n")
    else:
        print(text)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a folder with train/ and validation/")
    parser.add_argument("--weights", type=Path, help="Keras's arrays, as peers.py writes them; default: random")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--image_size", type=int, default=160)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--epochs", type=int, nargs=2, default=[10, 10], metavar=("STAGE1", "STAGE2"))
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="where the result goes; printed by default")
    return parser.parse_args()


def load(options: argparse.Namespace, folder: str) -> Any:
    """Return batches of (float32 pixels [n, 3, s, s] in -1..1, labels int64 [n])."""
    size, half = options.image_size, [0.5] * 3
    transform = v2.Compose(
        [v2.Resize((size, size)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(half, half)]
    )
    return torch.utils.data.DataLoader(
        torchvision.datasets.ImageFolder(options.data / folder, transform),
        batch_size=options.batch_size,
        shuffle=folder == "train",
        num_workers=WORKERS,
        persistent_workers=True,
    )


def build(options: argparse.Namespace, classes: int) -> tuple[nn.Module, nn.Module]:
    """Return the backbone with its weights, and the recipe's head for pooled features [n, 1280]."""
    base = torchvision.models.mobilenet_v2(weights=None).features
    for module in base.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3  # note: Keras's
    if options.weights:
        load_keras_weights(base, options.weights)
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(1280, 50),
        nn.ReLU(),
        nn.Linear(50, 1 if classes == 2 else classes),
    )
    for module in head:
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    return base.to(memory_format=torch.channels_last), head


def load_keras_weights(base: nn.Module, path: Path) -> None:
    """Copy the arrays of ``keras.Model.get_weights``, which are in the order of the layers, as the modules are.

    Args:
        base: torchvision's backbone.
        path: an .npz of the arrays, named by their position.
    """
    with np.load(path) as file:
        arrays = iter([torch.from_numpy(file[str(n)]) for n in range(len(file.files))])
    with torch.no_grad():
        for module in base.modules():
            if isinstance(module, nn.Conv2d):
                kernel = next(arrays)  # [height, width, in, out], of a depthwise convolution [height, width, in, 1]
                module.weight.copy_(kernel.permute(2, 3, 0, 1) if module.groups > 1 else kernel.permute(3, 2, 0, 1))
            elif isinstance(module, nn.BatchNorm2d):
                for target in (module.weight, module.bias, module.running_mean, module.running_var):
                    target.copy_(next(arrays))
    assert next(arrays, None) is None


def set_trainable(base: nn.Module, head: nn.Module, *, backbone: bool) -> list[nn.Parameter]:
    """Select what a stage trains, and return it: the head; with `backbone` all but BatchNormalization."""
    base.requires_grad_(backbone)
    for module in base.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.requires_grad_(False)
    return [parameter for part in (base, head) for parameter in part.parameters() if parameter.requires_grad]


class Network(nn.Module):  # type: ignore[misc]  # torch is Any here
    """Backbone and head: pixels [n, 3, s, s] to logits [n, outputs]. A frozen backbone records no gradients.

    Args:
        base: the backbone, whose BatchNormalization stays in inference mode.
        head: of pooled features.
        frozen: whether the backbone is.
    """

    def __init__(self, base: nn.Module, head: nn.Module, *, frozen: bool) -> None:
        super().__init__()
        self.base = base.eval()
        self.head = head
        self.frozen = frozen

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        if not self.frozen:
            return self.head(self.base(pixels))
        with torch.no_grad():
            maps = self.base(pixels)
        return self.head(maps)


class Loss:
    """The recipe's loss, and the number of right answers: binary for two classes."""

    def __init__(self, classes: int) -> None:
        self.binary = classes == 2
        self._mean = nn.BCEWithLogitsLoss() if self.binary else nn.CrossEntropyLoss()

    def __call__(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Return the mean over the batch."""
        return self._mean(logits[:, 0], labels.float()) if self.binary else self._mean(logits, labels)

    def correct(self, logits: torch.Tensor, labels: torch.Tensor) -> int:
        """Return how many answers are right."""
        answers = (logits[:, 0] > 0).long() if self.binary else logits.argmax(1)
        return int((answers == labels).sum())


def train_epoch(step: Any, batches: Any, loss: Loss, optimizer: Any) -> dict[str, float]:
    """Train one epoch; return loss, accuracy and seconds."""
    started = time.perf_counter()
    total, correct, images = 0.0, 0, len(batches.dataset)
    for pixels, labels in batches:
        logits = step(pixels.to(memory_format=torch.channels_last))
        batch_loss = loss(logits, labels)
        optimizer.zero_grad()
        batch_loss.backward()
        optimizer.step()
        total += float(batch_loss.detach()) * len(labels)
        correct += loss.correct(logits, labels)
    return {"loss": total / images, "accuracy": correct / images, "train_seconds": time.perf_counter() - started}


def evaluate(step: Any, batches: Any, loss: Loss) -> dict[str, float]:
    """Return loss, accuracy and seconds of the validation images."""
    started = time.perf_counter()
    total, correct, images = 0.0, 0, len(batches.dataset)
    with torch.no_grad():
        for pixels, labels in batches:
            logits = step(pixels.to(memory_format=torch.channels_last))
            total += float(loss(logits, labels)) * len(labels)
            correct += loss.correct(logits, labels)
    return {"loss": total / images, "accuracy": correct / images, "seconds": time.perf_counter() - started}


def versions() -> dict[str, object]:
    """Return what was measured: versions, the CPU's instructions in use, oneDNN, threads."""
    return {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "onednn": torch.backends.mkldnn.is_available(),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    main()
