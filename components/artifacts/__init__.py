"""What the components share of reading and writing artifacts. Nothing here knows any component.

In: an artifact, or a directory that a model was exported or pushed to. Out: directories that are whole or absent
(`staging`), custom properties (`properties`; those about a structure: `structure_properties`), what a pushed model
carries (`model_assets`), a network's weights (`weights`), what Evaluator measured (`evaluation`), what was measured of
a device (`calibration`), and artifact types that containers find (`type_names`).
"""
