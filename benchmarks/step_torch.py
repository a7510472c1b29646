"""What Torch-Pruning's regularisers add to a training step: `step.py` runs this in an interpreter with PyTorch.

All arms train one network in turn, as Torch-Pruning's README has it (`pruner.regularize(model)` between the backward
pass and the optimizer's step): two copies of one network in one process differ by up to 10 % of CPU time on account of
where their memory lies, more than most of what is measured. `plain, again` is the plain step once more and shows how
much of a ratio is noise. Building a pruner (its dependency graph, its groups) is timed apart from the step.

Prints a JSON object: `versions`; `setup`, CPU seconds once by arm; `seconds`, CPU seconds of each step by arm, and
`regularize`, those of them inside of `pruner.regularize`. With `--one ARM` only that arm is trained, and `peak_mib` is
the largest resident set of the process.
"""

import argparse
import importlib.metadata
import json
import math
import random
import resource
import sys
import time

import torch
import torch_pruning
import torchvision
from torch import nn

ARMS = ("plain", "plain, again", "BNScale", "BNScale, group lasso", "GroupNorm")
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


def pruner(arm: str, model: nn.Module, head: nn.Module, example: torch.Tensor):
    """The pruner that regularises this arm: half of all channels, the head left whole. None for plain arms."""
    if arm.startswith("plain"):
        return None
    options = {"pruning_ratio": 0.5, "global_pruning": True, "ignored_layers": [head]}
    if arm == "GroupNorm":
        importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
        made = torch_pruning.pruner.GroupNormPruner(model, example, importance, **options)
    else:
        importance = torch_pruning.importance.BNScaleImportance()
        made = torch_pruning.pruner.BNScalePruner(model, example, importance, group_lasso="lasso" in arm, **options)
    made.update_regularizer()
    return made


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("network")
    for number in ("batch", "pixels", "classes", "rounds"):
        parser.add_argument(number, type=int)
    parser.add_argument("--one", choices=ARMS)
    given = parser.parse_args()
    torch.manual_seed(0)
    x, y = torch.randn(given.batch, 3, given.pixels, given.pixels), torch.randint(given.classes, (given.batch,))
    model, head = network(given.network, given.classes)
    pruners, setup = {}, {}
    for arm in [given.one] if given.one else ARMS:
        start = time.process_time()
        pruners[arm] = pruner(arm, model, head, x[:1])
        setup[arm] = time.process_time() - start
    # Torch-Pruning traces a network in inference mode and leaves it there.
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)

    def step(arm: str) -> tuple[float, float, float]:
        """CPU seconds of a step, those of its regulariser, and the loss."""
        start = time.process_time()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        regularize = time.process_time()
        if pruners[arm] is not None:
            pruners[arm].regularize(model)
        regularized = time.process_time()
        optimizer.step()
        return time.process_time() - start, regularized - regularize, loss.item()

    seconds: dict[str, list[float]] = {arm: [] for arm in pruners}
    inside: dict[str, list[float]] = {arm: [] for arm in pruners}
    order = list(pruners)
    for number in range(-WARM_UP, given.rounds):
        random.Random(number).shuffle(order)
        for arm in order:
            spent, added, loss = step(arm)
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"The loss of {arm} in round {number} is {loss}: steps on it are not training."
                )
            if number >= 0:
                seconds[arm].append(spent)
                inside[arm].append(added)
        print(f"torch, {given.network}: round {number + 1} of {given.rounds}", file=sys.stderr, flush=True)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "torch-pruning")}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    measured = {"versions": versions, "setup": setup, "seconds": seconds, "regularize": inside, "peak_mib": peak}
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
