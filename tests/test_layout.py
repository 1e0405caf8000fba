"""The package: what is installed, what an import costs, what the docs say."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("algorithms", "data", "models", "recipe", "studies", "surgery")
SOURCES = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))]


def test_every_folder_is_installed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["packages"] == [f"cadenza.{folder}" for folder in FOLDERS]
    for folder in FOLDERS:
        assert settings["package-dir"][f"cadenza.{folder}"] == folder
        assert (ROOT / folder / "py.typed").is_file()
        nested = [p for p in (ROOT / folder).iterdir() if p.is_dir() and p.name != "__pycache__"]
        assert nested == [], "a nested folder would be missing from the wheel"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_imports_are_absolute_and_docstrings_there(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "what is this file?"
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            assert (node.module or "").split(".")[0] not in FOLDERS
        if isinstance(node, ast.Import):
            assert all(alias.name.split(".")[0] not in FOLDERS for alias in node.names)
    for node in tree.body:
        public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        assert not public or ast.get_docstring(node), f"{node.name} is public and undocumented"


def test_names_are_exported():
    import cadenza.algorithms
    import cadenza.data
    import cadenza.models
    import cadenza.recipe
    import cadenza.studies
    import cadenza.surgery

    packages = (
        cadenza.algorithms,
        cadenza.data,
        cadenza.models,
        cadenza.recipe,
        cadenza.studies,
        cadenza.surgery,
    )
    for package in packages:
        assert all(hasattr(package, name) for name in package.__all__)


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
