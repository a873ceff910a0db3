"""The exceptions Mirada raises for mistakes a person can fix."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["MiradaError", "Misuse", "blame_the_command"]


class MiradaError(ValueError):
    """One sentence: what is wrong, where, and what to do. The command line prints it and exits with code 1."""


class Misuse(MiradaError):  # noqa: N818  # it is the command that is at fault
    """What was asked for could not work with any data: the command line exits with code 2."""


@contextmanager
def blame_the_command() -> Iterator[None]:
    """A `MiradaError` inside becomes a `Misuse`."""
    try:
        yield
    except MiradaError as error:
        raise Misuse(str(error)) from error
