"""What the components that train share: their inputs and settings, the user's module, devices, progress, checkpoints.

In: a component's artifacts and execution properties. Out: a model trained by the user's module.
"""
