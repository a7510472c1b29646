"""What every command of morph-tfx shares: its errors, its silence and its common options."""

from __future__ import annotations

import errno
import functools
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

try:
    import click
except ModuleNotFoundError as error:
    raise SystemExit(
        "morph-tfx: the commands need the TFX stack. Install it with: pip install 'morph-tfx[tfx]'"
    ) from error

if TYPE_CHECKING:
    from ..local.result import RunResult

# Keras and its backend take longer to load than most mistakes take to be found. The names of the core that need them
# come when they are used; `morph_core` says more.
os.environ["MORPH_CORE_LATE"] = "1"
try:
    from morph_core import MorphError
finally:
    del os.environ["MORPH_CORE_LATE"]

HELD_BACK = 3
"""The exit code of a run that ended well, and whose model was not good enough to be pushed."""

_NOT_TO_BE_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_RESUME = "Interrupted. Finished steps are kept: the same command goes on after them."


class _Refused(click.ClickException):
    """Something that a person can put right; shown as one message, without a traceback."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"morph-tfx: {self.format_message()}", err=True, file=file)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Shows a MorphError or a full disk as a message, and takes Ctrl-C calmly.

    Other exceptions are bugs and keep their traceback.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            function(*args, **kwargs)
        except MorphError as error:
            if kwargs.get("verbose"):
                traceback.print_exc()
            raise _Refused(str(error)) from error
        except OSError as error:
            if error.errno not in _NOT_TO_BE_WRITTEN:
                raise
            what = error.filename or "What this command makes"
            raise _Refused(
                f"{what} cannot be written: {error.strerror}. Make room there, or name another place."
            ) from error
        except KeyboardInterrupt:
            click.echo(f"\n{_RESUME}", err=True)
            raise click.exceptions.Exit(130) from None

    return wrapper


def start(verbose: bool) -> None:
    """Silences the libraries before they are imported, which is when TensorFlow decides how much to log."""
    if not verbose:
        from ..account import quieten

        quieten()


def end_with(result: RunResult) -> None:
    """Ends a command with `HELD_BACK` where the run's model was not pushed, for whoever started it in a script."""
    if result.pushed_model is None:
        raise click.exceptions.Exit(HELD_BACK)


def options(*groups: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A decorator that gives a command all of these options, in this order; of a tuple, each of its options."""
    flat = [option for group in groups for option in (group if isinstance(group, tuple) else (group,))]

    def decorate(function: Callable[..., None]) -> Callable[..., None]:
        return functools.reduce(lambda decorated, option: option(decorated), reversed(flat), function)

    return decorate


config_option = click.option(
    "--config", "config_file", required=True, type=click.Path(path_type=Path), help="The configuration, a YAML file."
)
pipeline_option = click.option(
    "--pipeline",
    type=click.Choice(["morph", "retrain"]),
    default="morph",
    show_default=True,
    help="morph: search for a structure. retrain: train the latest pushed structure anew, on the newest data.",
)
verbose_option = click.option(
    "--verbose", is_flag=True, help="Show what TFX, Beam and TensorFlow log, and the traceback of what is wrong."
)
