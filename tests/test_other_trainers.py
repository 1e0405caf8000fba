"""The functional forms outside Composer: Hugging Face's Trainer, plain PyTorch, Accelerate, llm-foundry."""

from importlib.metadata import entry_points

import pytest
import torch
from cases import CASES, claimed, honoured
from composer.core import Algorithm
from families import batch, build
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoModelForMaskedLM, BertTokenizerFast, TrainerCallback

from cadenza.algorithms import REGISTRY
from cadenza.models import load, save

pytestmark = pytest.mark.slow

STEPS, ROWS, LENGTH = 5, 4, 64
KEEP_OUTPUTS = [name for name in claimed("bert") if CASES[name].algorithm().keeps_outputs]
EVERYTHING = claimed("bert")


def operated(names, optimizer_of=None):
    """BERT after techniques, without dropout, in training; and its optimizer, made before them."""
    sizes = {"max_position_embeddings": LENGTH}
    model = build("bert", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **sizes).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for name in names:
        CASES[name].apply(model, optimizers=optimizer)
    return model, optimizer


def rows():
    """What all trainers train on, row by row."""
    data = batch("bert", rows=STEPS * ROWS, length=LENGTH, padding=None)
    cut = 40 + torch.arange(STEPS * ROWS)[:, None] % 24
    padding = torch.arange(LENGTH) >= cut
    data["attention_mask"] = data["attention_mask"].masked_fill(padding, 0)
    data["labels"] = data["labels"].masked_fill(padding, -100)
    return [{name: tensor[row] for name, tensor in data.items()} for row in range(STEPS * ROWS)]


def plain(names):
    model, optimizer = operated(names)
    losses = []
    for inputs in DataLoader(rows(), batch_size=ROWS):
        optimizer.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model, losses


def accelerated(names):
    from accelerate import Accelerator  # here and below: seconds that only these tests pay

    accelerator = Accelerator(cpu=True)
    model, optimizer = operated(names)
    model, optimizer, loader = accelerator.prepare(model, optimizer, DataLoader(rows(), batch_size=ROWS))
    losses = []
    for inputs in loader:
        optimizer.zero_grad()
        loss = model(**inputs).loss
        accelerator.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    return accelerator.unwrap_model(model), losses


class Losses(TrainerCallback):
    def __init__(self):
        self.seen = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.seen.append(logs["loss"])


def hugging_face(names, folder, resume=None):
    from transformers import Trainer, TrainingArguments

    model, optimizer = operated(names)
    arguments = TrainingArguments(
        str(folder),
        max_steps=STEPS,
        per_device_train_batch_size=ROWS // 2,
        gradient_accumulation_steps=2,
        logging_steps=1,
        save_steps=2,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        train_sampling_strategy="sequential",
    )
    losses = Losses()
    trainer = Trainer(
        model, arguments, train_dataset=rows(), optimizers=(optimizer, None), callbacks=[losses]
    )
    trainer.train(resume_from_checkpoint=resume)
    trainer.save_model(str(folder / "final"))
    return model, losses.seen


def assert_saved(model, folder):
    """The folder gives the trained model back, by our loader and by transformers'."""
    inputs = {name: tensor[None] for name, tensor in rows()[0].items()}
    inputs.pop("labels")
    expected = model.eval()(**inputs).logits
    assert torch.equal(load(folder).eval()(**inputs).logits, expected)
    assert torch.equal(AutoModelForMaskedLM.from_pretrained(folder)(**inputs).logits, expected)


@pytest.mark.parametrize("names", [EVERYTHING, honoured(EVERYTHING[::-1])], ids=["in order", "reversed"])
def test_plain_pytorch(names, tmp_path):
    model, losses = plain(names)
    assert losses[-1] < losses[0]
    model.save_pretrained(tmp_path)
    assert_saved(model, tmp_path)


def test_accelerate(tmp_path):
    model, losses = accelerated(EVERYTHING)
    assert losses == pytest.approx(plain(EVERYTHING)[1], rel=1e-5)
    model.save_pretrained(tmp_path, save_function=torch.save)
    assert_saved(model, tmp_path)


def test_hugging_face_trainer(tmp_path):
    model, losses = hugging_face(EVERYTHING, tmp_path)
    assert len(losses) == STEPS
    assert losses[-1] < losses[0]
    assert_saved(model, tmp_path / "final")
    resumed, _ = hugging_face(EVERYTHING, tmp_path / "again", resume=str(tmp_path / "checkpoint-4"))
    for name, weight in model.named_parameters():
        assert torch.equal(weight, resumed.get_parameter(name)), name


def test_techniques_that_keep_outputs_train_to_stock_losses(tmp_path):
    assert "unpadding" in KEEP_OUTPUTS
    assert "sparse_prediction" in KEEP_OUTPUTS
    assert plain(KEEP_OUTPUTS)[1] == pytest.approx(plain([])[1], rel=1e-4)
    stock = hugging_face([], tmp_path / "stock")[1]
    assert hugging_face(KEEP_OUTPUTS, tmp_path / "kept")[1] == pytest.approx(stock, rel=1e-4)


def test_sentence_transformers(tmp_path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    (tmp_path / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", *"abcdefgh"])
    )
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    model = operated(EVERYTHING)[0].eval()
    save(model, tmp_path / "folder", tokenizer)
    embedder = sentence_transformers.SentenceTransformer(str(tmp_path / "folder"), device="cpu")
    sentences = ["a b c d", "b a"]
    inputs = tokenizer(sentences, padding=True, return_tensors="pt")
    mask = inputs["attention_mask"][..., None]
    hidden = AutoModel.from_pretrained(tmp_path / "folder")(**inputs).last_hidden_state
    stock = model.bert(**inputs).last_hidden_state
    assert torch.equal(hidden * mask, stock * mask)
    means = (hidden * mask).sum(1) / mask.sum(1)
    assert torch.allclose(torch.tensor(embedder.encode(sentences)), means, atol=1e-6)


def test_llm_foundry_finds_every_technique():
    found = {entry.name: entry.load() for entry in entry_points(group="llmfoundry_algorithms")}
    assert {f"cadenza_{name}": cls for name, cls in REGISTRY.items()}.items() <= found.items()
    for cls in found.values():
        assert issubclass(cls, Algorithm), "llm-foundry refuses functions"
    assert not {"alibi", "gated_linear_units", "low_precision_layernorm"} & set(found)
