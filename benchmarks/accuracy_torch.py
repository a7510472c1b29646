"""Torch-Pruning beside the searches of `accuracy.py`: the same networks, images, recipe and epochs in all, in PyTorch.

Torch-Pruning (1.6.1) removes channels from a trained network and leaves training to the user. So the network is trained
for the first part of the epochs, pruned until its FLOPs are within the budget (the loop of its paper's scripts,
`reproduce/main.py`: a pruner that would remove every channel in 400 steps is stopped at the first that is within), and
trained to the end, on the one cosine schedule that the searches have. Its criteria are each an arm, on one ranking of
all layers, as those scripts have it, and within each layer.

The recipe is written out so that it is that of Keras: Glorot's initialisation, BatchNormalization's momentum and
epsilon, weight decay apart from the gradient, mirrored and shifted images.

This file is imported by `accuracy.py`, for `ask`, and run by the other interpreter, which has torch, torch-pruning and
numpy; so its head imports none of them.
"""

from __future__ import annotations

import json
import math
import pathlib
import subprocess
import sys
import time
from typing import Any

CRITERIA = {
    "magnitude": ("GroupMagnitudeImportance", False),
    "magnitude, global": ("GroupMagnitudeImportance", True),
    "BNScale, global": ("BNScaleImportance", True),
    "Taylor": ("GroupTaylorImportance", False),
    "Taylor, global": ("GroupTaylorImportance", True),
}
STEPS = 400


def ask(
    python: str,
    folder: pathlib.Path,
    network: str,
    part: float,
    target: dict[str, float],
    seed: int,
    judged: str,
    criterion: str,
) -> dict:
    """One training in the other interpreter; a row as of `accuracy.run`.

    Args:
        python: that interpreter.
        folder: of the images.
        network: by its name in `images.NETWORKS`.
        part: of the epochs before pruning.
        target: shares of the seed's costs, "flops" or "params".
        seed: of all that is left to chance.
        judged: the split, "validation" or "test".
        criterion: one of `CRITERIA`.
    """
    from benchmarks import images

    wanted = {
        "folder": str(folder.resolve()),
        "network": network,
        "epochs": images.NETWORKS[network].epochs,
        "part": part,
        "target": target,
        "seed": seed,
        "judged": judged,
        "criterion": criterion,
        "recipe": {"rows": images.ROWS, "batch": images.BATCH, "peak": images.PEAK, "first": images.FIRST}
        | {"momentum": images.MOMENTUM, "decay": images.DECAY},
    }
    answer = subprocess.run([python, __file__], input=json.dumps(wanted), capture_output=True, text=True)
    if answer.returncode:
        raise RuntimeError(f"{python} {__file__} failed:\n{answer.stderr[-2000:]}")
    return json.loads(answer.stdout.splitlines()[-1])


def main() -> None:
    """Do what standard input asks for, and print the row."""
    wanted = json.loads(sys.stdin.read())
    started = time.process_time()
    print(json.dumps({**run(**wanted), "cpu_seconds": round(time.process_time() - started, 1)}))


def run(
    folder: str,
    network: str,
    epochs: int,
    part: float,
    target: dict[str, float],
    seed: int,
    judged: str,
    criterion: str,
    recipe: dict[str, Any],
) -> dict:
    """Train, prune, train on; see `ask`."""
    import numpy as np
    import torch

    torch.manual_seed(seed)
    with np.load(pathlib.Path(folder) / "cifar10_16x16_20k.npz") as data:
        rows = recipe["rows"]
        x, y = data["x_train"], data["y_train"].astype("int64")
        other = (x[rows : rows + 5000], y[rows : rows + 5000])
        if judged == "test":
            other = (data["x_test"], data["y_test"].astype("int64"))
        scale = lambda array: torch.tensor((array.astype("float32") / 255 - 0.47) / 0.25).permute(0, 3, 1, 2)  # noqa: E731
        x, y = scale(x[:rows]).contiguous(), torch.tensor(y[:rows])
        judge = scale(other[0]).contiguous(), torch.tensor(other[1])
    model = networks()[network]()
    example = x[:1]
    before = costs(model, example)
    first = max(1, round(part * epochs))
    schedule = Schedule(model, recipe, epochs * (len(x) // recipe["batch"]))
    for _ in range(first):
        schedule.epoch(x, y)
    prune(model, example, criterion, {cost: share * before[cost] for cost, share in target.items()}, x, y)
    schedule.restart()
    for _ in range(epochs - first):
        schedule.epoch(x, y)
    after = costs(model, example)
    share = after["flops"] / before["flops"]
    model.eval()
    with torch.no_grad():
        told = torch.cat([model(batch).argmax(1) for batch in judge[0].split(500)])
    return {
        "accuracy": float((told == judge[1]).float().mean()),
        "flops": share,
        "params": after["params"] / before["params"],
        "epochs": [first, epochs - first],
        "compute": first + (epochs - first) * share,
        "widths": [layer.weight.shape[0] for layer in weighted(model)],
    }


class Schedule:
    """SGD with Nesterov's momentum and decay apart from it, on a warm-up and one cosine, as Keras' CosineDecay."""

    def __init__(self, model: Any, recipe: dict[str, Any], steps: int) -> None:
        self._model, self._recipe, self._steps, self._step = model, recipe, steps, 0
        self.restart()

    def restart(self) -> None:
        """Takes up the model's weights anew: pruning replaces them, and their momentum is lost."""
        import torch

        self._optimizer = torch.optim.SGD(
            self._model.parameters(), lr=0.1, momentum=self._recipe["momentum"], nesterov=True
        )

    def rate(self) -> float:
        """The learning rate of this step."""
        first, peak, warmup = self._recipe["first"], self._recipe["peak"], self._steps // 20
        if self._step < warmup:
            return first + (peak - first) * self._step / warmup
        return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, (self._step - warmup) / self._steps)))

    def epoch(self, x: Any, y: Any) -> None:
        """One pass over all images, in random order."""
        import torch
        from torch.nn import functional

        self._model.train()
        for rows in torch.randperm(len(x)).split(self._recipe["batch"]):
            rate = self.rate()
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            self._optimizer.zero_grad()
            functional.cross_entropy(self._model(augmented(x[rows])), y[rows]).backward()
            with torch.no_grad():
                for parameter in self._model.parameters():
                    parameter.mul_(1 - rate * self._recipe["decay"])
            self._optimizer.step()
            self._step += 1


def augmented(images: Any) -> Any:
    """Each image mirrored or not, and shifted by up to an eighth each way, reflected at its borders."""
    import torch
    from torch.nn import functional

    count = len(images)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = torch.where(torch.rand(count) < 0.5, -1.0, 1.0)
    theta[:, 1, 1] = 1.0
    theta[:, :, 2] = (torch.rand(count, 2) * 2 - 1) * 0.25  # the image is two units wide
    grid = functional.affine_grid(theta, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def prune(model: Any, example: Any, criterion: str, budget: dict[str, float], x: Any, y: Any) -> None:
    """Remove channels in small steps until all costs are within the budget."""
    import torch_pruning
    from torch.nn import functional

    name, everywhere = CRITERIA[criterion]
    pruner = torch_pruning.pruner.BasePruner(
        model,
        example,
        importance=getattr(torch_pruning.importance, name)(),
        global_pruning=everywhere,
        pruning_ratio=1.0,
        iterative_steps=STEPS,
        ignored_layers=[weighted(model)[-1]],
    )
    model.eval()
    if "Taylor" in name:
        model.zero_grad()
        for start in range(0, 2000, 500):
            functional.cross_entropy(model(x[start : start + 500]), y[start : start + 500]).backward()
    for _ in range(STEPS):
        found = costs(model, example)
        if all(found[cost] <= most for cost, most in budget.items()):
            return
        pruner.step()
        if "Taylor" in name:
            model.zero_grad()
            functional.cross_entropy(model(x[:500]), y[:500]).backward()
    raise RuntimeError(f"Torch-Pruning did not come within {budget} in {STEPS} steps")


def networks() -> dict[str, Any]:
    """The networks of `images.NETWORKS`, by the same names."""
    import torch
    from torch import nn

    def convolution(inner: int, width: int, size: int = 3, stride: int = 1) -> Any:
        layer = nn.Conv2d(inner, width, size, stride, size // 2, bias=False)
        nn.init.xavier_uniform_(layer.weight)
        return nn.Sequential(layer, nn.BatchNorm2d(width, eps=1e-3, momentum=0.05))

    def classifier(width: int) -> list[Any]:
        dense = nn.Linear(width, 10)
        nn.init.xavier_uniform_(dense.weight)
        nn.init.zeros_(dense.bias)
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense]

    def plain(*widths: int) -> Any:
        parts, before = [], 3
        for index, width in enumerate(widths):
            parts += [convolution(before, width), nn.ReLU()]
            if index % 2 and index < len(widths) - 1:
                parts.append(nn.MaxPool2d(2))
            before = width
        return nn.Sequential(*parts, *classifier(before))

    class Block(nn.Module):
        def __init__(self, before: int, width: int, stride: int) -> None:
            super().__init__()
            self.first, self.second = convolution(before, width, stride=stride), convolution(width, width)
            self.skip = convolution(before, width, 1, stride) if stride > 1 else nn.Identity()

        def forward(self, x: Any) -> Any:
            return torch.relu(self.skip(x) + self.second(torch.relu(self.first(x))))

    def residual(widths: tuple[int, ...], blocks: int) -> Any:
        parts, before = [convolution(3, widths[0]), nn.ReLU()], widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                parts.append(Block(before, width, 2 if stage and not block else 1))
                before = width
        return nn.Sequential(*parts, *classifier(before))

    return {
        "front-heavy": lambda: plain(48, 48, 32, 32, 16, 16),
        "well-shaped": lambda: plain(16, 16, 32, 32, 64, 64),
        "equal widths": lambda: plain(32, 32, 32, 32, 32, 32),
        "residual": lambda: residual((32, 32, 32), 1),
        "ResNet-20": lambda: residual((16, 32, 64), 3),
    }


def costs(model: Any, example: Any) -> dict[str, float]:
    """FLOPs for one image (twice the multiply-adds of convolutions and dense layers) and trained parameters."""
    import torch

    counts: list[int] = []

    def count(layer: Any, _: object, output: Any) -> None:
        counts.append(2 * output.numel() * layer.weight[0].numel())

    hooks = [layer.register_forward_hook(count) for layer in weighted(model)]
    training = model.training
    model.eval()
    with torch.no_grad():
        model(example)
    model.train(training)
    for hook in hooks:
        hook.remove()
    return {"flops": float(sum(counts)), "params": float(sum(each.numel() for each in model.parameters()))}


def weighted(model: Any) -> list[Any]:
    """Convolutions and dense layers, in order."""
    from torch import nn

    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


if __name__ == "__main__":
    main()
