"""What `keep` removes and what it leaves, on the disk, below `push_to`, and in ML metadata."""

import contextlib
import itertools
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_metadata.proto import metadata_store_pb2
from tfx.orchestration import metadata
from tfx.orchestration.portable import cache_utils
from tfx.orchestration.portable.mlmd import context_lib
from tfx.types import Artifact
from tfx.types import standard_artifacts as artifacts

from morph_core import MorphError
from morph_tfx.components import MorphStructure
from morph_tfx.pipelines.local import runner
from morph_tfx.pipelines.local.leftovers import in_use
from morph_tfx.pipelines.local.retention import remove_old
from tests.pipelines.config.sample import config_of
from tests.pipelines.conftest import Record, made

STATES = metadata_store_pb2.Artifact
SEARCH, RETRAIN = "x", "x-retrain"


class History:
    """Runs of both pipelines of a configuration, with what they leave on the disk."""

    def __init__(self, handle, config, tmp_path):
        self.record = Record(handle, tmp_path, tmp_path)
        self.handle, self.config = handle, config
        self._numbers = itertools.count(1)

    def made(self, kind: type[Artifact], step: str, output: str, **properties: int | str):
        """An artifact where TFX puts it, with a file in it, and what TFX notes of its execution."""
        artifact, number = made(kind, **properties), next(self._numbers)
        directory = Path(self.config.pipeline_root) / step / output / str(number)
        (directory / "inside").mkdir(parents=True)
        (directory / "inside" / "file").write_text("content")
        (directory.parents[1] / ".system" / "executor_execution" / str(number)).mkdir(parents=True)
        artifact.uri = str(directory)
        return artifact

    def search(self) -> dict[str, Artifact]:
        """A run that finds a structure, and pushes a model."""
        self.record.begin_run()
        structure = self.made(MorphStructure, "MorphTrainer-1", "structure")
        self.record.step(SEARCH, "MorphTrainer-1", {}, structure=structure)
        return {"structure": structure, **self._train_and_push(SEARCH, structure)}

    def retrain(self, structure: Artifact, push_to: str | None = None, pushes: bool = True) -> dict[str, Artifact]:
        """A run that looks a structure up, and pushes a model or holds it back."""
        self.record.begin_run()
        self.record.looked_up(RETRAIN, structure=structure)
        return self._train_and_push(RETRAIN, structure, push_to, pushes)

    def _train_and_push(self, pipeline, structure, push_to=None, pushes=True) -> dict[str, Artifact]:
        model = self.made(artifacts.Model, "Retrainer", "model")
        log = self.made(artifacts.ModelRun, "Retrainer", "model_run")
        self.record.step(pipeline, "Retrainer", {"structure": structure}, model=model, model_run=log)
        pushed = self.made(artifacts.PushedModel, "Pusher", "pushed_model", pushed=int(pushes))
        if pushes:
            version = Path(push_to or self.config.push_to) / str(1000 + next(self._numbers))
            version.mkdir(parents=True)
            (version / "saved_model.pb").write_text("model")
            pushed.set_string_custom_property("pushed_destination", str(version))
        self.record.step(pipeline, "Pusher", {"model": model}, pushed_model=pushed)
        return {"model": model, "model_run": log, "pushed_model": pushed}

    def remove(self) -> list[str]:
        lines: list[str] = []
        remove_old(self.config, lines.append)
        return lines

    def state(self, artifact: Artifact) -> int:
        [found] = self.handle.store.get_artifacts_by_id([artifact.id])
        return found.state


def version_of(run: dict[str, Artifact]) -> Path:
    return Path(run["pushed_model"].get_string_custom_property("pushed_destination"))


def noted(artifact: Artifact) -> Path:
    directory = Path(artifact.uri)
    return directory.parents[1] / ".system" / "executor_execution" / directory.name


@contextlib.contextmanager
def histories(config, tmp_path, keep):
    config = config.model_copy(update={"keep": keep})
    with metadata.Metadata(metadata.sqlite_metadata_connection_config(config.metadata)) as handle:
        yield History(handle, config, tmp_path)


@pytest.fixture
def history(config, tmp_path):
    with histories(config, tmp_path, 2) as found:
        yield found


def is_whole(history, artifact) -> bool:
    there = (Path(artifact.uri) / "inside" / "file").exists()
    assert noted(artifact).exists() == there
    assert there == (history.state(artifact) == STATES.LIVE), "what metadata says is true"
    return there


def test_the_last_runs_and_what_they_looked_up_stay_and_the_rest_is_recorded_as_deleted(history):
    search = history.search()
    nights = [history.retrain(search["structure"]) for _ in range(5)]
    lines = history.remove()
    # The search is one of its own pipeline's last two runs.
    for run in (search, *nights[3:]):
        assert all(is_whole(history, artifact) for artifact in run.values())
    for run in nights[:3]:
        assert not any(is_whole(history, artifact) for artifact in run.values())
        assert {history.state(artifact) for artifact in run.values()} == {STATES.DELETED}
    there = {version_of(nights[3]), version_of(nights[4]), version_of(search)}
    assert set(Path(history.config.push_to).iterdir()) == there
    numbers = ", ".join(version_of(run).name for run in nights[:3])
    assert lines == [f"Removed, with keep: 2: 9 artifacts of older runs, and the pushed models {numbers}."]
    assert history.remove() == []


def test_a_structure_stays_for_as_long_as_it_is_retrained_though_its_own_run_goes(history):
    first = history.search()
    history.search()
    history.search()
    last = [history.retrain(first["structure"]) for _ in range(2)]
    history.remove()
    assert is_whole(history, first["structure"])
    assert not is_whole(history, first["model"])
    assert all(is_whole(history, artifact) for run in last for artifact in run.values())


def test_nights_that_were_held_back_do_not_drive_out_what_is_in_production(history):
    search = history.search()
    good = [history.retrain(search["structure"]) for _ in range(3)]
    held_back = [history.retrain(search["structure"], pushes=False) for _ in range(4)]
    history.remove()
    assert [all(is_whole(history, artifact) for artifact in run.values()) for run in good] == [False, True, True]
    assert [all(is_whole(history, artifact) for artifact in run.values()) for run in held_back] == [False] * 2 + [
        True
    ] * 2
    assert {version_of(run) for run in good[1:]} <= set(Path(history.config.push_to).iterdir())


def test_a_push_that_somebody_took_back_does_not_count_as_one_of_the_last(history):
    search = history.search()
    nights = [history.retrain(search["structure"]) for _ in range(3)]
    history.retrain(search["structure"], pushes=False)
    history.retrain(search["structure"], pushes=False)
    shutil.rmtree(version_of(nights[2]))
    history.remove()
    assert is_whole(history, nights[1]["model"]) and version_of(nights[0]).is_dir()
    assert not is_whole(history, nights[2]["model"])


def test_what_a_last_run_took_from_the_cache_stays(history):
    search = history.search()
    old, *_ = [history.retrain(search["structure"]) for _ in range(3)]
    for _ in range(2):
        history.record.begin_run()
        history.record.cached(RETRAIN, "Retrainer", {}, model=old["model"], model_run=old["model_run"])
    history.remove()
    assert is_whole(history, old["model"]) and is_whole(history, old["model_run"])


def test_tfx_does_not_take_from_the_cache_what_was_removed(history):
    search = history.search()
    runs = [history.retrain(search["structure"]) for _ in range(3)]
    store = history.handle.store
    caches = []
    for number, run in enumerate(runs):
        [event] = store.get_events_by_artifact_ids([run["pushed_model"].id])
        context = context_lib.register_context_if_not_exists(
            history.handle, context_lib.CONTEXT_TYPE_EXECUTION_CACHE, f"inputs {number}"
        )
        link = metadata_store_pb2.Association(execution_id=event.execution_id, context_id=context.id)
        store.put_attributions_and_associations([], [link])
        caches.append(context)
    history.remove()
    handed_out = [cache_utils.get_cached_outputs(history.handle, context) for context in caches]
    assert handed_out[0] is None and handed_out[1] is not None and handed_out[2] is not None


def test_links_and_what_lies_elsewhere_or_belongs_to_others_stay(history, tmp_path):
    search = history.search()
    old = [history.retrain(search["structure"]) for _ in range(4)]
    # A version of another pipeline, one that a person put there, one that was pushed elsewhere.
    others = [Path(history.config.push_to) / name for name in ("7", "by-hand")]
    for directory in others:
        directory.mkdir()
    elsewhere = history.retrain(search["structure"], push_to=str(tmp_path / "elsewhere"))
    linked, outside, used, plain = (run["model"] for run in old)
    target = tmp_path / "other disk"
    shutil.move(linked.uri, target)
    Path(linked.uri).symlink_to(target)
    versions = tmp_path / "versions"
    shutil.move(version_of(old[3]), versions)
    version_of(old[3]).symlink_to(versions)
    shutil.move(outside.uri, tmp_path / "outside")
    outside.uri = str(tmp_path / "outside")
    history.handle.store.put_artifacts([outside.mlmd_artifact])
    history.record.step("somebody-elses", "Evaluator", {"model": used})
    for _ in range(2):
        history.retrain(search["structure"], pushes=False)
    for _ in range(3):
        history.retrain(search["structure"])
    history.remove()
    assert Path(linked.uri).is_symlink() and (target / "inside" / "file").exists()
    assert (tmp_path / "outside" / "inside" / "file").exists()
    assert is_whole(history, used) and not is_whole(history, plain)
    for artifact in (linked, outside, used):
        assert history.state(artifact) == STATES.LIVE
    assert version_of(old[3]).is_symlink() and (versions / "saved_model.pb").exists()
    assert version_of(elsewhere).is_dir(), "the last push of that place"
    assert all(directory.is_dir() for directory in others)


def test_a_removal_that_was_stopped_is_ended_by_the_next_run(history, monkeypatch):
    search = history.search()
    nights = [history.retrain(search["structure"]) for _ in range(3)]
    kept, remove = nights[0], shutil.rmtree

    def fails_at_the_model(path, *arguments, **options):
        if Path(path) == Path(kept["model"].uri):
            raise OSError(30, "Read-only file system", str(path))
        remove(path, *arguments, **options)

    monkeypatch.setattr(shutil, "rmtree", fails_at_the_model)
    first, second = history.remove()
    assert first == (
        f"Note: {kept['model'].uri} could not be removed (Read-only file system); the next run tries again."
    )
    assert second.startswith("Removed, with keep: 2: 2 artifacts of older runs")
    assert history.state(kept["model"]) == STATES.MARKED_FOR_DELETION, "so nobody takes it for live"
    monkeypatch.undo()
    assert history.remove() == ["Removed, with keep: 2: 1 artifacts of older runs."]
    assert history.state(kept["model"]) == STATES.DELETED and not Path(kept["model"].uri).exists()


def test_without_keep_and_without_metadata_nothing_happens(config, tmp_path):
    with histories(config, tmp_path, None) as history:
        search = history.search()
        nights = [history.retrain(search["structure"]) for _ in range(4)]
        assert history.remove() == []
        assert all(is_whole(history, artifact) for run in nights for artifact in run.values())
    fresh = config.model_copy(update={"keep": 1, "metadata": str(tmp_path / "none.sqlite")})
    remove_old(fresh, pytest.fail)
    assert not Path(fresh.metadata).exists()


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(runs=st.lists(st.sampled_from(["search", "push", "hold back"]), min_size=1, max_size=9), keep=st.integers(1, 3))
def test_after_any_history_what_is_pushed_last_can_be_retrained_and_no_more_stays_than_is_asked(
    runs, keep, config, tmp_path_factory
):
    place = tmp_path_factory.mktemp("history")
    update = {name: str(place / name) for name in ("pipeline_root", "push_to", "metadata")}
    with histories(config.model_copy(update=update), place, keep) as history:
        last, found = history.search(), []
        for kind in runs:
            run = history.search() if kind == "search" else history.retrain(last["structure"], pushes=kind == "push")
            last = run if kind == "search" else last
            found.append(run)
            history.remove()  # as after each run
        assert is_whole(history, last["structure"])
        pushed = [run for run in found if run["pushed_model"].get_int_custom_property("pushed")]
        assert all(is_whole(history, run["model"]) and version_of(run).is_dir() for run in pushed[-keep:])
        assert all(is_whole(history, artifact) for run in found[-keep:] for artifact in run.values())
        # The last runs of two pipelines, and those that pushed last.
        for place in (Path(history.config.push_to), Path(history.config.pipeline_root) / "Retrainer" / "model"):
            assert len(list(place.iterdir())) <= 3 * keep


@pytest.mark.parametrize("value", ["0", "-3", "true", "0.5", "all"])
def test_what_is_no_number_of_runs_is_refused(value):
    with pytest.raises(MorphError, match="keep"):
        config_of(f"keep: {value}")
    assert config_of("keep: 3").keep == 3 and config_of().keep is None


@pytest.mark.parametrize("others", [False, True])
def test_a_run_removes_only_where_it_is_alone_and_says_so(config, monkeypatch, others):
    """Or it would take away what the other one is reading."""
    said: list[str] = []
    removed: list[str] = []
    config = config.model_copy(update={"keep": 3})
    root = Path(config.pipeline_root)
    root.mkdir()
    monkeypatch.setattr(runner, "remove_old", lambda config, say: removed.append(config.pipeline_root))
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(in_use(str(root)))
        if others:
            stack.enter_context(in_use(str(root)))
        runner._keep(config, place, said.append)
    assert removed == ([] if others else [str(root)])
    assert said == ([f"Nothing old is removed: another run is using {root}. The next run does it."] if others else [])
