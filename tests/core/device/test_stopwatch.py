"""The stopwatch, on a machine whose clock is made up."""

import itertools

import pytest

from morph_core.device import stopwatch
from morph_core.device.stopwatch import Stopwatch


@pytest.fixture
def machine(monkeypatch):
    """machine.call(milliseconds, kind) makes a call, which takes twice as long after another kind or another call."""

    class Machine:
        now, last, log = 0.0, None, []

        def call(self, milliseconds, kind="any"):
            def run():
                self.now += 1e-3 * milliseconds
                if self.last is not None and self.last[0] != kind:
                    self.now += 1e-3 * milliseconds
                if self.last is not run_as:
                    self.now += 1e-3 * milliseconds
                self.last = run_as
                self.log.append(milliseconds)

            run_as = (kind, milliseconds)
            return run

    found = Machine()
    monkeypatch.setattr(stopwatch.time, "perf_counter", lambda: found.now)
    return found


@pytest.mark.parametrize("milliseconds", [[5.0], [0.004, 0.3, 2.0, 40.0]])
def test_a_call_takes_what_it_takes_when_it_runs_again_and_again(machine, milliseconds):
    """Less what an empty one takes."""
    watch = Stopwatch(machine.call(0.001), repeats=5)
    found = watch.milliseconds([machine.call(each) for each in milliseconds])
    assert found == pytest.approx([each - 0.001 for each in milliseconds])


def test_what_takes_no_longer_than_an_empty_call_takes_nothing(machine):
    assert Stopwatch(machine.call(1.0), repeats=3).milliseconds([machine.call(0.5)]) == [0.0]


def test_groups_are_timed_apart_and_in_turn(machine):
    watch = Stopwatch(machine.call(0.0), repeats=4)
    small, large = [1.0, 1.25, 1.5], [8.0, 9.0]
    groups = [[machine.call(each, "small") for each in small], [machine.call(each, "large") for each in large]]
    told = []
    found = watch.milliseconds_of_groups(groups, told.append)
    assert told == [0, 1, 2, 3]
    assert found == [pytest.approx(small), pytest.approx(large)]
    log = [each for each in machine.log if each]
    runs = [each in large for each in log]
    changes = sum(a != b for a, b in itertools.pairwise(runs))
    assert changes == 1 + 2 * 4  # warmed up, then small and large ones in each turn


def test_turns_have_different_orders(machine):
    watch = Stopwatch(machine.call(0.0), repeats=8)
    calls = [2.0, 3.0, 4.0]
    watch.milliseconds([machine.call(each) for each in calls])
    log = [each for each in machine.log if each]
    orders = {tuple(dict.fromkeys(log[start : start + 3])) for start in range(len(log) - 2)}
    assert len({order for order in orders if len(order) == 3}) > 2


def test_nothing_to_time_takes_no_time(machine):
    nothing, some = Stopwatch(machine.call(1.0), repeats=3).milliseconds_of_groups([[], [machine.call(3.0)]])
    assert nothing == [] and some == pytest.approx([2.0])
