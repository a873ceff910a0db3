"""NAME=REF, as benchmarks take models."""

import re


def named(text: str) -> tuple[str, str]:
    """A model's name in a table and its REF, whose options may have equals signs; without a name, REF is it."""
    found = re.fullmatch(r"([^=(]+)=(.+)", text)
    return (found[1], found[2]) if found else (text, text)
