"""SmolLM2-135M trained on windows of real documents with AnchorAttention and bf16-safe RoPE.

Prints and records the loss of each step, the loss of the first step's batch after training, the perplexity of
held-out documents before and after, and the largest difference between the logits of the trained model and
those of its exported folder in stock transformers. Needs the model's folder, and half an hour on two cores.
"""

import argparse
import math
import tempfile
from pathlib import Path

import torch
from composer import Callback, Trainer
from harness import append, parser
from tqdm.auto import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer

from cadenza.algorithms import AnchorAttention, BF16SafeRoPE, FlashAttention, check_rope
from cadenza.data import TextConfig, build_causal_dataspec, documents
from cadenza.models import causal_lm, export
from cadenza.surgery import in_order


class Losses(Callback):
    """Collects the loss of each step, and keeps the first batch, whose loss after training is comparable."""

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
def loss_of(model, tokenizer, texts: list[str], length: int, when: str) -> float:
    """Print and return the nats per token of the first `length` tokens of each document, each by itself."""
    model.eval()
    total = count = 0
    for text in texts:
        ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=length)["input_ids"]
        total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
        count += ids.shape[1] - 1
    loss = total / count
    print(f"{when}: {loss:.4f} nats, perplexity {math.exp(loss):.2f}", flush=True)
    return loss


def trainer_of(model, tokenizer, cfg: TextConfig, chosen: argparse.Namespace, losses: Losses) -> Trainer:
    """Composer's Trainer on a CPU; layers from `chosen.checkpointed` on keep their activations."""
    model.model.gradient_checkpointing_enable()
    for layer in model.model.model.layers[chosen.checkpointed :]:
        layer.gradient_checkpointing = False
    return Trainer(
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


def options() -> argparse.Namespace:
    """The command line."""
    found = parser(__doc__)
    found.add_argument("--model", required=True, help="folder of SmolLM2-135M")
    found.add_argument("--text", default="python_docs", help="or a glob of .jsonl or .txt files")
    found.add_argument("--steps", type=int, default=20)
    found.add_argument("--window", type=int, default=8192)
    found.add_argument("--lr", type=float, default=5e-5)
    found.add_argument("--checkpointed", type=int, default=30, help="layers computed again in backward")
    found.add_argument("--eval-tokens", type=int, default=1024)
    return found.parse_args()


def main() -> None:
    """Train, evaluate, export and record."""
    chosen = options()
    tokenizer = AutoTokenizer.from_pretrained(chosen.model)
    cfg = TextConfig(source=chosen.text, max_seq_len=chosen.window, eval_documents=12)
    held_out = list(documents(cfg, train=False))
    model, losses = causal_lm(pretrained=chosen.model, tokenizer=tokenizer), Losses(chosen.steps)
    before = loss_of(model.model, tokenizer, held_out, chosen.eval_tokens, "before")
    trainer = trainer_of(model, tokenizer, cfg, chosen, losses)
    check_rope(trainer.state.model)
    trainer.fit()
    with torch.no_grad():
        again = float(model.loss(model(dict(losses.first)), losses.first))
    print(f"the first step's windows: {losses.seen[0]:.4f} then, {again:.4f} now", flush=True)
    after = loss_of(model.model, tokenizer, held_out, chosen.eval_tokens, "after")
    exact, stock = exported_differences(trainer, model.model, tokenizer, held_out[0])
    print(
        f"exported folder in stock transformers: logits differ by at most {exact:.1e} "
        f"(by exact angles), and by {stock:.1e} with bf16_safe_rope undone"
    )
    row: dict[str, object] = {"steps": chosen.steps, "window": chosen.window, "lr": chosen.lr}
    row |= {"held_out_before": f"{before:.4f}", "held_out_after": f"{after:.4f}"}
    row |= {"export_logit_difference": f"{exact:.1e}", "the_same_without_bf16_safe_rope": f"{stock:.1e}"}
    row |= {"first_loss_again": f"{again:.3f}", "losses": " ".join(f"{loss:.3f}" for loss in losses.seen)}
    append([row], "smollm2")


def exported_differences(trainer: Trainer, model, tokenizer, text: str) -> list[float]:
    """The largest difference of logits to the exported folder, with bf16_safe_rope and with it undone."""
    with tempfile.TemporaryDirectory() as scratch:
        trainer.save_checkpoint(f"{scratch}/last.pt")
        folder = export(f"{scratch}/last.pt", f"{scratch}/folder")
        assert not list(Path(folder).glob("cadenza_remote.py")), "the folder isn't a stock one"
        stock = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer(text, return_tensors="pt", truncation=True, max_length=1024)["input_ids"]
    model.eval()
    differences = []
    with torch.no_grad():
        expected = stock(input_ids=ids).logits
        differences.append(float((model(input_ids=ids).logits - expected).abs().max()))
        next(a for a in trainer.state.algorithms if isinstance(a, BF16SafeRoPE)).report.undo()
        differences.append(float((model(input_ids=ids).logits - expected).abs().max()))
    return differences


if __name__ == "__main__":
    main()
