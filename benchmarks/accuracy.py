"""What a search is worth: accuracy at a budget, against uniform widths, chance and a peer, at equal epochs in all.

Each arm of a network trains for as many epochs *in all*, search included, with one recipe. Arms that end in "same
compute" train longer: as many FLOPs as the run in one piece, whose first part trains the whole seed.

    python -m benchmarks.accuracy --data DIR [--seeds 5] [--network NAME] [--arm NAME] [--target flops=0.25]
                                  [--on validation] [--torch-python PATH] [--output FILE]

Finished runs are read back from the output file, so a study that was interrupted goes on where it stopped. Choices are
made with `--on validation`; tables of results are of the test split, whose rows are in `docs/results/accuracy.jsonl`.
`benchmarks/images.py` says what DIR holds. `--torch-python` is an interpreter with torch and torch-pruning; with it the
arms of Torch-Pruning run, too (`accuracy_torch.py`).
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras
import numpy as np

import morph_core as morph
from benchmarks import accuracy_torch
from benchmarks.images import NETWORKS, accuracy, load, train
from benchmarks.tables import plot, read, show, write

OUTPUT = pathlib.Path("docs/results/accuracy.jsonl")


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to a small network.

    Attributes:
        kind: "seed", "uniform", "random", "in place" (one run), "two cycles" (one run with two searches and a widening
            between them), "expanded" (one run that searches below the budget, then widens to it), "scratch" (search,
            then train anew for the epochs that are left), "shape" (likewise, for all epochs, on top of the search's) or
            "peer" (Torch-Pruning).
        part: of the epochs that the search takes.
        settings: further arguments of the search, of the widening or of the peer.
        longer: trains as many FLOPs as the run in one piece.
        taught: whether the seed, trained beforehand for as many epochs, is the teacher; its training is not counted.
        narrow: whether a run in one piece may narrow the network while channels close.
    """

    kind: str
    part: float = 0.0
    settings: dict = dataclasses.field(default_factory=dict)
    longer: bool = False
    taught: bool = False
    narrow: bool = True


ARMS = {
    "seed": Arm("seed"),
    "uniform": Arm("uniform"),
    "in place": Arm("in place", 0.25),
    "uniform, in place": Arm("in place", 0.25, {"min_channels": "uniform"}),
    "uniform, same compute": Arm("uniform", longer=True),
    "random": Arm("random"),
    "random, same compute": Arm("random", longer=True),
    "search half, scratch half": Arm("scratch", 0.5),
    "shape from scratch": Arm("shape", 0.25),
    "in place, cut once": Arm("in place", 0.25, narrow=False),
    "in place, 1/8": Arm("in place", 0.125),
    "in place, 1/2": Arm("in place", 0.5),
    "in place, gamma": Arm("in place", 0.25, {"gate": "gamma"}),
    "in place, group_lasso": Arm("in place", 0.25, {"gate": "group_lasso"}),
    "in place, logistic_sigmoid": Arm("in place", 0.25, {"gate": "logistic_sigmoid"}),
    "in place, distilled": Arm("in place", 0.25, {"distill": True}),
    "in place, trained teacher": Arm("in place", 0.25, taught=True),
    "in place, two cycles": Arm("two cycles", 0.25),
    "in place, two cycles, fresh channels": Arm("two cycles", 0.25, {"channels": "fresh"}),
    "in place, expanded": Arm("expanded", 0.25),
    "in place, expanded, fresh channels": Arm("expanded", 0.25, {"channels": "fresh"}),
    **{f"Torch-Pruning, {name}": Arm("peer", 0.25, {"criterion": name}) for name in accuracy_torch.CRITERIA},
}


class Spent(keras.callbacks.Callback):
    """Counts what the epochs of a training cost, in FLOPs of the networks that were trained for an image.

    Attributes:
        flops: so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        network = self.model.seed if isinstance(self.model, morph.StructureSearch) else self.model
        self.flops += morph.ChannelGraph.from_model(network).cost("flops")


def run(name: str, arm: Arm, target: dict[str, float], seed: int, data: tuple, compute: float | None) -> dict:
    """One training of one arm.

    Args:
        name: of the network.
        arm: to train.
        target: shares of the seed's costs.
        seed: of all that is left to chance.
        data: as of `load`.
        compute: FLOPs that the run in one piece has trained for, in epochs of the seed; None where there was none.
    """
    keras.utils.set_random_seed(seed)
    model, epochs = NETWORKS[name].build(), NETWORKS[name].epochs
    taught = {}
    if arm.taught:
        train(model, data, epochs)
        taught = {"distill": model}
        keras.utils.set_random_seed(seed)
        model = NETWORKS[name].build()
    graph = morph.ChannelGraph.from_model(model)
    started, full, spent = time.process_time(), 0, Spent()
    if arm.part:
        full = max(2 if arm.kind == "two cycles" else 1, round(arm.part * epochs))
    if arm.kind == "in place":
        search = morph.StructureSearch(model, target=target, search_fraction=arm.part, **arm.settings, **taught)
        train(search, data, epochs, callbacks=[spent], narrow=arm.narrow)
        student = search.result()
    elif arm.kind == "two cycles":
        student = two_cycles(model, graph, target, full, epochs, data, **arm.settings)
    elif arm.kind == "expanded":
        student = expanded(model, graph, target, full, epochs, data, **arm.settings)
    elif arm.kind in ("scratch", "shape"):
        search = morph.StructureSearch(model, target=target, **arm.settings)
        train(search, data, full)
        keras.utils.set_random_seed(1000 + seed)
        student = morph.rebuild(model, search.structure())
        train(student, data, epochs - (full if arm.kind == "scratch" else 0))
    else:
        student = {
            "seed": lambda: model,
            "uniform": lambda: morph.rebuild(model, morph.uniform(graph, target=target)),
            "random": lambda: morph.rebuild(model, by_chance(graph, target, seed)),
        }[arm.kind]()
        if arm.longer:
            assert compute is not None, "the run in one piece comes first"
            epochs = round(compute * graph.cost("flops") / morph.ChannelGraph.from_model(student).cost("flops"))
        train(student, data, epochs)
    left = morph.ChannelGraph.from_model(student)
    share = left.cost("flops") / graph.cost("flops")
    epochs -= full if arm.kind != "shape" else 0
    return {
        "accuracy": accuracy(student, data),
        "flops": share,
        "params": left.cost("params") / graph.cost("params"),
        "epochs": [full, epochs],
        "compute": spent.flops / graph.cost("flops") or full + epochs * share,
        "widths": [int(width) for width in left.seed_widths],
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def two_cycles(
    model: keras.Model,
    graph: morph.ChannelGraph,
    target: dict[str, float],
    searched: int,
    epochs: int,
    data: tuple,
    channels: str = "copies",
) -> keras.Model:
    """A run with two searches: to the budget, back to the seed's FLOPs by `morph.widen`, and to the budget again."""
    first = searched // 2
    once = morph.StructureSearch(model, target=target)
    train(once, data, epochs, until=first)
    narrow = once.structure()
    small = morph.rebuild(model, narrow, weights="inherit")
    wide = morph.widen(small, morph.expand(narrow, graph, target=1.0), channels=channels)
    wider = morph.ChannelGraph.from_model(wide)
    again = {cost: share * graph.cost(cost) / wider.cost(cost) for cost, share in target.items()}
    twice = morph.StructureSearch(wide, target=again, search_fraction=(searched - first) / (epochs - first))
    train(twice, data, epochs, before=first)
    return twice.result()


def expanded(
    model: keras.Model,
    graph: morph.ChannelGraph,
    target: dict[str, float],
    searched: int,
    epochs: int,
    data: tuple,
    channels: str = "copies",
    share: float = 0.6,
) -> keras.Model:
    """A run that searches for a share of the budget, and widens what is left by one factor until the budget is used."""
    search = morph.StructureSearch(model, target={cost: share * part for cost, part in target.items()})
    train(search, data, epochs, until=searched)
    small = morph.rebuild(model, search.structure(), weights="inherit")
    cost, part = next(iter(target.items()))
    student = morph.widen(small, morph.expand(search.structure(), graph, cost, target=part), channels=channels)
    train(student, data, epochs, before=searched)
    return student


def by_chance(graph: morph.ChannelGraph, target: dict[str, float], seed: int) -> morph.Structure:
    """Widths whose shares of the seed's are drawn at random, up to a factor of e each way, and scaled to the budget."""
    prunable = [group for group in graph.groups if group.prunable]
    drawn = np.exp(np.random.default_rng(seed).uniform(-1, 1, len(prunable)))
    factor = 3.0
    while True:
        widths = {
            group.name: int(np.clip(group.size * share * factor, 1, group.size))
            for group, share in zip(prunable, drawn, strict=True)
        }
        structure = morph.describe(graph, widths)
        if all(graph.cost(cost, structure) <= share * graph.cost(cost) for cost, share in target.items()):
            return structure
        factor *= 0.995


def _target(_: object, __: object, words: tuple[str, ...]) -> list[dict[str, float]]:
    try:
        return [{cost: float(share)} for cost, share in (word.split("=") for word in words)]
    except ValueError as error:
        raise click.BadParameter("expected a cost and its share, such as flops=0.25") from error


@click.command()
@click.option("--data", "folder", type=click.Path(path_type=pathlib.Path), help="Folder of the images.")
@click.option("--seeds", default=5, show_default=True, help="Trainings of each arm.")
@click.option("--first-seed", default=0, show_default=True, help="Choices are best made with other seeds.")
@click.option("--network", "names", multiple=True, type=click.Choice(list(NETWORKS)), help="Only these networks.")
@click.option("--arm", "arms", multiple=True, type=click.Choice(list(ARMS)), help="Only these arms.")
@click.option("--target", "targets", multiple=True, default=("flops=0.25",), show_default=True, callback=_target)
@click.option("--on", "judged", default="test", show_default=True, type=click.Choice(["validation", "test"]))
@click.option("--torch-python", type=click.Path(exists=True), help="An interpreter with torch and torch-pruning.")
@click.option("--output", default=OUTPUT, show_default=True, type=click.Path(path_type=pathlib.Path))
@click.option("--show-only", is_flag=True, help="Train nothing: print the table of what is in the output file.")
@click.option("--figure", type=click.Path(path_type=pathlib.Path), help="Draw accuracy against compute to this file.")
def main(
    folder: pathlib.Path | None,
    seeds: int,
    first_seed: int,
    names: tuple[str, ...],
    arms: tuple[str, ...],
    targets: list[dict[str, float]],
    judged: str,
    torch_python: str | None,
    output: pathlib.Path,
    show_only: bool,
    figure: pathlib.Path | None,
) -> None:
    """Train every arm on every network with every seed; print means, their 95 % intervals and paired differences."""
    rows = read(output)
    if not show_only:
        if folder is None:
            raise click.UsageError("--data is missing: the folder of the images.")
        data = load(folder, judged)
        for target in targets:
            for name in names or NETWORKS:
                for seed in range(first_seed, first_seed + seeds):
                    study(name, target, seed, arms or tuple(ARMS), data, judged, folder, torch_python, rows, output)
    for target in targets:
        chosen = [row for row in rows if row["on"] == judged and row["target"] == target]
        what = " and ".join(f"{share:.0%} of the {cost}" for cost, share in target.items())
        show(f"Accuracy ({judged}) at {what}", chosen, names or NETWORKS, ARMS, against="uniform")
        if figure is not None:
            plot(figure, chosen, names or NETWORKS, ARMS)


def study(
    name: str,
    target: dict[str, float],
    seed: int,
    arms: tuple[str, ...],
    data: tuple,
    judged: str,
    folder: pathlib.Path,
    torch_python: str | None,
    rows: list[dict],
    output: pathlib.Path,
) -> None:
    """Run the arms that are not among `rows` yet, and add them there and to the file."""
    for label in arms:
        same = {"network": name, "target": target, "seed": seed, "on": judged}
        known = {row["arm"]: row for row in rows if all(row[key] == value for key, value in same.items())}
        arm = ARMS[label]
        if label in known or (arm.kind == "peer" and not torch_python):
            continue
        if arm.kind == "peer":
            assert torch_python is not None
            found = accuracy_torch.ask(torch_python, folder, name, arm.part, target, seed, judged, **arm.settings)
        else:
            found = run(name, arm, target, seed, data, known.get("in place", {}).get("compute"))
            keras.backend.clear_session()
        rows.append({**same, "arm": label, **found})
        write(output, rows[-1])
        click.echo(f"{name}, seed {seed}, {label}: {found['accuracy']:.3f}, {found['cpu_seconds']} s", err=True)


if __name__ == "__main__":
    main()
