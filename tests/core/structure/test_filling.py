"""Steps that are tried in rows are given as steps that are tried one by one."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from morph_core.structure.filling import filled


def one_by_one(sizes, growing, top, urgency, used):
    """The slow and obvious way: the most urgent step that fits, again and again."""
    sizes = sizes.copy()
    while True:
        fitting = []
        for group in growing:
            step = sizes.copy()
            step[group] += 1
            if sizes[group] < top[group] and used(step[None])[0] <= 1:
                fitting.append(group)
        if not fitting:
            return sizes
        sizes[min(fitting, key=lambda group: urgency(group, sizes[group]))] += 1


@given(st.integers(0, 10_000), st.integers(1, 8), st.floats(0.1, 3))
def test_what_is_given_in_rows_is_what_would_be_given_one_by_one(seed, groups, room):
    random = np.random.default_rng(seed)
    prices, pairs = random.integers(1, 9, groups), random.integers(0, 3, (groups, groups))
    top, start = random.integers(1, 7, groups), np.ones(groups, dtype=int)
    needs = random.integers(0, 3, (groups, 8))  # many are the same, so that ties are seen

    def used(networks):
        """A cost that rises with each size, and with the product of any two, as FLOPs do."""
        return (networks @ prices + np.einsum("ng,gh,nh->n", networks, pairs, networks)) / (room * total)

    total = prices.sum() + pairs.sum()
    growing = random.permutation(groups).tolist()

    def urgency(group, size):
        return float(needs[group, size])

    found = filled(start, growing, lambda sizes: np.minimum(sizes + 1, top), urgency, used)
    assert found.tolist() == one_by_one(start, growing, top, urgency, used).tolist()
    assert (start == 1).all(), "what was given is left as it is"


def test_networks_are_priced_together_and_not_step_by_step():
    """With a thousand groups, to price each step of each group would take minutes."""
    asked = []

    def used(networks):
        asked.append(len(networks))
        return networks.sum(axis=1) / 2500

    sizes = filled(
        np.ones(1000, dtype=int), range(1000), lambda sizes: sizes + 1, lambda group, size: float(size), used
    )
    assert sizes.sum() == 2500 and set(sizes) == {2, 3}
    assert len(asked) <= 6 and max(asked) <= 1000
