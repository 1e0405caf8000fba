"""New parameters that no optimizer holds: what a report says, a warning at a step, an error in a Trainer."""

import gc
import warnings

import pytest
import torch
from families import batch, build
from trainers import short_trainer

from cadenza.algorithms import GLU, ALiBi, apply_alibi, apply_glu, apply_vocab_padding
from cadenza.models import composer_model
from cadenza.surgery import SurgeryError

LATE = r"SGD was made before GLU\(.*\) and holds none or not all of the 2 parameters that this made"


def optimizer_of(model):
    return torch.optim.SGD(model.parameters(), lr=0.1)


def step(model, optimizer):
    model(**batch("bert")).loss.backward()
    optimizer.step()


def warned(model, optimizer):
    """The warnings of a step."""
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        step(model, optimizer)
    return [str(each.message) for each in heard]


def test_an_earlier_optimizer_warns_once():
    model = build("bert")
    optimizer = optimizer_of(model)
    apply_glu(model)
    with pytest.warns(UserWarning, match=LATE):
        step(model, optimizer)
    assert warned(model, optimizer) == []


def test_one_that_got_a_part_of_them_warns():
    model = build("bert")
    optimizer = optimizer_of(model)
    apply_glu(model)
    held = {id(p) for p in optimizer.param_groups[0]["params"]}
    new = [p for p in model.parameters() if id(p) not in held]
    optimizer.add_param_group({"params": new[:1]})
    with pytest.warns(UserWarning, match=LATE):
        step(model, optimizer)


def test_optimizers_that_hold_them_are_silent():
    model = build("bert")
    passed = optimizer_of(model)
    report = apply_glu(model, optimizers=passed)
    assert "new parameters" not in str(report)
    assert warned(model, passed) == []
    other = build("bert", seed=1)
    late, added = None, optimizer_of(other)
    apply_glu(other)
    late, held = optimizer_of(other), {id(p) for p in added.param_groups[0]["params"]}
    added.add_param_group({"params": [p for p in other.parameters() if id(p) not in held]})
    assert warned(other, late) == []
    assert warned(other, added) == []


def test_surgeries_that_make_none_are_silent():
    """`alibi` takes parameters only; `vocab_padding` keeps them, with more rows."""
    model = build("bert")
    optimizer = optimizer_of(model)
    for report in (apply_alibi(model), apply_vocab_padding(model)):
        assert "new parameters" not in str(report)
    assert warned(model, optimizer) == []


def test_optimizers_of_other_models_are_silent():
    other, model = build("bert"), build("bert")
    optimizer = optimizer_of(other)
    apply_glu(model)
    assert warned(other, optimizer) == []
    del model
    gc.collect()
    assert warned(other, optimizer_of(other)) == []


def test_an_undo_ends_the_watch():
    model = build("bert")
    optimizer = optimizer_of(model)
    report = apply_glu(model)
    report.undo()
    gc.collect()
    assert warned(model, optimizer) == []


def test_a_trainer_refuses_what_its_optimizer_lacks():
    model = build("bert")
    wrapped = composer_model(model)
    optimizer = optimizer_of(wrapped)
    apply_glu(model)
    message = (
        r"2 new parameters are in no optimizer, so they would not train: "
        r"model\.bert\.encoder\.layer\.0\.\S+, model\.bert\.encoder\.layer\.1\.\S+; make the optimizer after"
    )
    with pytest.raises(SurgeryError, match=message):
        short_trainer(model, [ALiBi()], optimizers=optimizer)


def test_a_trainer_takes_frozen_parameters_and_its_own_surgeries():
    model = build("bert")
    for parameter in model.bert.embeddings.parameters():
        parameter.requires_grad_(False)
    trained = [p for p in model.parameters() if p.requires_grad]
    trainer = short_trainer(model, [GLU(), ALiBi()], optimizers=torch.optim.SGD(trained, lr=0.1))
    made = trainer.state.algorithms[0].report.undos.made
    held = {id(p) for p in trainer.state.optimizers[0].param_groups[0]["params"]}
    trainer.close()
    assert made
    assert {id(p) for p in made} <= held
    assert warned(model, trainer.state.optimizers[0]) == []
