"""Runs that are killed at random points come to the same end; `killed_runs.py` tells how, and takes more of them."""

import pytest

from tests.faults.killed_runs import SUBJECTS, Attempt, Point, Story, line_of
from tests.faults.whole_artifacts import OPENERS, faults_of

KILLS = 2  # of each kind; a run takes a minute and more


@pytest.mark.slow
@pytest.mark.parametrize("where", SUBJECTS)
def test_a_run_that_is_killed_at_random_points_ends_as_one_that_was_not(where, tmp_path):
    attempts = Story(where, tmp_path, seed=1).tell(KILLS)
    assert sum(attempt.killed for attempt in attempts) == KILLS
    assert not attempts[-1].killed
    assert [line_of(attempt) for attempt in attempts if attempt.faults] == []


def test_an_artifact_of_which_a_part_is_missing_is_a_fault(served, tmp_path):
    """Else the stories above would be told of anything."""
    (tmp_path / "structure").mkdir()
    (tmp_path / "structure" / "structure.json").write_text('{"groups": {')
    (tmp_path / "examples" / "Split-train").mkdir(parents=True)
    (tmp_path / "examples" / "Split-train" / "data.gz").write_bytes(b"\x1f\x8b half of a header")
    assert list(faults_of([("PushedModel", str(served))])) == []
    (served / "variables" / "variables.index").rename(tmp_path / "variables.index")
    kinds = {"morph_tfx.MorphStructure": "structure", "tfx.Examples": "examples", "PushedModel": str(served)}
    faults = list(faults_of([(kind, str(tmp_path / place)) for kind, place in kinds.items()]))
    (tmp_path / "variables.index").rename(served / "variables" / "variables.index")
    assert [fault.split()[0] for fault in faults] == list(kinds)
    for kind in OPENERS:
        if kind not in ("ModelRun", "TransformCache"):  # which may be empty
            assert len(list(faults_of([(kind, str(tmp_path / "nothing"))]))) == 1, kind
    assert len(list(faults_of([("Unheard", str(tmp_path))]))) == 1


def test_a_row_of_the_table_says_how_a_run_was_ended_and_what_was_wrong():
    killed = Attempt(3, Point(12.0, "SIGTERM"), True, "Pusher", [], 12.5)
    ended = Attempt(4, Point(50.0, "SIGKILL"), False, "the end", ["left: a", "left: b"], 9.0)
    assert line_of(killed).split() == ["3", "SIGTERM", "at", "12.5", "s", "Pusher", "whole"]
    assert line_of(ended).split()[:4] == ["4", "ended", "in", "9.0"]
    assert line_of(ended).endswith("left: a; left: b")
