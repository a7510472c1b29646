"""How a search decides which channels stay: one class a method, all with the same few questions to answer.

A gate gives every channel of the network a number that tells how open it is, learned beside the weights. The search
charges each channel `price x openness` in the loss, where the price is the channel's marginal cost; when the search
ends, the channels with the highest scores are kept. Gates are counted by channel of a group, not by layer: channels
that are tied, as by an Add, are one channel and have one gate.

To add a method, write a subclass of `Gate` and put it into `GATES`, and its name
into `gate_names`. `gate="auto"` is `choose_gate`.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from ..arrays import as_numpy, weight_of
from ..errors import MorphError
from ..network.graph import ChannelGraph
from ..structure.choices import channels_of_each
from .gate_names import GATES
from .optimizer import SquaredGradients


class Gate:
    """One number for every channel.

    Attributes:
        learns: bool array (groups,), the groups this gate can decide on.
        highest_price: bound on the price that the controller may ask, in units of the loss per unit of log cost. A gate
            that closes early is held to the schedule anyway: its price only has to tell dear channels from cheap ones,
            and a higher one drowns what the data say (at 1, every seed of a small network ended with the same widths).
        trainable: the gate's own trainable variables, updated by `optimizer` and not by the user's.
        optimizer: for those variables; None where there are none.
        closes_early: the channels of the lowest scores are closed all along the schedule, since the gate's numbers do
            not reach zero by themselves in a short search.
        open: which channels were open at the last look: bool array (units,).
        dropped: how open, in sum, the channels were without which the search goes on: float array (groups,). They count
            in what a channel costs, as they would if they were only closed: the price of a layer is not to fall because
            its neighbours have become narrow, or the narrow ones starve.
        marginal: what one more channel of each group costs at the widths last looked at: float array (units,).
        takes_strength: whether a fixed strength means something for it.
        unit: what `charged` is measured in when a budget steers the price: float array (units,).
        remembered: names of attributes that change and are no variables; they are saved with a search.
    """

    highest_price = 0.1
    closes_early = False
    takes_strength = True
    remembered = ("marginal", "unit", "dropped")

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self.learns = graph.prunable
        self.trainable: list[Any] = []
        self.optimizer: Any = None
        self.unit = np.ones(len(graph.group_of))
        self.marginal = np.ones(len(graph.group_of))
        self.open = np.ones(len(graph.group_of), dtype=bool)
        self.dropped = np.zeros(len(graph.groups))

    def build(self, search: keras.Model) -> None:
        """Make the gate's variables, as weights of the search."""

    def sample(self, kept: Any) -> Any:
        """What channels are multiplied by in a training step: tensor (units,); `kept` has 1 for those still open."""
        return kept

    def charged(self) -> Any:
        """What the price is multiplied by in the loss, differentiable: tensor (units,)."""
        raise NotImplementedError

    def openness(self) -> np.ndarray:
        """How open each gate is now, from 0 to 1: float array (units,)."""
        raise NotImplementedError

    def scores(self) -> np.ndarray:
        """What each channel is worth, to rank them: float array (units,)."""
        raise NotImplementedError

    def alive(self) -> np.ndarray:
        """Which channels count as kept without a budget: bool array (units,)."""
        raise NotImplementedError

    def begin(self, steps: int | None) -> None:
        """The search starts and will take so many steps (None when unknown)."""

    def anneal(self, progress: float) -> None:
        """The search has come so far: 0 at the start, 1 at the end."""

    def take_over(self, before: Gate, units: np.ndarray) -> None:
        """Goes on where another gate of its kind is, of a network whose channels `units` are this one's.

        Only gates that close early are asked to. The gate's optimizer is built.

        Args:
            before: the other one.
            units: int array (units,); -1 for channels that nobody decides on.
        """
        for name in ("unit", "marginal", "open"):
            value = getattr(before, name)[units]
            setattr(self, name, np.where(units < 0, getattr(self, name), value))
        theirs = before.graph
        decided = units >= 0
        lost = before.openness()
        lost[units[decided]] = 0.0
        dropped = before.dropped + np.bincount(theirs.group_of, lost, len(theirs.groups))
        self.dropped[self.graph.group_of[decided]] = dropped[theirs.group_of[units[decided]]]


class GammaGate(Gate):
    """MorphNet's: the scale of BatchNormalization, with an L1 penalty (Gordon et al., CVPR 2018, section 4).

    Formula, with a fixed strength: `strength x sum over channels of marginal cost x |gamma|`. For the FLOP and size
    costs, which are bilinear in the widths, the marginal cost of a channel is what the paper multiplies its |gamma| by.
    A channel counts as alive while `|gamma|` exceeds 0.01, the threshold of the authors' published code. Where several
    BatchNormalizations scale the same channel, the largest `|gamma|` counts, as there for residual connections.

    Deviations, all when the search steers by a budget: `|gamma|` is measured in units of its mean over the group at the
    start, so that networks with any initial scale are charged alike; the lowest are closed along the schedule, since
    subgradient steps bring no scale to zero in a search of some thousand steps; the price is bounded.
    """

    threshold = 0.01
    closes_early = True

    def __init__(self, graph: ChannelGraph) -> None:
        super().__init__(graph)
        self._layers, units = _scales(graph)
        # Scales of channels that belong to no group are gathered in one segment more, and dropped.
        self._segments = np.where(units < 0, len(graph.group_of), units)
        self.learns = graph.prunable & _has_scale(graph, units)
        if not self.learns.any():
            raise MorphError(
                f"gate='gamma' reads the scale (gamma) of BatchNormalization, but no group of model '{graph.name}' has "
                "one. Use gate='logistic_sigmoid', which needs no BatchNormalization."
            )

    def build(self, search: keras.Model) -> None:
        scales = self._numpy()
        groups = self.graph.group_of
        means = np.bincount(groups, scales, len(self.graph.groups)) / np.maximum(np.bincount(groups), 1)
        self.unit = np.maximum(means, 1e-3)[groups]

    def charged(self) -> Any:
        flat = ops.abs(ops.concatenate([ops.convert_to_tensor(layer.gamma) for layer in self._layers]))
        largest = ops.segment_max(flat, self._segments, num_segments=len(self.unit) + 1)[:-1]
        # Channels without a scale come out of the maximum as minus infinity.
        return ops.maximum(largest, 0.0)

    def openness(self) -> np.ndarray:
        return np.minimum(self._numpy() / self.unit, 1.0)

    def scores(self) -> np.ndarray:
        return self._numpy() / self.unit

    def alive(self) -> np.ndarray:
        return self._numpy() > self.threshold

    def _numpy(self) -> np.ndarray:
        largest = np.zeros(len(self.graph.group_of) + 1)
        flat = np.concatenate([np.abs(as_numpy(layer.gamma)) for layer in self._layers])
        np.maximum.at(largest, self._segments, flat)
        return largest[:-1]


def _scales(graph: ChannelGraph) -> tuple[list[Any], np.ndarray]:
    """The BatchNormalizations with a scale, and the channel of each entry of their scales, one after the other."""
    found: list[Any] = []
    places = [np.zeros(0, dtype=np.int64)]
    for index, call in enumerate(graph.trace.calls):
        layer: Any = call.layer
        if not isinstance(layer, keras.layers.BatchNormalization) or layer.gamma is None:
            continue
        if any(layer is known for known in found) or "out" not in graph.axes[index]:
            continue
        found.append(layer)
        places.append(graph.axes[index]["out"])
    return found, np.concatenate(places)


def _has_scale(graph: ChannelGraph, units: np.ndarray) -> np.ndarray:
    """Which groups have all their channels among `units`: bool array (groups,)."""
    scaled = np.zeros(len(graph.group_of), dtype=bool)
    scaled[units[units >= 0]] = True
    whole = np.ones(len(graph.groups), dtype=bool)
    np.logical_and.at(whole, graph.group_of, scaled)
    return whole


class GroupLassoGate(Gate):
    """For networks without BatchNormalization: the L2 norm of the kernel that makes a channel, group-lasso fashion.

    Formula, with a fixed strength: `strength x sum over channels of marginal cost x ||w||`, where `w` are all weights
    of the kernels that make the channel, those of tied layers together (group lasso: Yuan and Lin, 2006; one group an
    output channel: Alvarez and Salzmann, arXiv 1611.06321, which morph-net's regulariser cites).

    Deviations: morph-net takes the root mean square of each kernel and the largest over tied layers, here it is one
    norm over all of them; a channel is alive while its norm exceeds 1 % of its group's mean at the start, not an
    absolute number. Under a budget norms are measured in units of that mean, the lowest are closed along the schedule
    and the price is bounded, as for `gamma`.
    """

    threshold = 0.01
    closes_early = True

    def __init__(self, graph: ChannelGraph) -> None:
        super().__init__(graph)
        self._kernels: list[tuple[Any, int]] = []
        places, seen = [], set()
        for index, call in enumerate(graph.trace.calls):
            for path, follows in graph.rules[index].weights.items():
                weight = weight_of(call.layer, path)
                if path not in graph.rules[index].kernels or "out" not in follows or id(weight) in seen:
                    continue
                if weight is not None and "out" in graph.rules[index].widths.values():
                    seen.add(id(weight))
                    self._kernels.append((weight, len(weight.shape) - 1 - tuple(reversed(follows)).index("out")))
                    places.append(graph.axes[index]["out"])
        units = np.concatenate([*places, np.zeros(0, dtype=np.int64)])
        self._segments = np.where(units < 0, len(graph.group_of), units)
        self.learns = graph.prunable & np.isin(np.arange(len(graph.groups)), graph.group_of[units[units >= 0]])

    def build(self, search: keras.Model) -> None:
        groups = self.graph.group_of
        means = np.bincount(groups, self._norms(), len(self.graph.groups)) / np.maximum(np.bincount(groups), 1)
        self.unit = np.maximum(means, 1e-3)[groups]

    def charged(self) -> Any:
        squares = []
        for weight, axis in self._kernels:
            others = [place for place in range(len(weight.shape)) if place != axis]
            squares.append(ops.sum(ops.square(ops.convert_to_tensor(weight)), axis=others))
        total = ops.segment_sum(ops.concatenate(squares), self._segments, num_segments=len(self.unit) + 1)[:-1]
        return ops.sqrt(total + 1e-12)

    def openness(self) -> np.ndarray:
        return np.minimum(self._norms() / self.unit, 1.0)

    def scores(self) -> np.ndarray:
        return self._norms() / self.unit

    def alive(self) -> np.ndarray:
        return self._norms() > self.threshold * self.unit

    def take_over(self, before: Gate, units: np.ndarray) -> None:
        super().take_over(before, units)
        assert isinstance(before, GroupLassoGate)
        # Kernels have lost the rows of closed channels. That is no reason to close more of what reads from there.
        groups, count = self.graph.group_of, len(self.graph.groups)
        now = np.bincount(groups, np.where(units < 0, 1.0, self._norms()), count)
        then = np.bincount(groups, np.where(units < 0, 1.0, before._norms()[units]), count)
        self.unit = self.unit * (now / np.maximum(then, 1e-12))[groups]

    def _norms(self) -> np.ndarray:
        return as_numpy(self.charged()).astype(float)


class FisherGate(Gate):
    """How much the loss would miss a channel for what it costs: squared gradients at its gate, by marginal cost.

    Formula: `score = mean of (dL/dz)^2 / (marginal cost x width)`, where `z` is a gate of value 1 that multiplies the
    channel and is not learned, the mean runs over batches (decay 0.98), and the width is that of the channel's group at
    the moment, in channels of a layer. The squared gradient estimates the loss's curvature along closing the gate (the
    diagonal of the empirical Fisher information; Theis et al., arXiv 1801.05787). The channels with the lowest scores
    are closed along the schedule. Nothing is charged in the loss, so the weights train undisturbed; a fixed strength
    has no meaning here.

    Deviations: Theis et al. square the gradient of each example, here it is that of a batch's mean loss, which needs no
    pass of its own; they weigh loss against cost by a factor, here the score is divided by the cost, which needs none.
    The width is ours: the diagonal says what closing one channel does while all others stay, so it knows nothing of
    channels that stand in for each other, of which a wide layer has more. Without it, cheap wide layers were kept whole
    and the others starved.
    """

    closes_early = True
    takes_strength = False

    def __init__(self, graph: ChannelGraph) -> None:
        super().__init__(graph)
        self._channels = np.array([min(counts) for counts in channels_of_each(graph)])

    def build(self, search: keras.Model) -> None:
        self._ones = search.add_weight(
            shape=(len(self.graph.group_of),), initializer="ones", name="gate_ones", dtype="float32"
        )
        self.trainable = [self._ones]
        self.optimizer = SquaredGradients(name="gate_squared_gradients")

    def sample(self, kept: Any) -> Any:
        return kept * self._ones

    def charged(self) -> Any:
        return ops.zeros_like(ops.convert_to_tensor(self._ones))

    def openness(self) -> np.ndarray:
        return np.ones(len(self.graph.group_of))

    def take_over(self, before: Gate, units: np.ndarray) -> None:
        super().take_over(before, units)
        assert isinstance(before, FisherGate)
        self.optimizer.take_over(before.optimizer, units)

    def scores(self) -> np.ndarray:
        groups = self.graph.group_of
        widths = np.bincount(groups, self.open, len(self.graph.groups)) * self._channels
        return self.optimizer.means(self._ones) / np.maximum(self.marginal * np.maximum(widths, 1)[groups], 1e-12)

    def alive(self) -> np.ndarray:
        return np.ones(len(self.graph.group_of), dtype=bool)


class LogisticSigmoidGate(Gate):
    """FiGS: a stochastic gate for every channel, also where there is no BatchNormalization (arXiv 2006.09581).

    Formula: in a training step a channel is multiplied by `z = sigmoid((beta theta + logit u) / tau)` with u uniform in
    (0, 1), the logistic-sigmoid relaxation of a coin that is open with probability `sigmoid(beta theta)`; that
    probability times the marginal cost is charged. A channel is alive while theta > 0.

    Deviations from the authors' published code: tau is 1 (there 0.001), so that every sample gives theta a gradient;
    coins become decided ones by beta, which rises from 1 to 8 late in the search; the probability is charged, not the
    sample; outside training a gate is 0 or 1 and not scaled by its probability; theta starts at 3 (there 2.5), stays
    within 6 and has an Adam optimizer of its own, since the user's may be tuned for anything.
    """

    highest_price = 20.0
    _start, _bound, _hardest = 3.0, 6.0, 8.0

    def build(self, search: keras.Model) -> None:
        count = len(self.graph.group_of)
        self._theta = search.add_weight(
            shape=(count,),
            initializer=keras.initializers.Constant(self._start),
            constraint=_Clip(self._bound),
            name="gate_theta",
            dtype="float32",
        )
        self._beta = search.add_weight(shape=(), initializer="ones", trainable=False, name="gate_beta", dtype="float32")
        self._random = keras.random.SeedGenerator(0)
        search.gate_random = self._random
        self.trainable = [self._theta]
        self.optimizer = keras.optimizers.Adam(0.05, name="gate_optimizer")

    def sample(self, kept: Any) -> Any:
        uniform = keras.random.uniform((len(self.graph.group_of),), 1e-6, 1 - 1e-6, dtype="float32", seed=self._random)
        noise = ops.log(uniform) - ops.log1p(-uniform)
        return ops.sigmoid(self._beta * self._theta + noise)

    def charged(self) -> Any:
        return ops.sigmoid(self._beta * self._theta)

    def openness(self) -> np.ndarray:
        strength = float(as_numpy(self._beta)) * as_numpy(self._theta).astype(float)
        return 1 / (1 + np.exp(-strength))

    def scores(self) -> np.ndarray:
        return as_numpy(self._theta).astype(float)

    def alive(self) -> np.ndarray:
        return self.scores() > 0

    def begin(self, steps: int | None) -> None:
        # Theta must be able to travel from +3 to -6 and back in the time there is: 15 units over the search.
        if steps:
            self.optimizer.learning_rate = float(np.clip(15.0 / steps, 0.01, 0.3))

    def anneal(self, progress: float) -> None:
        self._beta.assign(self._hardest ** float(np.clip((progress - 0.6) / 0.32, 0.0, 1.0)))


class _Clip(keras.constraints.Constraint):
    """Keeps a gate's logit where its gradient is not lost."""

    def __init__(self, bound: float) -> None:
        self.bound = bound

    def __call__(self, value: Any) -> Any:
        return ops.clip(value, -self.bound, self.bound)

    def get_config(self) -> dict[str, Any]:
        return {"bound": self.bound}


GATES.update(fisher=FisherGate, gamma=GammaGate, group_lasso=GroupLassoGate, logistic_sigmoid=LogisticSigmoidGate)


def choose_gate(graph: ChannelGraph, steered: bool) -> tuple[str, str]:
    """The gate that `gate="auto"` means for a network, and why.

    Args:
        graph: of the network.
        steered: the search has a target or a budget to steer by, not a fixed strength.
    """
    if steered:
        return "fisher", (
            "the search steers by a budget: squared gradients rank the channels of every kind of layer, and the "
            "weights train without a penalty"
        )
    bare = np.flatnonzero(graph.prunable & ~_has_scale(graph, _scales(graph)[1]))
    if not len(bare):
        return "gamma", (
            "the strength is fixed and BatchNormalization scales the channels of every group that can be pruned: "
            "the regulariser of the paper"
        )
    more = f" and of {len(bare) - 1} more" if len(bare) > 1 else ""
    return "logistic_sigmoid", (
        f"the strength is fixed, and the channels of group '{graph.groups[bare[0]].name}'{more} have no scale of a "
        "BatchNormalization, which 'gamma' needs"
    )


def gate_for(name: str, graph: ChannelGraph) -> Gate:
    """The gate of that name for a network; not for "auto", which `choose_gate` turns into a name.

    Raises:
        MorphError: it has nothing to decide in this network.
    """
    if not graph.prunable.any():
        raise MorphError(f"No group of model '{graph.name}' can be pruned:\n{graph}")
    return GATES[name](graph)
