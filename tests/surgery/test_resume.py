"""Resuming under Composer: no surgered weight is lost, and a run goes on as if it had never stopped."""

import warnings

import pytest
import torch
from cases import CASES, claimed
from trainers import resumable_trainer

from cadenza.algorithms import GLU, ALiBi, FlashAttention, SparsePrediction, Unpadding, VocabPadding
from cadenza.surgery import CheckpointError, in_order, ledger

pytestmark = pytest.mark.slow

OTHERS = {"glu": GLU("swiglu"), "vocab_padding": VocabPadding(32), "flash_attention": FlashAttention("sdpa")}
names = pytest.mark.parametrize("name", [*CASES, "all"])


def algorithms(name):
    chosen = claimed("bert") if name == "all" else [name]
    return in_order(CASES[each].algorithm() for each in chosen)


def family_of(name):
    """BERT, or where it has nothing to change, Llama."""
    return "bert" if name == "all" or "bert" in CASES[name].families else "llama"


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """By technique: a run of four batches, and the checkpoint after two of them."""
    runs = {}

    def run(name):
        if name not in runs:
            folder = tmp_path_factory.mktemp(name)
            whole = resumable_trainer(algorithms(name), folder, family=family_of(name))
            whole.fit()
            runs[name] = whole, str(folder / "ep0-ba2-rank0.pt")
        return runs[name]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield run


def done_on(model):
    return {path: sorted(ledger(module)) for path, module in model.named_modules() if ledger(module)}


def assert_same(resumed, whole):
    """Modules, surgeries, weights and the optimizer's state, bit for bit."""
    mine, theirs = resumed.state.model, whole.state.model
    assert [type(m) for m in mine.modules()] == [type(m) for m in theirs.modules()]
    assert done_on(mine) == done_on(theirs)
    for (key, a), b in zip(mine.state_dict().items(), theirs.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    states = (each.state.optimizers[0].state for each in (resumed, whole))
    by_name = [
        {n: s[p] for n, p in m.named_parameters()} for s, m in zip(states, (mine, theirs), strict=True)
    ]
    for key, state in by_name[0].items():
        for field, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(by_name[1][key][field])), (key, field)


@names
def test_a_the_same_algorithms(name, unbroken):
    whole, checkpoint = unbroken(name)
    resumed = resumable_trainer(algorithms(name), seed=6, load_path=checkpoint, family=family_of(name))
    assert resumed.state.timestamp.batch == 2
    resumed.fit()
    assert_same(resumed, whole)


@names
def test_b_and_e_left_out_they_are_created_anew(name, unbroken):
    whole, checkpoint = unbroken(name)
    with pytest.warns(UserWarning, match="Automatically adding required_on_load algorithm"):
        resumed = resumable_trainer([], seed=6, load_path=checkpoint, family=family_of(name))
    resumed.fit()
    assert_same(resumed, whole)


@names
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("listed", [True, False])
def test_c_and_d_weights_alone(name, strict, listed, unbroken):
    _, checkpoint = unbroken(name)
    options = {"load_weights_only": True, "load_strict_model_weights": strict, "load_path": checkpoint}
    options["family"] = family_of(name)
    loaded = resumable_trainer(algorithms(name) if listed else [], seed=6, **options)
    assert loaded.state.timestamp.batch == 0
    saved = torch.load(checkpoint, weights_only=False)["state"]["model"]
    mine = loaded.state.model.state_dict()
    assert mine.keys() == saved.keys()
    assert all(torch.equal(mine[key], saved[key]) for key in saved)
    assert {n for done in done_on(loaded.state.model).values() for n in done} == {
        type(a).__name__ for a in algorithms(name)
    }


@pytest.mark.parametrize("weights_only", [True, False])
@pytest.mark.parametrize("name", OTHERS)
def test_f_other_options_are_an_error(name, weights_only, unbroken):
    _, checkpoint = unbroken(name)
    with pytest.raises(CheckpointError, match=r"the checkpoint was made with .* was .* and is "):
        resumable_trainer([OTHERS[name]], load_path=checkpoint, load_weights_only=weights_only)


@names
def test_g_excluded_algorithms_stay_out(name, unbroken):
    _, checkpoint = unbroken(name)
    excluded = [type(a).__name__ for a in algorithms(name)]
    options = {"load_path": checkpoint, "load_exclude_algorithms": excluded, "load_weights_only": True}
    options["family"] = family_of(name)
    if name in ("glu", "vocab_padding", "post_training_quantization", "all"):  # weights of other shapes
        with pytest.raises(RuntimeError, match="size mismatch"):
            resumable_trainer([], load_strict_model_weights=False, **options)
        return
    loaded = resumable_trainer([], load_strict_model_weights=False, **options)
    assert not done_on(loaded.state.model)


@pytest.mark.parametrize("excluded", [["Unpadding"], ["Unpadding", "FlashAttention"]])
def test_excluded_algorithms_in_a_full_load(excluded, tmp_path):
    """Composer then loads what fits; another surgery in the list guards the load."""
    made = resumable_trainer([Unpadding(), FlashAttention(), SparsePrediction()], tmp_path)
    made.fit(duration="2ba")
    checkpoint = str(tmp_path / "ep0-ba2-rank0.pt")
    loaded = resumable_trainer(
        [SparsePrediction()], seed=6, load_path=checkpoint, load_exclude_algorithms=excluded
    )
    assert loaded.state.timestamp.batch == 2
    names = {name for done in done_on(loaded.state.model).values() for name in done}
    assert names == {"Unpadding", "FlashAttention", "SparsePrediction"} - set(excluded)
    mine, theirs = loaded.state.model.state_dict(), made.state.model.state_dict()
    assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_an_excluded_surgery_leaves_weights_that_do_not_fit(tmp_path):
    resumable_trainer([GLU(), SparsePrediction()], tmp_path).fit(duration="2ba")
    options = {"load_path": str(tmp_path / "ep0-ba2-rank0.pt"), "load_exclude_algorithms": ["GLU"]}
    with pytest.raises(CheckpointError, match=r"the checkpoint is of another model: .*size mismatch"):
        resumable_trainer([SparsePrediction()], **options)


@names
def test_h_autoresume(name, unbroken, tmp_path):
    whole, _ = unbroken(name)
    common = {"folder": tmp_path, "autoresume": True, "save_overwrite": False, "family": family_of(name)}
    first = resumable_trainer(algorithms(name), **common)
    first.fit(duration="2ba")
    first.close()
    resumed = resumable_trainer(algorithms(name), seed=6, **common)
    assert resumed.state.timestamp.batch == 2
    resumed.fit()
    assert_same(resumed, whole)


def test_the_unbroken_run_learns(unbroken):
    """The comparisons above can fail: two batches more change all weights but quantized ones."""
    whole, checkpoint = unbroken("all")
    early = torch.load(checkpoint, weights_only=False)["state"]["model"]
    late = whole.state.model.state_dict()
    trained = [key for key in late if late[key].is_floating_point()]
    assert not any(torch.equal(early[key], late[key]) for key in trained)


def test_a_stock_checkpoint_is_not_taken_for_an_operated_one(unbroken, tmp_path):
    stock = resumable_trainer([], tmp_path)
    stock.fit()
    checkpoint = str(tmp_path / "ep0-ba2-rank0.pt")
    for surgery, said in ((ALiBi(), "position_embeddings"), (GLU(), "size mismatch")):
        with pytest.raises(CheckpointError, match=f"the checkpoint is of another model: .*{said}"):
            resumable_trainer([surgery], load_path=checkpoint)


@names
def test_the_state_of_algorithms_is_plain(name, unbroken):
    """Composer's main branch loads checkpoints with `weights_only=True`: no class of ours in them."""
    _, checkpoint = unbroken(name)
    saved = torch.load(checkpoint, weights_only=False)["state"]

    def plain(value):
        if isinstance(value, (list, tuple, dict)):
            return all(plain(each) for each in (value.values() if isinstance(value, dict) else value))
        return value is None or isinstance(value, (str, int, float, bool))

    assert saved["algorithms"]
    assert all(plain(each) for each in saved["algorithms"])
    assert all(type(tensor) is torch.Tensor for tensor in saved["model"].values())
