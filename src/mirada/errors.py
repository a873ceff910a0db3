"""The one exception Mirada raises for mistakes a person can fix."""

__all__ = ["MiradaError"]


class MiradaError(ValueError):
    """One sentence: what is wrong, where, and what to do. The command line prints it and exits with code 1."""
