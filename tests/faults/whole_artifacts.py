"""Opens artifacts as those would who use them: what is listed as finished must be whole.

A row of `OPENERS` per type of artifact; a type that has none is an error, so that nothing passes unseen.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow as tf
import tensorflow_data_validation as tfdv
import tensorflow_model_analysis as tfma
import tensorflow_transform as tft
from ml_metadata.proto import metadata_store_pb2
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.orchestration import metadata

import morph_core as morph
from morph_tfx.components.artifacts.saved_model import fault_of


def faults_of_live(store: Path) -> list[str]:
    """What is wrong with the artifacts that a file of ML Metadata calls live, one line each."""
    if not store.exists():
        return []
    with metadata.Metadata(metadata.sqlite_metadata_connection_config(str(store))) as handle:
        kinds = {kind.id: kind.name for kind in handle.store.get_artifact_types()}
        known = [
            artifact for artifact in handle.store.get_artifacts() if artifact.state == metadata_store_pb2.Artifact.LIVE
        ]
    return list(faults_of([(kinds[artifact.type_id], artifact.uri) for artifact in known]))


def faults_of(artifacts: list[tuple[str, str]]) -> Iterator[str]:
    """What is wrong with artifacts, given as the names of their types and the directories where they lie."""
    for kind, directory in artifacts:
        try:
            OPENERS[kind.rpartition(".")[2]](Path(directory))
        except Exception as error:  # noqa: BLE001 -- each reader has errors of its own, and all mean the same here
            yield f"{kind} {directory}: {type(error).__name__}: {error}"


def faults_of_pushed(push_to: Path) -> list[str]:
    """What is wrong with the versions that a server would find below a directory, one line each."""
    versions = [path for path in push_to.iterdir() if path.name.isdecimal()] if push_to.exists() else []
    return [f"{path}: {fault}" for path in versions if (fault := fault_of(str(path))) is not None]


def records(directory: Path) -> int:
    """How many records the files below a directory have, each read to its end."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    compressed, plain = [[str(path) for path in files if (path.suffix == ".gz") is gz] for gz in (True, False)]
    return sum(1 for _ in tf.data.TFRecordDataset(compressed, "GZIP")) + sum(1 for _ in tf.data.TFRecordDataset(plain))


def _examples(directory: Path) -> None:
    for split in ("train", "eval"):
        assert records(directory / f"Split-{split}") > 0, f"no examples in the split {split}"


def _statistics(directory: Path) -> None:
    for path in _some(directory, "FeatureStats.pb"):
        assert tfdv.load_stats_binary(str(path)).datasets[0].features


def _anomalies(directory: Path) -> None:
    for path in _some(directory, "SchemaDiff.pb"):
        assert anomalies_pb2.Anomalies.FromString(path.read_bytes()).HasField("baseline")


def _schema(directory: Path) -> None:
    assert tfdv.load_schema_text(str(directory / "schema.pbtxt")).feature


def _transform_graph(directory: Path) -> None:
    assert tft.TFTransformOutput(str(directory)).transform_features_layer() is not None


def _structure(directory: Path) -> None:
    assert morph.Structure.load(directory / "structure.json").groups
    assert (directory / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>")


def _saved_model(directory: Path) -> None:
    fault = fault_of(str(directory))
    assert fault is None, fault


def _model(directory: Path) -> None:
    _saved_model(directory / "Format-Serving")


def _evaluation(directory: Path) -> None:
    assert tfma.load_eval_result(str(directory)).slicing_metrics


def _blessing(directory: Path) -> None:
    assert [path.name for path in directory.iterdir()] in (["BLESSED"], ["NOT_BLESSED"])


def _some(directory: Path, name: str) -> list[Path]:
    found = list(directory.rglob(name))
    assert found, f"there is no {name}"
    return found


OPENERS: dict[str, Callable[[Path], object]] = {
    "ExampleAnomalies": _anomalies,
    "ExampleStatistics": _statistics,
    "Examples": _examples,
    "Model": _model,
    "ModelBlessing": _blessing,
    "ModelEvaluation": _evaluation,
    "ModelRun": records,
    "MorphStructure": _structure,
    "PushedModel": _saved_model,
    "Schema": _schema,
    "TransformCache": records,
    "TransformGraph": _transform_graph,
}
