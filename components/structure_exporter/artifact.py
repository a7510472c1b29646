"""The artifact type that carries a learned structure to the next cycle, to Retrainer and to people."""

from tfx.types.artifact import Artifact

from ..artifacts.type_names import importable_by_its_name


@importable_by_its_name
class MorphStructure(Artifact):
    """A learned structure: how wide each layer of one seed network should be. It needs no weights.

    Directory layout, below the artifact's URI:

    ```
    structure.json    the structure (morph_core.Structure): alive channels, widths, removed layers, costs, trajectory
    report.html       the same for people, in one self-contained page
    widths.svg        the report's pictures, for slides and other pages
    trajectory.svg    (absent when the structure has no trajectory)
    weights.npz       (with keep_weights only) the narrowed network's weights at the end of the run: the arrays of
                      model.get_weights(), named 0, 1, ..., and "paths", the names of the weights
    ```

    `structure.json` and the code that builds the seed make the network:
    `morph_core.rebuild(build_model(hparams), Structure.load(path))`.

    Custom properties, so that a pipeline's metadata can be searched without opening the files:

    - `fingerprint` (string): of the seed network that the structure belongs to;
    - `cost` (string): the cost that the search steered, such as `flops`;
    - `target`, `budget` or `strength` (float): what was asked of it; `expand_to` (float) when it was widened
      afterwards;
    - `gate` (string);
    - `NAME_seed`, `NAME_structure` and `NAME_fraction` (float) for every cost, such as `flops_seed`. A multiply-add
      counts as 2 FLOPs;
    - `layers_removed` (int);
    - `schema_version` (int), `keras_version`, `morph_version` (string);
    - of PushedStructure, where it was told of the data: `has_news` (int, 1 or 0), `news` and `trained_on` (string).
    """

    # These are custom properties and not PROPERTIES: the Kubeflow compiler checks PROPERTIES against a schema file
    # inside TFX, which knows TFX's own types alone. It also wants a type name of the form `package.Class`, with one
    # dot.
    TYPE_NAME = "morph_tfx.MorphStructure"
