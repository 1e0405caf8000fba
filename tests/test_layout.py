"""The package: what is installed, what an import costs, what the docs say."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from itertools import takewhile

import pytest
from paths import ROOT

from cadenza.algorithms.__main__ import table

PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
RECIPES = sorted({str(path.parent.relative_to(ROOT)) for path in ROOT.glob("yamls/**/*.yaml")})
WITHOUT_CODE = ["docs", *RECIPES]  # the table of keys, and the recipes, which `cadenza` reads
FOLDERS = sorted({str(path.parent.relative_to(ROOT)) for path in SOURCES})


def test_every_folder_is_installed():
    """Nested ones by a line of their own, else they would be missing from the wheel."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    folders = sorted([*FOLDERS, *WITHOUT_CODE])
    names = [f"cadenza.{folder.replace('/', '.')}" for folder in folders]
    assert tools["setuptools"]["packages"] == ["cadenza", *names], "cadenza holds __main__ alone"
    assert tools["setuptools"]["package-dir"] == dict(zip(names, folders, strict=True))
    assert tools["setuptools"]["package-data"] == {"*": ["py.typed", "*.yaml", "recipe_keys.md"]}
    for folder in FOLDERS:
        assert (ROOT / folder / "__init__.py").is_file()
        assert (ROOT / folder / "py.typed").is_file()
    assert tools["coverage"]["run"]["source"] == [*PACKAGES, "train"]
    assert tools["pyright"]["include"] == [*PACKAGES, "train.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_are_absolute_and_docstrings_there(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "what is this file?"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert (node.module or "").split(".")[0] not in PACKAGES
        if isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] not in PACKAGES for alias in node.names)
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        assert not public or ast.get_docstring(node), f"{node.name} is public and undocumented"


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_are_exported(folder):
    package = importlib.import_module(f"cadenza.{folder.replace('/', '.')}")
    assert all(hasattr(package, name) for name in getattr(package, "__all__", ()))


@pytest.mark.slow
def test_import_is_lean():
    """No CUDA, no optional package, no data-set library, no modeling file of a family."""
    code = (
        "import sys, torch, composer.algorithms, composer.models; before = set(sys.modules)\n"
        "import cadenza.algorithms, cadenza.data, cadenza.models, cadenza.surgery\n"
        "new = set(sys.modules) - before\n"
        "optional = ('datasets', 'flash_attn', 'bitsandbytes', 'streaming')\n"
        "heavy = [m for m in new if m.split('.')[0] in optional]\n"
        "heavy += [m for m in new if '.modeling_' in m and m.startswith('transformers.models.') "
        "and '.auto.' not in m]\n"
        "assert not heavy, heavy\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_readme_code_runs():
    """The first Python block as it stands; the second up to its ellipsis."""
    text = (ROOT / "README.md").read_text()
    first, second = re.findall(r"```python\n(.*?)```", text, re.S)[:2]
    code = first.replace(
        "BertConfig()", "BertConfig(hidden_size=24, num_hidden_layers=1, intermediate_size=32)"
    )
    assert code != first
    exec(compile(code, "README.md", "exec"), {})
    compile(second, "README.md", "exec")


def test_readme_commands_name_what_exists():
    text = (ROOT / "README.md").read_text()
    for path in re.findall(r"(?:yamls|docs|tests)/[\w/]+\.(?:yaml|md|py)", text):
        assert (ROOT / path).is_file(), path
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"make ([a-z-]+) ", text):
        assert f"\n{target}:" in makefile or target in ("and",), target


def test_the_table_of_techniques_in_the_readme_is_the_one_of_their_docstrings():
    rows = (ROOT / "README.md").read_text().splitlines()
    first = rows.index(table().splitlines()[0])
    shown = takewhile(lambda row: row.startswith("|"), rows[first:])
    assert "\n".join(shown) == table(), "python -m cadenza.algorithms prints it"
