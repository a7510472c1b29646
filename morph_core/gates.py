"""How a search decides which channels stay: one class a method, all with the same few questions to answer.

A gate gives every channel of the network a number that tells how open it is, learned beside the weights. The search
charges each channel `price x openness` in the loss, where the price is the channel's marginal cost; when the search
ends, the channels with the highest scores are kept. Channels that are tied share one gate.

To add a method, write a subclass of `Gate` and put it into `GATES`.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from .arrays import as_numpy
from .errors import MorphError
from .gating import weight_of
from .graph import ChannelGraph
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
        marginal: what one more channel of each group costs at the widths last looked at: float array (units,).
        takes_strength: whether a fixed strength means something for it.
        unit: what `charged` is measured in when a budget steers the price: float array (units,).
    """

    highest_price = 0.1
    closes_early = False
    takes_strength = True

    def __init__(self, graph: ChannelGraph) -> None:
        self.graph = graph
        self.learns = graph.prunable
        self.trainable: list[Any] = []
        self.optimizer: Any = None
        self.unit = np.ones(len(graph.group_of))
        self.marginal = np.ones(len(graph.group_of))

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


class GammaGate(Gate):
    """MorphNet's: the scale of BatchNormalization, with an L1 penalty (Gordon et al., CVPR 2018, section 4).

    The paper's regulariser is `strength x sum of marginal cost x |gamma|`, and a channel counts as alive while
    `|gamma|` exceeds a threshold. Where several BatchNormalizations scale the same channel, the largest `|gamma|`
    counts, as in the paper's treatment of residual connections. When the search steers by a budget, `|gamma|` is
    measured in units of its mean over the group at the start, so that networks with any initial scale are charged
    alike, and the lowest are closed along the schedule (a deviation: subgradient steps bring no scale to zero in a
    search of some thousand steps).
    """

    threshold = 0.01
    closes_early = True

    def __init__(self, graph: ChannelGraph) -> None:
        super().__init__(graph)
        self._layers: list[Any] = []
        places = []
        for index, call in enumerate(graph.trace.calls):
            layer: Any = call.layer
            if not isinstance(layer, keras.layers.BatchNormalization) or layer.gamma is None:
                continue
            if any(layer is known for known in self._layers) or "out" not in graph.axes[index]:
                continue
            self._layers.append(layer)
            places.append(graph.axes[index]["out"])
        units = np.concatenate([*places, np.zeros(0, dtype=np.int64)])
        count = len(graph.group_of)
        # Scales of channels that belong to no group are gathered in one segment more, and dropped.
        self._segments = np.where(units < 0, count, units)
        scaled = np.zeros(count, dtype=bool)
        scaled[units[units >= 0]] = True
        has_scale = np.ones(len(graph.groups), dtype=bool)
        np.logical_and.at(has_scale, graph.group_of, scaled)
        self.learns = graph.prunable & has_scale
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
        flat = ops.concatenate([ops.abs(ops.convert_to_tensor(layer.gamma)) for layer in self._layers])
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


class GroupLassoGate(Gate):
    """For networks without BatchNormalization: the L2 norm of the kernel that makes a channel, group-lasso fashion.

    The penalty is `strength x sum of marginal cost x norm`, the norm running over all weights of the kernels that make
    the channel, tied layers together (as in morph-net's group-lasso regulariser; Yuan and Lin, 2006). Under a budget
    norms are measured in units of their group's mean at the start, and the lowest are closed along the schedule, as for
    `gamma`.
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

    def _norms(self) -> np.ndarray:
        return as_numpy(self.charged()).astype(float)


class FisherGate(Gate):
    """How much the loss would miss a channel for what it costs: squared gradients at its gate, by marginal cost.

    A gate of value 1 multiplies every channel and is not learned; the running mean of its squared gradient, batch by
    batch, estimates the loss's curvature along closing it (the diagonal of the empirical Fisher information; Theis et
    al., arXiv 1801.05787, equation 5). The channels with the least of it for one unit of cost are closed along the
    schedule. Nothing is charged in the loss, so the weights train undisturbed; a fixed strength has no meaning here.
    """

    closes_early = True
    takes_strength = False

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

    def scores(self) -> np.ndarray:
        return self.optimizer.means(self._ones) / np.maximum(self.marginal, 1e-12)

    def alive(self) -> np.ndarray:
        return np.ones(len(self.graph.group_of), dtype=bool)


class LogisticSigmoidGate(Gate):
    """FiGS: a stochastic gate for every channel, also where there is no BatchNormalization (arXiv 2006.09581).

    In a training step a channel is multiplied by `z = sigmoid((beta theta + logit u) / tau)` with u uniform in (0, 1),
    the logistic-sigmoid relaxation of a coin that is open with probability `sigmoid(beta theta)`; that probability is
    what is charged. tau is 1 throughout. beta rises from 1 to 8 late in the search, so that the coins become decided
    ones (a deviation: the paper anneals nothing and rounds at the end). Theta starts at 3 and has an Adam optimizer of
    its own, since the user's may be tuned for anything.
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


GATES: dict[str, type[Gate]] = {
    "fisher": FisherGate,
    "gamma": GammaGate,
    "group_lasso": GroupLassoGate,
    "logistic_sigmoid": LogisticSigmoidGate,
}


def gate_for(name: str, graph: ChannelGraph) -> Gate:
    """The gate of that name for a network.

    Raises:
        MorphError: there is none of that name, or it has nothing to decide in this network.
    """
    if name not in GATES:
        known = ", ".join(f"'{known}'" for known in sorted(GATES))
        raise MorphError(f"Unknown gate {name!r}. Expected one of {known}.")
    if not graph.prunable.any():
        raise MorphError(f"No group of model '{graph.name}' can be pruned:\n{graph}")
    return GATES[name](graph)
