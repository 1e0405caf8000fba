"""`cadenza recipes`: what is packaged, in a line each."""

import argparse

from cadenza.cli.packaged import meaning, names


def run(arguments: list[str]) -> int:
    """Print the packaged recipes."""
    parser = argparse.ArgumentParser(prog="cadenza recipes", description="List the packaged recipes.")
    parser.parse_args(arguments)
    recipes = [name for name in names() if "/" not in name]
    overlays = [name for name in names() if "/" in name]
    _print("recipes", recipes)
    _print("overlays, to name after a recipe", overlays)
    return 0


def _print(title: str, listed: list[str]) -> None:
    print(f"{title}:")
    for name in listed:
        print(f"  {name:<34} {meaning(name)}")
