"""The artifact type that says how accurate networks of several costs are, and which one was chosen."""

from tfx.types.artifact import Artifact

from ..artifacts.type_names import importable_by_its_name


@importable_by_its_name
class MorphFrontier(Artifact):
    """Accuracy against cost of several networks, and the choice among them.

    Directory layout, below the artifact's URI:

    ```
    frontier.json     every network with its cost and accuracy, the frontier, the rule and what it chose
    report.html       the same for people, in one self-contained page
    frontier.svg      the report's picture
    ```

    Custom properties: `chosen` (string, the label of the chosen network; absent when none was), `cost` and `metric`
    (strings), and for the chosen network `fraction` (float, of the seed's cost) and `accuracy` (float).
    """

    TYPE_NAME = "morph_tfx.MorphFrontier"
