"""The recipes that come with the package."""

import itertools
import re
from pathlib import Path

from cadenza.cli.errors import CommandError, nearest

FOLDER = Path(__file__).parent.parent / "yamls"  # in a checkout as in site-packages/cadenza
SUFFIXES = (".yaml", ".yml")
SENTENCE_END = re.compile(r"\. (?=[A-Z])| +composer train")
STUDIES = (
    "ablation",
    "ablation_modern",
    "glue",
    "long_context_study",
    "ptq_sweep",
    "qat_fidelity",
    "qat_pareto",
    "qat_text",
)  # settings of studies, which have commands of their own


def names() -> list[str]:
    """The packaged recipes, then the overlays, such as `scale/cpu`."""
    found = [path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")]
    return sorted(set(found) - set(STUDIES), key=lambda name: ("/" in name, name))


def path_of(name: str) -> Path:
    """The file of a packaged recipe.

    Raises:
        CommandError: there is none of this name.
    """
    if name not in names():
        raise CommandError(f"no packaged recipe is called {name!r}; {nearest(name, names())}")
    return FOLDER / f"{name}.yaml"


def meaning(name: str) -> str:
    """The first sentence of a packaged recipe, which says what it is."""
    lines = path_of(name).read_text(encoding="utf-8").splitlines()
    comment = itertools.takewhile(lambda line: line.startswith("#"), lines)
    text = " ".join(line.lstrip("# ").strip() for line in comment)
    return SENTENCE_END.split(text, maxsplit=1)[0].rstrip(".:")


def file_of(text: str) -> str:
    """The file that an argument names: a path that ends in .yaml, or a packaged recipe.

    Raises:
        CommandError: it is neither.
    """
    path = Path(text).expanduser()
    if not text.endswith(SUFFIXES):
        if text in names():
            return str(path_of(text))
        right = "a .yaml file, key=value or a packaged recipe"
        raise CommandError(f"command line: {text!r} is neither {right}; {nearest(text, names())}")
    short = path.with_suffix("").as_posix().removeprefix("yamls/")
    if not path.exists() and short in names():
        raise CommandError(f"{text}: there is no such file here; the packaged recipe is called {short!r}")
    return str(path)


def files_and_pairs(words: list[str]) -> tuple[list[str], list[str]]:
    """The recipe files among the words of a command, packaged ones as paths, and its key=value pairs."""
    return [file_of(word) for word in words if "=" not in word], [word for word in words if "=" in word]
