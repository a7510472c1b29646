"""What Torch-Pruning's regularisers add to a training step: `step.py` runs this in an interpreter with PyTorch.

Arguments: network, batch size, pixels, classes, rounds. Prints a JSON object: CPU seconds of each arm, round by round.
"""

import json
import random
import sys
import time

import torch
import torch_pruning
import torchvision
from torch import nn

WARM_UP = 2


class Block(nn.Module):
    """Two 3x3 convolutions and what goes around them."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        return (self.shortcut(x) + y).relu()


def network(name: str, classes: int) -> tuple[nn.Module, nn.Module]:
    """The network of `step.py` of that name, and its head."""
    if name == "resnet50":
        model = torchvision.models.resnet50(num_classes=classes)
        return model, model.fc
    blocks = [
        Block(max(16, width // 2) if first else width, width, 2 if first and width > 16 else 1)
        for width in (16, 32, 64)
        for first in (True, False, False)
    ]
    head = nn.Linear(64, classes)
    stem = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head), head


def arm(kind: str, name: str, x: torch.Tensor, y: torch.Tensor, classes: int):
    """A function that takes one step."""
    torch.manual_seed(0)
    model, head = network(name, classes)
    options = {"pruning_ratio": 0.5, "ignored_layers": [head]}
    pruner = None
    if kind != "plain":
        importance = torch_pruning.importance
        if kind == "GroupNorm":
            pruner = torch_pruning.pruner.GroupNormPruner(
                model, x[:1], importance=importance.GroupMagnitudeImportance(), **options
            )
        else:
            pruner = torch_pruning.pruner.BNScalePruner(
                model, x[:1], importance=importance.BNScaleImportance(), group_lasso="lasso" in kind, **options
            )
        pruner.update_regularizer()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        if pruner is not None:
            pruner.regularize(model)
        optimizer.step()

    return step


def main() -> None:
    name, size, pixels, classes, rounds = sys.argv[1], *map(int, sys.argv[2:])
    x, y = torch.randn(size, 3, pixels, pixels), torch.randint(classes, (size,))
    steps = {kind: arm(kind, name, x, y, classes) for kind in ("plain", "BNScale", "BNScale, group lasso", "GroupNorm")}
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    order = list(steps)
    for number in range(-WARM_UP, rounds):
        random.Random(number).shuffle(order)
        for kind in order:
            start = time.process_time()
            steps[kind]()
            if number >= 0:
                seconds[kind].append(time.process_time() - start)
        print(f"torch, {name}: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    print(json.dumps(seconds))


if __name__ == "__main__":
    main()
