"""Composer's algorithms in training, beside techniques: each changes what is learned."""

import math

import pytest
import torch
from trainers import trained

from cadenza.quantization.training.fake_quantized import FakeQuantized
from cadenza.recipe import RecipeError, load
from cadenza.recipe import trainer as trainers
from cadenza.recipe.methods.sequence_lengths import numbered
from cadenza.recipe.run import task_of

pytestmark = pytest.mark.slow

RECIPE = """
name: tiny
model: {config: {hidden_size: 32, num_hidden_layers: 1, num_attention_heads: 4, intermediate_size: 48}}
tokenizer: {vocab_size: 300}
data: {max_seq_len: 24, long_documents: split, eval_fraction: 0.2}
algorithms: {alibi: , glu: , unpadding: , sparse_prediction: , flash_attention: , sequence_packing: }
scheduler: {t_warmup: 1ba}
optimizer: {lr: 1e-2}
train: {max_duration: 8ba, global_batch_size: 8, device_train_microbatch_size: 4, eval_interval: 1dur,
  progress_bar: false}
"""
IMAGES = """
name: tiny
model: {objective: image_classification, model_type: resnet10, width: 0.125, stem: small}
algorithms: {quantization_aware_training: }
optimizer: {name: sgd, lr: 0.1}
scheduler: {t_warmup: 0ba}
train: {max_duration: 4ba, global_batch_size: 32, eval_interval: 1dur, progress_bar: false}
data: {eval_images: 120}
"""
TEXT_OPTIONS = {
    "ema": "half_life: 2ba",
    "gradient_clipping": "clipping_type: norm, clipping_threshold: 0.01",
    "sam": "",
    "swa": "swa_start: 0.2dur, swa_end: 0.9dur, update_interval: 1ba",
    "seq_length_warmup": "max_seq_length: 24, step_size: 4, duration: 1.0",
}
IMAGE_OPTIONS = {
    "blurpool": "min_channels: 1",
    "cutmix": "",
    "label_smoothing": "",
    "selective_backprop": "start: 0., end: 1.",
    "squeeze_excite": "min_channels: 8",
}


def evaluated(recipe):
    trainer = trained(recipe)
    return {name: float(metric.compute()) for name, metric in trainer.state.eval_metrics["eval"].items()}


@pytest.fixture(scope="module")
def kept():
    """Results of the recipes without one of Composer's algorithms."""
    return {}


@pytest.mark.parametrize("name", TEXT_OPTIONS)
def test_language_models(name, recipe, kept):
    plain = kept.setdefault("text", None) or evaluated(recipe())
    kept["text"] = plain
    found = evaluated(recipe(f"algorithms.{name}={{{TEXT_OPTIONS[name]}}}"))
    assert found["LanguageCrossEntropy"] != plain["LanguageCrossEntropy"]
    assert found["LanguageCrossEntropy"] < 6


@pytest.mark.parametrize("name", IMAGE_OPTIONS)
def test_image_models(name, tmp_path, kept):
    (tmp_path / "tiny.yaml").write_text(IMAGES)

    def asked(*pairs):
        return load([str(tmp_path / "tiny.yaml")], [f"train.run_folder={tmp_path / 'runs'}", *pairs])

    plain = kept.setdefault("images", None) or evaluated(asked())
    kept["images"] = plain
    found = evaluated(asked(f"algorithms.{name}={{{IMAGE_OPTIONS[name]}}}"))
    assert found["CrossEntropy"] != plain["CrossEntropy"]


def lengths(recipe):
    """The shapes of the batches that a run trains on, with their draws."""
    seen = []

    class Looks(trainers.Callback):
        def batch_start(self, state, logger):
            ids, draws = state.batch["input_ids"], state.batch["draw"]
            seen.append((tuple(ids.shape), draws.tolist()))

    trained(recipe, Looks())
    return seen


@pytest.mark.parametrize("truncate", [True, False])
def test_rows_grow_and_keep_the_draw_of_their_first_token(truncate, recipe):
    options = f"{{max_seq_length: 24, step_size: 8, duration: 1.0, truncate: {str(truncate).lower()}}}"
    seen = lengths(recipe(f"algorithms={{seq_length_warmup: {options}}}"))
    assert [shape[1] for shape, _ in seen] == [8] * 4 + [16] * 4
    whole = lengths(recipe("algorithms={alibi: {}}"))
    for ((rows, length), draws), ((_, before), stood) in zip(seen, whole, strict=True):
        expected = stood if truncate else [stood[row * length // before] for row in range(rows)]
        assert draws == expected


EVERY = ("alibi", "glu", "unpadding", "sparse_prediction", "flash_attention", "sequence_packing")
ROWS = {  # the techniques, of those of RECIPE and beside them
    "padded": (),
    "unpadded": ("unpadding", "sparse_prediction", "flash_attention"),
    "packed": ("unpadding", "sparse_prediction", "flash_attention", "sequence_packing"),
    "chunked": ("sparse_prediction", "chunked_loss"),
    "causal": ("chunked_loss",),
}


@pytest.mark.parametrize("kind", ROWS)
def test_short_rows_of_each_kind_are_cut_alike_and_train(kind, recipe):
    """Tensors of one shape, finite losses, and a label in each batch, though few tokens have one."""
    seen, losses = [], []

    class Looks(trainers.Callback):
        def batch_start(self, state, logger):
            shapes = {tuple(value.shape) for name, value in state.batch.items() if name != "draw"}
            seen.append((shapes, int((state.batch["labels"] != -100).sum())))

        def batch_end(self, state, logger):
            losses.append(state.total_loss_dict["loss/train/total"])

    chosen = [f"algorithms.{name}={str(name in ROWS[kind]).lower()}" for name in (*EVERY, "chunked_loss")]
    causal = ("model.objective=causal_lm", "model.config.is_decoder=true") if kind == "causal" else ()
    warmup = "{max_seq_length: 64, min_seq_length: 8, step_size: 8, duration: 1.0}"
    sizes = "data.max_seq_len=64", "train.global_batch_size=2", "train.device_train_microbatch_size=1"
    common = "data.mlm_probability=0.02", "train.max_duration=24ba", f"algorithms.seq_length_warmup={warmup}"
    asked = recipe(*common, *sizes, *chosen, *causal)
    trained(asked, Looks())
    assert [shapes for shapes, _ in seen[:3]] == [{(2, 8)}] * 3
    assert all(len(shapes) == 1 for shapes, _ in seen)
    assert len(losses) == 24
    assert all(map(math.isfinite, losses))
    assert all(labels for _, labels in seen), "of 16 tokens at 2 %"
    assert all(loss > 0 for loss in losses)


def test_documents_of_two_rows_stay_two():
    """Rows of 6 cut into rows of 4: the second one holds the end of one row and the start of the next."""
    ids = torch.tensor([[1, 1, 1, 2, 2, 2], [1, 2, 2, 2, -1, -1]])
    assert numbered(ids).view(-1, 4).tolist() == [[1, 1, 1, 2], [2, 2, 3, 4], [4, 4, -1, -1]]
    with pytest.raises(RecipeError, match=r"seq_length_warmup\.truncate: false cuts rows"):
        numbered(torch.tensor([[0, 1, 1, 1]]))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("train.max_duration=2ba", "training has fewer batches than the warm-up has steps"),
        ("train.max_duration=12sp", "training has fewer samples than the warm-up has steps"),
    ],
)
def test_a_warm_up_that_cannot_be_is_refused_before_a_step(pair, message, recipe):
    asked = recipe(
        pair, "scheduler.t_warmup=0ba", "algorithms={seq_length_warmup: {max_seq_length: 24, step_size: 4}}"
    )
    with pytest.raises(RecipeError, match=message):
        trained(asked)


def test_a_technique_is_applied_to_what_composer_put_in(tmp_path):
    """Each convolution is quantized, those of squeeze-and-excitation as well."""
    (tmp_path / "tiny.yaml").write_text(IMAGES)
    recipe = load([str(tmp_path / "tiny.yaml")], ["algorithms.squeeze_excite={min_channels: 8}"])
    settings, task = trainers.trainer_settings(recipe), task_of(recipe)
    model = trainers.build_trainer(task, settings, task.model(), *task.data()).state.model
    layers = [m for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) > 13
    assert all(isinstance(layer, FakeQuantized) for layer in layers)
