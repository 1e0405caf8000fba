"""`cadenza keys`: the table of recipe keys, from the file that a test compares with the dataclasses."""

import argparse
from pathlib import Path

from cadenza.cli.errors import CommandError, nearest

FILE = Path(__file__).parent.parent / "docs" / "recipe_keys.md"


def run(arguments: list[str]) -> int:
    """Print the keys, or those of a section."""
    parser = argparse.ArgumentParser(prog="cadenza keys", description="Print the keys of a recipe.")
    parser.add_argument("section", nargs="?", help="such as train, data or alibi; default: all")
    wanted = parser.parse_args(arguments).section
    print(FILE.read_text(encoding="utf-8").strip() if wanted is None else section(wanted))
    return 0


def section(name: str) -> str:
    """The part of the table whose heading is `name`.

    Raises:
        CommandError: there is no such section.
    """
    parts: dict[str, str] = {}
    for part in FILE.read_text(encoding="utf-8").split("\n## ")[1:]:
        heading, _, parts[heading] = part.partition("\n")
    found = {heading.strip("` ").removeprefix("algorithms."): heading for heading in parts}
    short = name.removeprefix("algorithms.")
    if short not in found:
        raise CommandError(f"keys: there is no section {name!r}; {nearest(short, found)}")
    return f"## {found[short]}\n{parts[found[short]].rstrip()}"
