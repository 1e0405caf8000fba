"""The settings of the study."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cadenza.options import Choice, Range, Text, check, option, shown
from cadenza.studies.ruler.tasks.table import RULER, TASKS

COUNT = Range("[1, 2147483647]", whole=True)
SEEDS = Range("[0, 4294967295]", whole=True)


@dataclass
class Ruler:
    """The settings."""

    models: list[str] | dict = option(
        {},
        "Folders, Hub names, folders of runs, or checkpoints; or name -> one of these, or a list of "
        "checkpoints that are averaged.",
    )
    lengths: list[int] = option([1024, 2048, 4096], "Tokens of the prompt with its answer.", COUNT)
    tasks: list[str] = option(list(RULER), "RULER's 13 tasks, or some of them; or key_value.", Choice(*TASKS))
    seeds: list[int] = option([0], "Each seed has examples of its own.", SEEDS)
    examples: int = option(20, "Of each task, length and seed.", COUNT)
    prose: str | list[str] = option(
        "python_docs",
        "Text of the haystacks and of words: `python_docs`, a file, a folder or a glob.",
        Text(),
    )
    qa_1: str | None = option(None, "A file of questions, such as SQuAD's; null leaves the task out.", Text())
    qa_2: str | None = option(
        None,
        "A file of questions of several paragraphs, such as HotpotQA's; null leaves the task out.",
        Text(),
    )
    batch_size: int | None = option(
        None, "Prompts at a time; null: on CUDA as many as fit, on a CPU up to 16,384 tokens.", COUNT
    )
    dtype: str = option("float32", "Of the weights.", Choice("float32", "bfloat16", "float16"))
    out: str = option("runs/studies/ruler", "The folder of the results.", Text())

    def __post_init__(self) -> None:
        check(self, "", ValueError)
        for key in ("models", "lengths", "tasks", "seeds"):
            self._check_list(key)
        for name, paths in self.groups().items():
            _check_paths(f"models.{name}", paths)

    def groups(self) -> dict[str, list[Any]]:
        """Name of a model -> its checkpoints. Models in a list are called by the last part of their names."""
        if isinstance(self.models, dict):
            return {
                str(name): paths if isinstance(paths, list) else [paths]
                for name, paths in self.models.items()
                if paths is not None
            }
        ends = [Path(path).name for path in self.models]
        return {
            path if ends.count(end) > 1 else end: [path] for path, end in zip(self.models, ends, strict=True)
        }

    def _check_list(self, key: str) -> None:
        values = getattr(self, key) if isinstance(getattr(self, key), list) else list(self.groups())
        if not values:
            raise ValueError(f"{key} is empty; it must name one at least")
        if len(set(values)) < len(values):
            raise ValueError(f"{key} is {shown(values)}; each must be there once")


def _check_paths(where: str, paths: list[Any]) -> None:
    if not paths:
        raise ValueError(f"{where} is empty; it must name a checkpoint at least")
    for path in paths:
        if must := Text().wrong(path):
            raise ValueError(f"{where} is {shown(path)}; it must {must}")
    if len(set(paths)) < len(paths):
        raise ValueError(f"{where} is {shown(paths)}; each must be there once")
