"""Does a model find what stands far back? Key-value retrieval and six tasks in the manner of RULER.

RULER (Hsieh et al., arXiv 2404.06654) has six tasks that need no corpus: single and multi-key needles in
noise and among needles, variable tracking, common and frequent words. They are generated here, with made-up
words in place of its word lists, so scores aren't RULER's. A score is the share of the expected strings in
the answer.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from tqdm.auto import tqdm

from cadenza.studies import report
from cadenza.surgery.checkpoint import safe_weights

NOISE = "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again."


@dataclass(frozen=True)
class Example:
    """A prompt, the strings that its answer must hold, and how many tokens that takes."""

    prompt: str
    expected: tuple[str, ...]
    answer_tokens: int = 32


Make = Callable[[random.Random, int], Example]  # of a size: lines, needles or words


def word(draw: random.Random) -> str:
    """A pronounceable word that no text holds."""
    return "".join(draw.choice("bdfgklmnprstvz") + draw.choice("aeiou") for _ in range(4))


def number(draw: random.Random) -> str:
    """Seven digits."""
    return str(draw.randint(10**6, 10**7 - 1))


def key_value(draw: random.Random, size: int) -> Example:
    """One value out of `size` pairs."""
    table = {word(draw): number(draw) for _ in range(size)}
    key = draw.choice(list(table))
    lines = "\n".join(f"{k}: {v}" for k, v in table.items())
    return Example(
        f"Each line holds a key and its value.\n{lines}\nThe value of {key} is: {key}:", (table[key],)
    )


def _needle(key: str, value: str) -> str:
    return f"One of the special magic numbers for {key} is: {value}."


def _niah(lines: list[str], key: str, value: str) -> Example:
    text = "\n".join(lines)
    asked = f"What is the special magic number for {key} mentioned in the text?"
    start = "A special magic number is hidden in the following text. Memorize it.\n"
    return Example(
        f"{start}{text}\n{asked} The special magic number for {key} mentioned in the text is", (value,)
    )


def niah_single(draw: random.Random, size: int) -> Example:
    """niah_single_1: one needle in repeated noise."""
    key, value = word(draw), number(draw)
    lines = [NOISE] * size
    lines.insert(draw.randint(0, size), _needle(key, value))
    return _niah(lines, key, value)


def niah_multikey(draw: random.Random, size: int) -> Example:
    """niah_multikey_2: one needle among needles."""
    needles = [(word(draw), number(draw)) for _ in range(size)]
    return _niah([_needle(*needle) for needle in needles], *draw.choice(needles))


def niah_multikey_long(draw: random.Random, size: int) -> Example:
    """niah_multikey_3: keys and values are random identifiers."""

    def identifier() -> str:
        return "-".join("".join(draw.choice("0123456789abcdef") for _ in range(n)) for n in (8, 4, 4, 12))

    needles = [(identifier(), identifier()) for _ in range(size)]
    example = _niah([_needle(*needle) for needle in needles], *draw.choice(needles))
    return Example(example.prompt, example.expected, answer_tokens=48)


def variable_tracking(draw: random.Random, size: int) -> Example:
    """vt: a chain of four assignments in noise; all names that hold the value."""
    value, chain = str(draw.randint(10_000, 99_999)), []
    while len(chain) < 5:
        name = "".join(draw.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(5))
        chain += [name] if name not in chain else []
    steps = [
        f"VAR {chain[0]} = {value}",
        *(f"VAR {b} = VAR {a}" for a, b in pairwise(chain)),
    ]
    lines = [NOISE] * size
    for place, step in zip(
        sorted(draw.choices(range(size + 1), k=len(steps)), reverse=True), steps[::-1], strict=True
    ):
        lines.insert(place, step)
    text = "\n".join(lines)
    asked = f"Find all variables that are assigned the value {value} in the text above."
    return Example(
        f"Memorize and track the chain of variable assignments in the text.\n{text}\n{asked} "
        f"Answer: they are 5 variables:",
        tuple(chain),
    )


def common_words(draw: random.Random, size: int) -> Example:
    """cwe: ten words come 30 times, the others 3 times."""
    common = [word(draw) for _ in range(10)]
    words = common * 30 + [word(draw) for _ in range(size)] * 3
    return _words(draw, words, common, "What are the 10 most common words in the above list?")


def frequent_words(draw: random.Random, size: int) -> Example:
    """fwe: frequencies fall as rank^-2; the three most frequent words."""
    vocabulary = list(dict.fromkeys(word(draw) for _ in range(200)))
    counts = [max(1, round(size * 0.6 / rank**2)) for rank in range(1, len(vocabulary) + 1)]
    words = [w for w, count in zip(vocabulary, counts, strict=True) for _ in range(count)]
    asked = "What are the three most frequently appeared words in the above list?"
    return _words(draw, words, vocabulary[:3], asked)


def _words(draw: random.Random, words: list[str], expected: list[str], asked: str) -> Example:
    draw.shuffle(words)
    text = " ".join(f"{n}. {w}" for n, w in enumerate(words, 1))
    return Example(f"Memorize the words in this list.\n{text}\n{asked} Answer:", tuple(expected), 64)


TASKS: dict[str, Make] = {
    "key_value": key_value,
    "niah_single_1": niah_single,
    "niah_multikey_2": niah_multikey,
    "niah_multikey_3": niah_multikey_long,
    "vt": variable_tracking,
    "cwe": common_words,
    "fwe": frequent_words,
}


def fitted(task: str, length: int, tokenizer: Any, seed: int) -> Example:
    """The largest example whose prompt and answer fit `length` tokens.

    Raises:
        ValueError: not even the smallest fits.
    """

    def make(size: int) -> Example:
        return TASKS[task](random.Random(f"{task} {seed}"), size)

    def fits(size: int) -> bool:
        example = make(size)
        return len(tokenizer(example.prompt)["input_ids"]) + example.answer_tokens + 1 <= length

    if not fits(1):
        raise ValueError(f"{task} doesn't fit {length} tokens")
    low, high = 1, 2
    while fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return make(low)


def score(answer: str, expected: tuple[str, ...]) -> float:
    """The share of `expected` that stands in the answer."""
    return sum(each.lower() in answer.lower() for each in expected) / len(expected)


@torch.no_grad()
def answer_of(model: Any, tokenizer: Any, example: Example) -> str:
    """What the model goes on with, behind its anchor: BOS, or EOS where there is none."""
    from cadenza.data.documents import anchor_id

    ids = tokenizer(example.prompt, add_special_tokens=False, return_tensors="pt")["input_ids"]
    ids = torch.cat([torch.tensor([[anchor_id(tokenizer)]]), ids], dim=1).to(model.device)
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=example.answer_tokens,
        do_sample=False,
        pad_token_id=tokenizer.eos_token_id,
    )
    return tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True)


def evaluate(
    model: Any, tokenizer: Any, tasks: list[str], lengths: list[int], count: int
) -> list[report.Row]:
    """The mean score of each task at each length; where a task's smallest example doesn't fit, none."""
    rows = []
    for task, length in tqdm([(t, n) for t in tasks for n in lengths], desc="tasks"):
        try:
            examples = [fitted(task, length, tokenizer, seed) for seed in range(count)]
        except ValueError as error:
            tqdm.write(f"left out: {error}")
            continue
        scores = [score(answer_of(model, tokenizer, e), e.expected) for e in examples]
        rows.append({"task": task, "length": length, "score": sum(scores) / count, "examples": count})
    return rows


def main() -> None:
    """The command line."""
    parser = report.parser("retrieval", __doc__)
    parser.add_argument("--model", required=True, help="folder of a causal model and its tokenizer")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--lengths", type=int, nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--examples", type=int, default=20)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    chosen = parser.parse_args()
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(
        chosen.model, dtype=getattr(torch, chosen.dtype), **safe_weights()
    )
    model, tokenizer = model.to(device).eval(), AutoTokenizer.from_pretrained(chosen.model)
    rows = evaluate(model, tokenizer, chosen.tasks, chosen.lengths, chosen.examples)
    if not rows:
        raise SystemExit("no task fits these lengths")
    report.write(chosen.out, "retrieval", rows, "length", "score", "task", log="x")


if __name__ == "__main__":
    main()
