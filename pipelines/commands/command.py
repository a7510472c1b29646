"""What every command of morph-tfx shares: its errors, its silence and its common options."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator
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
_RESUME = "Finished steps are kept: the same command goes on after them."


class _Refused(click.ClickException):
    """Something that a person can put right; shown as one message, without a traceback."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        click.echo(f"morph-tfx: {self.format_message()}", err=True, file=file)


class _Terminated(KeyboardInterrupt):
    """SIGTERM came: a service manager or a cluster ends the command, and what Ctrl-C would do is done."""


@contextlib.contextmanager
def _terminable() -> Iterator[None]:
    """Makes SIGTERM an exception, so that files say how the command ended and workers of Beam end with it.

    A second one kills at once. Only the main thread is told of signals: in any other nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise _Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Shows as a message what a person can put right, and takes Ctrl-C and SIGTERM calmly.

    That is a MorphError, what the system says of a place that an option or argument names, and a full disk. Other
    exceptions are bugs and keep their traceback.
    """

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            _check_texts(kwargs)
            with _terminable():
                function(*args, **kwargs)
        except MorphError as error:
            if kwargs.get("verbose"):
                traceback.print_exc()
            raise _Refused(str(error)) from error
        except OSError as error:
            named = _place_of(error, kwargs)
            if named is None and error.errno not in _NOT_TO_BE_WRITTEN:
                raise
            if kwargs.get("verbose"):
                traceback.print_exc()
            if named is None:
                what = error.filename or "What this command makes"
                raise _Refused(
                    f"{what} cannot be written: {error.strerror}. Make room there, or name another place."
                ) from error
            option, place = named
            raise _Refused(
                f"{option}: {place} cannot be used: {error.strerror or error} ({os.fspath(error.filename)}). Give "
                "another place, or see that it is there, has room and is yours to read and write."
            ) from error
        except _Terminated:
            click.echo(f"\nEnded by SIGTERM. {_RESUME}", err=True)
            raise click.exceptions.Exit(128 + signal.SIGTERM) from None
        except KeyboardInterrupt:
            click.echo(f"\nInterrupted. {_RESUME}", err=True)
            raise click.exceptions.Exit(128 + signal.SIGINT) from None

    return wrapper


def _names() -> dict[str, str]:
    """What each parameter of the running command is called on the command line."""
    context = click.get_current_context()
    return {
        one.name: one.make_metavar(context) if isinstance(one, click.Argument) else one.opts[0]
        for one in context.command.params
        if one.name is not None
    }


def _check_texts(given: dict[str, Any]) -> None:
    """Refuses bytes that are no text: they can be printed nowhere, and no server takes them."""
    for name, value in given.items():
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str | Path) and not _is_text(str(text)):
                raise MorphError(
                    f"{_names()[name]}: {os.fsencode(text)!r} holds bytes that are no text in UTF-8. Write it in "
                    "UTF-8; a file or directory has to be renamed."
                )


def _is_text(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _place_of(error: OSError, given: dict[str, Any]) -> tuple[str, str] | None:
    """The option or argument that names the place of an error of the system, and the place; None where none does.

    The error may name the place, what lies in it, or a directory above it that is to be made. What fails further below
    is not what was given.
    """
    if not isinstance(error.filename, str | os.PathLike):
        return None
    found = os.path.abspath(error.filename)
    for one in click.get_current_context().command.params:
        value = given.get(one.name or "")
        # An argument may be text, where it need be no file: MODEL.
        if (not isinstance(one.type, click.Path) and not isinstance(one, click.Argument)) or value is None:
            continue
        place = os.path.abspath(str(value))
        to_be_made = place.startswith(found + os.sep) and not os.path.exists(found)
        if place in (found, os.path.dirname(found)) or to_be_made:
            return _names()[one.name or ""], str(value)
    return None


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
