"""How close Torch-Pruning comes to half of a network's FLOPs: `budget.py` runs this in an interpreter with PyTorch.

Torch-Pruning is asked for a share of *channels* and has no argument for FLOPs. Its README (version 1.6.1, "High-level
Pruners") counts on a share of 1 - (1 - p)^2 of the weights when p of all channels go, one half at p = 0.29; its example
asks for p = 0.5. What it has for a goal in FLOPs is a loop in the scripts that reproduce its paper
(`reproduce/main.py`: `progressive_pruning`): a pruner that would remove every channel in 400 steps is stopped after the
first that is within the goal. All of that is run here, on the networks of `budget.py` after the same training, with its
README's importance (group magnitudes, p = 2). FLOPs are twice the multiply-adds of convolutions and dense layers, for
one image, by this file's own count; the loop stops by the same count.

Arguments: a .npz file with `images` (rows, 8, 8, 1) and `labels` (rows,), epochs, batch size, seeds. Prints a JSON
object: `versions`, and `runs`, a list of objects with `network`, `arm`, `seed`, `flops` of the seed network, `left` of
them after pruning (0 to 1), and `narrowest`, the least channels of a layer.
"""

import copy
import importlib.metadata
import itertools
import json
import math
import sys
from collections.abc import Callable

import numpy as np
import torch
import torch_pruning
from torch import nn

GOAL = 0.5
STEPS = 400


def convolution(width_in: int, width: int, kernel: int = 3, stride: int = 1, relu: bool = True) -> nn.Module:
    parts = [nn.Conv2d(width_in, width, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(width)]
    return nn.Sequential(*parts, *([nn.ReLU()] if relu else []))


class Sum(nn.Module):
    """Two convolutions and a projection or an identity beside them, added."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            convolution(width_in, width, stride=stride), convolution(width, width, relu=False)
        )
        self.shortcut = convolution(width_in, width, 1, stride, relu=False) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.residual(x) + self.shortcut(x)).relu()


class Towers(nn.Module):
    """Towers on one input, concatenated and pooled."""

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.towers = nn.ModuleList(
            [
                convolution(width_in, width, 1),
                nn.Sequential(convolution(width_in, width, 1), convolution(width, 2 * width)),
                nn.Sequential(
                    convolution(width_in, width // 2, 1), convolution(width // 2, width), convolution(width, width)
                ),
                nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), convolution(width_in, width, 1)),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.max_pool2d(torch.cat([tower(x) for tower in self.towers], 1), 2)


def mlp() -> list[nn.Module]:
    hidden = [(nn.Linear(before, 128), nn.ReLU()) for before in (64, 128, 128)]
    return [nn.Flatten(), *itertools.chain(*hidden), nn.Linear(128, 10)]


def resnet8() -> list[nn.Module]:
    return [convolution(1, 16), Sum(16, 16, 1), Sum(16, 32, 2), Sum(32, 64, 2), *classifier(64)]


def inception() -> list[nn.Module]:
    return [convolution(1, 24), Towers(24, 12), Towers(60, 16), *classifier(80)]


def depthwise() -> list[nn.Module]:
    parts, before = [convolution(1, 24)], 24
    for width, stride in ((32, 1), (48, 2), (48, 1), (64, 2)):
        parts += [nn.Conv2d(before, before, 3, stride, 1, groups=before, bias=False), nn.BatchNorm2d(before), nn.ReLU()]
        parts.append(convolution(before, width, 1))
        before = width
    return [*parts, *classifier(64)]


def classifier(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10)]


# The networks of `budget.py`, by the same names; `budget.py` compares their FLOPs with its own.
NETWORKS = {"MLP": mlp, "ResNet-8": resnet8, "Inception": inception, "depthwise": depthwise}


def flops(model: nn.Module, image: torch.Tensor) -> int:
    counts = []

    def count(layer: nn.Conv2d | nn.Linear, _: object, output: torch.Tensor) -> None:
        counts.append(2 * output.numel() * layer.weight[0].numel())

    hooks = [layer.register_forward_hook(count) for layer in weighted(model)]
    with torch.no_grad():
        model(image)
    for hook in hooks:
        hook.remove()
    return sum(counts)


def weighted(model: nn.Module) -> list[nn.Module]:
    return [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]


def trained(parts: list[nn.Module], images: torch.Tensor, labels: torch.Tensor, epochs: int, size: int) -> nn.Module:
    model = nn.Sequential(*parts)
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
    return model.eval()


def one_shot(ratio: float, everywhere: bool) -> Callable[[nn.Module, torch.Tensor], None]:
    """Remove that share of all channels at once, ranked in the whole network or within each layer."""

    def prune(model: nn.Module, image: torch.Tensor) -> None:
        pruner(model, image, pruning_ratio=ratio, global_pruning=everywhere).step()

    return prune


def progressive(everywhere: bool) -> Callable[[nn.Module, torch.Tensor], None]:
    """Remove a 400th of all channels at a time, until the network is within the goal."""

    def prune(model: nn.Module, image: torch.Tensor) -> None:
        most = GOAL * flops(model, image)
        steps = pruner(model, image, pruning_ratio=1.0, global_pruning=everywhere, iterative_steps=STEPS)
        while flops(model, image) > most and steps.current_step < STEPS:
            steps.step()

    return prune


def pruner(model: nn.Module, image: torch.Tensor, **options):
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    return torch_pruning.pruner.BasePruner(model, image, importance, ignored_layers=[model[-1]], **options)


SQUARE = 1 - math.sqrt(GOAL)
ARMS = {
    "50 % of channels, ranked globally": one_shot(GOAL, True),
    "29 % of channels, ranked globally": one_shot(SQUARE, True),
    "50 % of each layer's channels": one_shot(GOAL, False),
    "29 % of each layer's channels": one_shot(SQUARE, False),
    "loop of 400 steps, ranked globally": progressive(True),
    "loop of 400 steps, each layer alike": progressive(False),
}


def main() -> None:
    file, epochs, size, seeds = sys.argv[1], *map(int, sys.argv[2:])
    with np.load(file, allow_pickle=False) as data:
        images = torch.from_numpy(data["images"]).permute(0, 3, 1, 2).contiguous()
        labels = torch.from_numpy(data["labels"]).long()
    # So small a network is slower on two threads that wait for one another.
    torch.set_num_threads(1)
    runs = []
    for seed in range(seeds):
        for name, parts in NETWORKS.items():
            torch.manual_seed(seed)
            seed_network = trained(parts(), images, labels, epochs, size)
            before = flops(seed_network, images[:1])
            for arm, prune in ARMS.items():
                model = copy.deepcopy(seed_network)
                prune(model, images[:1])
                left = flops(model, images[:1]) / before
                narrowest = min(len(layer.weight) for layer in weighted(model)[:-1])
                run = {"network": name, "arm": arm, "seed": seed, "flops": before, "left": left, "narrowest": narrowest}
                runs.append(run)
                print(f"torch: {name}, {arm}, seed {seed}: {left:.2%}", file=sys.stderr, flush=True)
    versions = {name: importlib.metadata.version(name) for name in ("torch", "torch-pruning")}
    print(json.dumps({"versions": versions, "runs": runs}))


if __name__ == "__main__":
    main()
