"""Does a model find what stands far back? Key-value retrieval and six tasks like those of RULER.

RULER (Hsieh et al., arXiv 2404.06654) has six tasks that need no corpus: single and multi-key needles in
noise and among needles, variable tracking, common and frequent words. They are generated here, with made-up
words in place of RULER's word lists, so the scores can't be compared with RULER's. A score is the fraction of
the expected strings that the answer holds.
"""

import sys
from typing import Any

import torch
from tqdm.auto import tqdm

from cadenza.data.text.datasets.windows import anchor_id
from cadenza.studies import report
from cadenza.studies.checks import StudyError, causal, count, guarded, plots
from cadenza.studies.retrieval_tasks import TASKS, Example, fitted
from cadenza.surgery.checkpoint import safe_weights


def score(answer: str, expected: tuple[str, ...]) -> float:
    """The fraction of `expected` that the answer holds; case doesn't matter."""
    return sum(each.lower() in answer.lower() for each in expected) / len(expected)


@torch.no_grad()
def answer_of(model: Any, tokenizer: Any, example: Example) -> str:
    """The model's greedy answer; the prompt follows the anchor token, BOS or else EOS."""
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
    """The mean score of each task at each length, without lengths that a task's smallest example exceeds."""
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


def main() -> int:
    """Run the command line and return the exit code."""
    parser = report.parser("retrieval", __doc__)
    parser.add_argument("--model", required=True, help="folder of a causal model and its tokenizer")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--lengths", type=count(), nargs="+", default=[512, 1024, 2048])
    parser.add_argument("--examples", type=count(), default=20)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    chosen = parser.parse_args()
    return guarded(lambda: study(chosen))


def study(chosen: Any) -> None:
    """Evaluate the chosen model and write the report."""
    plots()
    tokenizer = causal(chosen.model, max(chosen.lengths))
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model: Any = AutoModelForCausalLM.from_pretrained(
        chosen.model, dtype=getattr(torch, chosen.dtype), **safe_weights()
    )
    rows = evaluate(model.to(device).eval(), tokenizer, chosen.tasks, chosen.lengths, chosen.examples)
    if not rows:
        raise StudyError("--lengths: no task fits them")
    report.write(chosen.out, "retrieval", rows, "length", "score", "task", log="x")


if __name__ == "__main__":
    sys.exit(main())
