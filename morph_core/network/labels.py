"""Numbers for channels: which channels of a network are one and the same, kept as a union-find over integer arrays.

A tensor's labels are an integer array that broadcasts to the tensor's shape, batch included: a convolution's output of
shape (batch, 8, 8, 16) has labels of shape (1, 1, 1, 16). Label 0 stands for a channel that nobody can remove, such as
a colour of the input image.
"""

from __future__ import annotations

import numpy as np

_FREE = np.iinfo(np.int64).max


class Labels:
    """Makes labels, unites them, and remembers which must stay, and why."""

    def __init__(self) -> None:
        self._parent = np.zeros(1, dtype=np.int64)
        self._why = np.full(1, _FREE)
        self._reasons = [""]

    def __len__(self) -> int:
        return len(self._parent)

    def fresh(self, count: int) -> np.ndarray:
        """`count` new labels: int array (count,)."""
        start = len(self._parent)
        made = np.arange(start, start + count)
        self._parent = np.concatenate([self._parent, made])
        self._why = np.concatenate([self._why, np.full(count, _FREE)])
        return made

    def roots(self, labels: np.ndarray) -> np.ndarray:
        """The representative of each label, in the same shape."""
        found = self._parent[labels]
        while True:
            above = self._parent[found]
            if np.array_equal(above, found):
                return found
            found = above

    def unite(self, first: np.ndarray, second: np.ndarray, reason: str) -> None:
        """Make two arrays of labels one, element by element; what meets label 0 stays, for `reason`."""
        pairs = np.unique(np.stack([np.ravel(first), np.ravel(second)], axis=1), axis=0)
        fixed = (pairs == 0).any(axis=1)
        self.freeze(pairs[fixed], reason)
        pairs = self.roots(pairs[~fixed])
        low, high = pairs.min(axis=1), pairs.max(axis=1)
        apart = low != high
        low, high = low[apart], high[apart]
        if len(np.unique(high)) == len(high) and not np.isin(low, high).any():
            self._parent[high] = low
            return
        for one, other in zip(low.tolist(), high.tolist(), strict=True):
            one, other = self._root(one), self._root(other)
            self._parent[max(one, other)] = min(one, other)

    def freeze(self, labels: np.ndarray, reason: str) -> None:
        """These channels stay; the first reason given for a channel is the one reported."""
        labels = np.unique(labels)
        labels = labels[labels > 0]
        fresh = labels[self._why[labels] == _FREE]
        if len(fresh):
            self._why[fresh] = len(self._reasons)
            self._reasons.append(reason)

    def override(self, labels: np.ndarray, reason: str) -> None:
        """As `freeze`, for the one reason that says more than any other."""
        labels = np.unique(labels)
        self._why[labels[labels > 0]] = 0
        self._reasons[0] = reason

    def reasons(self) -> dict[int, str]:
        """Why each channel that must stay does so, by representative."""
        frozen = np.flatnonzero(self._why != _FREE)
        first = np.full(len(self._parent), _FREE)
        np.minimum.at(first, self.roots(frozen), self._why[frozen])
        return {int(root): self._reasons[first[root]] for root in np.flatnonzero(first != _FREE)}

    def _root(self, label: int) -> int:
        while self._parent[label] != label:
            label = int(self._parent[label])
        return label
