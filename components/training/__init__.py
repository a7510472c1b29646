"""What the components that train share: MorphTrainer and Retrainer differ in what they train, and in what they write.

In: a component's arguments (`spec`, `custom_config`); when it runs, its artifacts and the user's module file (`inputs`,
`user_module`). Out: a trained model (`loop`), on the devices that were asked for (`distribution`), with lines for those
who watch (`progress`) and a place from which a killed execution goes on (`checkpoints`).
"""
