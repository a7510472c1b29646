"""Components of a user's own, for a job that trains nothing. The image holds this file on its import path."""

from pathlib import Path

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, OutputDict, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Examples, Model, ModelBlessing


@component
def train(model: OutputArtifact[Model], score: Parameter[float]) -> OutputDict(words=str):  # pyright: ignore
    """Writes a model with a score, and says something about it."""
    Path(model.uri, "weights").write_text("weights")
    model.set_float_custom_property("score", score)
    return {"words": f"a score of {score}"}


@component
def judge(model: InputArtifact[Model], baseline: InputArtifact[Model], blessing: OutputArtifact[ModelBlessing]):  # pyright: ignore
    """Blesses a model whose score is above one half, if the baseline has weights."""
    assert Path(baseline.uri, "weights").read_text() == "old weights"
    Path(blessing.uri, "verdict").write_text("verdict")
    blessing.set_int_custom_property("blessed", int(model.get_float_custom_property("score") > 0.5))


@component
def announce(model: InputArtifact[Model], words: Parameter[str], copy: OutputArtifact[Examples]):  # pyright: ignore
    """Repeats what the training said, beside the model's weights."""
    Path(copy.uri, "announcement").write_text(f"{words}: {Path(model.uri, 'weights').read_text()}")
