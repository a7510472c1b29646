"""Custom properties of artifacts, which a pipeline's metadata is searched by without opening any file."""

from tfx.types.artifact import Artifact


def set_custom_properties(artifact: Artifact, properties: dict[str, str | int | float]) -> None:
    """Sets each property with the type that its value has."""
    for name, value in properties.items():
        if isinstance(value, str):
            artifact.set_string_custom_property(name, value)
        elif isinstance(value, int):
            artifact.set_int_custom_property(name, value)
        else:
            artifact.set_float_custom_property(name, value)


def custom_properties(artifact: Artifact) -> dict[str, str | int | float]:
    """The custom properties of an artifact that are text or numbers, as `set_custom_properties` takes them."""
    found = {}
    for name, value in artifact.mlmd_artifact.custom_properties.items():
        kind = value.WhichOneof("value")
        if kind in ("int_value", "double_value", "string_value"):
            found[name] = getattr(value, kind)
    return found
