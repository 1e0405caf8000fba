"""SmolLM2-135M trained on windows of real documents with AnchorAttention and bf16-safe RoPE.

Prints and records the loss of each step, that of the first step's batch once more at the end, the
perplexity of held-out documents, each alone, before and after, and the largest difference between the
trained model's logits and those of its exported folder in stock transformers. Needs the model as a folder;
half an hour on two CPU cores.
"""

import argparse
import csv
import math
import tempfile
from pathlib import Path

import torch
from composer import Callback, Trainer
from harness import RESULTS, machine
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from cadenza.algorithms import AnchorAttention, BF16SafeRoPE, FlashAttention, check_rope
from cadenza.data import TextConfig, build_causal_dataspec, documents
from cadenza.models import causal_lm, export
from cadenza.surgery import in_order


class Losses(Callback):
    """The loss of each step, and the first step's batch: its loss after the run compares like with like."""

    def __init__(self, steps: int) -> None:
        self.seen, self.first, self.bar = [], {}, tqdm(total=steps, unit="step")

    def batch_start(self, state, logger) -> None:
        self.first = self.first or dict(state.batch)

    def batch_end(self, state, logger) -> None:
        self.seen.append(state.total_loss_dict["loss/train/total"])
        self.bar.set_postfix(loss=f"{self.seen[-1]:.3f}")
        self.bar.update()
        print(f" loss {self.seen[-1]:.4f}", flush=True)


@torch.no_grad()
def loss_of(model, tokenizer, texts: list[str], length: int) -> float:
    """Nats a token over documents, each alone, the first `length` tokens of each."""
    model.eval()
    total = count = 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=length)["input_ids"]
        total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    return total / count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of SmolLM2-135M")
    parser.add_argument("--text", default="python_docs", help="or a glob of .jsonl or .txt files")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--window", type=int, default=8192)
    parser.add_argument("--lr", type=float, default=5e-5)
    parser.add_argument("--checkpointed", type=int, default=30, help="layers computed again in backward")
    parser.add_argument("--eval-tokens", type=int, default=1024)
    chosen = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    cfg = TextConfig(source=chosen.text, max_seq_len=chosen.window, eval_documents=12)
    held_out: list[str] = list(documents(cfg, train=False))
    model = causal_lm(pretrained=chosen.model, tokenizer=tokenizer)
    before = loss_of(model.model, tokenizer, held_out, chosen.eval_tokens)
    print(f"before: {before:.4f} nats, perplexity {math.exp(before):.2f}", flush=True)
    model.model.gradient_checkpointing_enable()
    for layer in model.model.model.layers[chosen.checkpointed :]:
        layer.gradient_checkpointing = False
    losses = Losses(chosen.steps)
    trainer = Trainer(
        model=model,
        train_dataloader=build_causal_dataspec(cfg, tokenizer, train=True, batch_size=1, seed=17),
        optimizers=torch.optim.AdamW(model.parameters(), lr=chosen.lr, betas=(0.9, 0.95), weight_decay=0.1),
        algorithms=in_order([AnchorAttention(), BF16SafeRoPE(), FlashAttention("sdpa")]),
        max_duration=f"{chosen.steps}ba",
        callbacks=[losses],
        progress_bar=False,
        device="cpu",
        seed=17,
    )
    check_rope(trainer.state.model)
    trainer.fit()
    with torch.no_grad():
        again = float(model.loss(model(dict(losses.first)), losses.first))
    print(f"the first step's windows: {losses.seen[0]:.4f} then, {again:.4f} now", flush=True)
    after = loss_of(model.model, tokenizer, held_out, chosen.eval_tokens)
    print(f"after: {after:.4f} nats, perplexity {math.exp(after):.2f}", flush=True)
    difference = exported_difference(trainer, model.model, tokenizer, held_out[0])
    print(
        f"exported folder in stock transformers: logits differ by at most {difference[0]:.1e} "
        f"(by exact angles), and by {difference[1]:.1e} with bf16_safe_rope undone"
    )
    record(chosen, losses.seen, again, before, after, difference)


def exported_difference(trainer: Trainer, model, tokenizer, text: str) -> list[float]:
    """Of the model as it is, and with its stock rotation back."""
    with tempfile.TemporaryDirectory() as scratch:
        trainer.save_checkpoint(f"{scratch}/last.pt")
        folder = export(f"{scratch}/last.pt", f"{scratch}/folder")
        assert not list(Path(folder).glob("cadenza_remote.py")), "the folder isn't a stock one"
        stock = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=1024)["input_ids"]
    model.eval()
    differences = []
    with torch.no_grad():
        right = stock(input_ids=ids).logits
        differences.append(float((model(input_ids=ids).logits - right).abs().max()))
        next(a for a in trainer.state.algorithms if isinstance(a, BF16SafeRoPE)).report.undo()
        differences.append(float((model(input_ids=ids).logits - right).abs().max()))
    return differences


def record(
    chosen, losses: list[float], again: float, before: float, after: float, difference: list[float]
) -> None:
    path = RESULTS / "smollm2.csv"
    new = not path.exists()
    fields = {
        **machine(),
        "steps": chosen.steps,
        "window": chosen.window,
        "lr": chosen.lr,
        "held_out_before": f"{before:.4f}",
        "held_out_after": f"{after:.4f}",
        "export_logit_difference": f"{difference[0]:.1e}",
        "the_same_without_bf16_safe_rope": f"{difference[1]:.1e}",
        "first_loss_again": f"{again:.3f}",
        "losses": " ".join(f"{loss:.3f}" for loss in losses),
    }
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, list(fields))
        if new:
            writer.writeheader()
        writer.writerow(fields)


if __name__ == "__main__":
    main()
