"""The command, and entry points by which llm-foundry's YAML finds the techniques; pyproject.toml has the
rest.

llm-foundry prefers an entry point to its own algorithm of the same name, so the names here have a prefix.
"""

import ast
from pathlib import Path

from setuptools import setup

COMMANDS = [
    "cadenza = cadenza.cli.main:entry"
]  # here, since a table in pyproject.toml would replace the others


def technique(file: Path) -> str:
    """The name of the one class that `file` exports."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assigns = (node for node in tree.body if isinstance(node, ast.Assign))
    (exported,) = (ast.literal_eval(a.value) for a in assigns if ast.unparse(a.targets[0]) == "__all__")
    (name,) = (n.name for n in tree.body if isinstance(n, ast.ClassDef) and n.name in exported)
    return name


files = sorted(Path(__file__).parent.glob("algorithms/**/[!_]*.py"), key=lambda file: file.stem)
points = [f"cadenza_{file.stem} = cadenza.algorithms:{technique(file)}" for file in files]
setup(entry_points={"console_scripts": COMMANDS, "llmfoundry_algorithms": points})
