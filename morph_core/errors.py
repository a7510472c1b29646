"""The one exception for what a user can cause, so that a command line needs no traceback; and what others raise."""


class MorphError(ValueError):
    """Something in the user's model, data, file or arguments is wrong; the message says what, and how to fix it."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception of somebody else's says, or its name where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
