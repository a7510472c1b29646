"""The artifact type that holds a network as the files that devices run."""

from tfx.types.artifact import Artifact

from ..artifacts.type_names import importable_by_its_name


@importable_by_its_name
class ExportedModel(Artifact):
    """One trained network in several formats, and what was measured of each.

    Directory layout, below the artifact's URI:

    ```
    export.json            what was tried and what came of it
    litert.tflite          a file for each format that was kept, named after it:
    litert-float16.tflite  (float32, weights in float16, weights in int8,
    litert-dynamic.tflite  all in int8 but input and output; ONNX)
    litert-int8.tflite
    onnx.onnx
    ```

    A file takes the network's own inputs: what Transform makes of the raw features, as arrays of numbers.

    `export.json` has `schema_version`, `model` (URI of the `Model`), `blessed` (false: nothing was tried), `batch_size`
    (that the LiteRT files are made for), `examples` (how many were compared), `machine` (where), and `forms`: for each
    format its `format`, `file` (null when it was not kept), `problem` (why not, else ""), `size` (bytes), `difference`
    and `tolerance` (shares of the largest output), `accuracy` and `model_accuracy` (null without class labels),
    `milliseconds` and `model_milliseconds` (for a batch, on that machine). Numbers that there are not are null.

    Custom properties: `blessed` (int, 0 or 1), `formats` (string: those that were kept, separated by spaces),
    `structure_fingerprint` and `model_uri` (strings), and of each kept format, with `_` for `-`, `FORMAT_bytes`,
    `FORMAT_difference`, `FORMAT_milliseconds` and, where it was measured, `FORMAT_accuracy` (float).
    """

    TYPE_NAME = "morph_tfx.ExportedModel"
