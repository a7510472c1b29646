"""The one exception for what a user can cause, so that a command line can show its message without a traceback."""


class MorphError(ValueError):
    """Something in the user's model, data, file or arguments is wrong; the message says what, and how to fix it."""
