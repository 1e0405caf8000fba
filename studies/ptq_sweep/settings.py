"""The settings of the study."""

from dataclasses import dataclass
from pathlib import Path

from cadenza.options import Choice, Range, Text, check, option, shown
from cadenza.quantization.stored.formats import FORMATS

PLAIN = "none"  # the unquantized model
COUNT = Range("[1, 2147483647]", whole=True)
SEEDS = Range("[0, 4294967295]", whole=True)


@dataclass
class Sweep:
    """The settings. Each text gives `windows` pieces of `window` tokens; some begin with a prompt."""

    models: list[str] = option([], "Folders or Hub names.", Text())
    formats: list[str] = option(
        [PLAIN, *FORMATS],
        f"`{PLAIN}`, with which the others are compared, and formats of `post_training_quantization`.",
        Choice(PLAIN, *FORMATS),
    )
    texts: list[str] = option(
        ["python_docs"],
        "Each `python_docs`, a file, a folder or a glob, as a recipe's `data.source`.",
        Text(),
    )
    windows: int = option(16, "Pieces of each text.", COUNT)
    window: int = option(512, "Tokens of a piece, BOS included.", Range("[2, 2147483647]", whole=True))
    prompts: int = option(16, "So many of the pieces begin with a prompt.", COUNT)
    prompt: int = option(32, "Tokens of a prompt, BOS included.", COUNT)
    temperatures: list[float] = option([0.2, 0.5, 0.8, 1.0], "Of sampling.", Range("(0, 1000]"))
    top_k: list[int] = option([50, 200], "The most likely tokens to sample from.", COUNT)
    max_new_tokens: list[int] = option(
        [50, 200], "Lengths of generated text; the short ones are beginnings of the longest.", COUNT
    )
    seeds: list[int] = option([0, 1, 2], "Of sampling; the same for all models.", SEEDS)
    rows: int = option(128, "Texts that are generated at a time.", COUNT)
    batch_sizes: list[int] = option([1, 16], "Of the speeds; an empty list leaves them out.", COUNT)
    rounds: int = option(
        9, "Measured in turns with the unquantized model; 6 are needed for intervals.", COUNT
    )
    decode_tokens: int = option(32, "Tokens that a round of speed generates in each row.", COUNT)
    dtype: str = option("bfloat16", "Of the weights.", Choice("float32", "bfloat16", "float16"))
    device_map: str | None = option(
        None, "`auto` spreads a model over all devices, by accelerate; null: one device.", Choice("auto")
    )
    out: str = option("runs/studies/ptq_sweep", "The folder of the results.", Text())

    def __post_init__(self) -> None:
        check(self, "", ValueError)
        for key in ("models", "formats", "texts", "temperatures", "top_k", "max_new_tokens", "seeds"):
            if not getattr(self, key):
                raise ValueError(f"{key} is empty; it must name one at least")
        for key, value in vars(self).items():
            if isinstance(value, list) and len(set(value)) < len(value):
                raise ValueError(f"{key} is {shown(value)}; each must be there once")
        if PLAIN not in self.formats:
            raise ValueError(f"formats must name {PLAIN}, with which the others are compared")
        if self.prompt >= self.window:
            raise ValueError(f"prompt is {self.prompt}; it must be shorter than window, {self.window}")
        if self.prompts > self.windows:
            raise ValueError(f"prompts is {self.prompts}; it must be at most windows, {self.windows}")

    def labels(self) -> dict[str, str]:
        """Name of a model -> how tables call it: the last part of the name, where that is unique."""
        ends = [Path(name).name for name in self.models]
        return {
            name: name if ends.count(end) > 1 else end for name, end in zip(self.models, ends, strict=True)
        }
