"""Which folder may import which, read from the source: late imports count as well."""

import ast

import pytest
from paths import ROOT

# A folder may import itself and these; a folder within another is one of its own.
MAY = {
    "options": set(),
    "surgery": {"options"},
    "checks": {"algorithms", "probes"},
    "fused": {"surgery"},
    "losses": {"probes", "surgery"},
    "quantization": {"probes", "surgery"},
    "probes": set(),
    "attention": {"options", "probes", "surgery"},
    "algorithms": {"attention", "fused", "losses", "options", "quantization", "surgery"},
    "data": {"attention", "options"},  # two constants of attention: how document_ids are numbered
    # quantization: folders that other code reads hold the codes of its layers
    "models": {"algorithms", "attention", "data", "options", "quantization", "surgery"},
    "recipe": {"algorithms", "data", "losses", "models", "options", "quantization", "surgery"},
    "cli": {"attention", "data", "models", "quantization", "recipe"},  # of quantization: ONNX files
    "studies": {
        *("algorithms", "attention", "data", "models", "options", "quantization", "recipe", "surgery"),
    },
}
FILES = sorted(path.relative_to(ROOT) for folder in MAY for path in (ROOT / folder).rglob("*.py"))
MODULES = {
    ".".join(("cadenza", *path.with_suffix("").parts)).removesuffix(".__init__"): path for path in FILES
}


def imported(path):
    """The modules of this project that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            found = name if name in MODULES else name.rpartition(".")[0]
            if name.startswith("cadenza") and found != "cadenza":
                assert found in MODULES, f"{path} imports {name}, which isn't there"
                yield found


@pytest.mark.parametrize("folder", MAY)
def test_a_folder_imports_what_lies_beneath_it(folder):
    for path in FILES:
        if path.parts[0] != folder:
            continue
        for name in imported(path):
            other = MODULES[name].parts[0]
            assert other == folder or other in MAY[folder], f"{path} imports {name}"


def test_the_engine_knows_no_technique():
    """Nor attention, losses or quantization, by name."""
    from cadenza.algorithms import REGISTRY

    names = {cls.__name__ for cls in REGISTRY.values()}
    for path in FILES:
        if path.parts[0] != "surgery":
            continue
        tree = ast.parse((ROOT / path).read_text())
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert not used & names, path


def test_images_and_text_know_nothing_of_each_other():
    for one, other in (("text", "images"), ("images", "text")):
        for path in (ROOT / "data" / one).glob("*.py"):
            assert not any(name.startswith(f"cadenza.data.{other}") for name in imported(path)), path


def test_no_imports_go_in_a_circle():
    """Each file after those that it imports; a package's `__init__`, which hands names on, stands apart."""
    edges = {name: set(imported(path)) for name, path in MODULES.items() if path.name != "__init__.py"}
    edges = {name: {other for other in others if other in edges} for name, others in edges.items()}
    while edges:
        free = [name for name, others in edges.items() if not others & edges.keys()]
        assert free, f"a circle among {sorted(edges)}"
        for name in free:
            del edges[name]


def test_no_folder_is_crowded():
    """`__init__` and `__main__` don't count."""
    held = {}
    others = (path for folder in ("tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
    for path in (*(ROOT / file for file in FILES), *others):
        if not path.name.startswith("__"):
            held.setdefault(path.parent, []).append(path)
    for folder, files in held.items():
        most = 12 if folder.name == "surgery" and folder.parent == ROOT else 15
        assert len(files) <= most, f"{folder.relative_to(ROOT)} holds {len(files)} files"


def test_no_folder_holds_a_fifth_of_the_lines():
    lines = {path: len((ROOT / path).read_text().splitlines()) for path in FILES}
    folders = {
        folder: sum(n for path, n in lines.items() if path.parent == folder)
        for folder in {path.parent for path in FILES}
    }
    assert max(folders.values()) < sum(lines.values()) / 5, folders
