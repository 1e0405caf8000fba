"""Optimizers after a surgery: which group, which place in it, which name, which state."""

import copy
from dataclasses import dataclass
from itertools import permutations

import pytest
import torch
from families import batch, build
from torch import nn
from torch.nn import Parameter

from cadenza.algorithms import apply_alibi, apply_glu, apply_vocab_padding
from cadenza.surgery import Stage, Surgery, SurgeryError
from cadenza.surgery.optimizers import as_tuple, sync


def params(*names):
    return {name: Parameter(torch.zeros(1)) for name in names}


def grouped(*groups):
    return torch.optim.SGD([{"params": list(group), "lr": 1.0 + n} for n, group in enumerate(groups)])


def joined(new, before, groups):
    """The index of the group that the parameter named `new` joins, where each group holds these names."""
    optimizer = grouped(*([before[name] for name in names] for names in groups))
    after = {**before, new: Parameter(torch.zeros(1))}
    assert sync([optimizer], before, after, {}) == {}
    (found,) = (n for n, g in enumerate(optimizer.param_groups) if any(p is after[new] for p in g["params"]))
    return found


@pytest.mark.parametrize(
    ("new", "group"),
    [
        ("a.norm.weight", 0),  # a weight, and of the same layer
        ("b.x.y.weight", 1),
        ("a.norm.bias", 2),
        ("b.extra.gain", 1),  # no namesake: by layer alone
        ("c.weight", 0),  # a namesake, of no layer in common: the first
        ("b.norm.bias", 2),  # the kind of a parameter counts before its layer
    ],
)
def test_a_new_parameter_joins_its_nearest_namesake(new, group):
    before = params("a.x.weight", "b.x.weight", "a.x.bias")
    assert joined(new, before, [["a.x.weight"], ["b.x.weight"], ["a.x.bias"]]) == group


def test_one_that_is_not_trained_lends_no_group():
    before = params("a.x.weight", "a.weight", "b.weight")
    assert joined("a.x.y.weight", before, [["b.weight"], ["a.weight"]]) == 1


def test_a_namesake_comes_before_what_is_nearer():
    """The successor takes the place of the parameter of its own name, also where that has another group."""
    before = params("a.weight", "a.x.weight")
    optimizer = grouped([before["a.x.weight"]], [before["a.weight"]])
    after = {"a.x.weight": before["a.x.weight"], "a.weight": Parameter(torch.ones(2))}
    sync([optimizer], before, after, {})
    assert [[p.numel() for p in group["params"]] for group in optimizer.param_groups] == [[1], [2]]


def test_the_first_name_decides_that_was_there_before():
    before = params("tied.weight", "head.weight", "other.weight")
    before["head.weight"] = before["tied.weight"]
    optimizer = grouped([before["other.weight"]], [before["tied.weight"]])
    new = Parameter(torch.ones(2))
    after = {
        "fresh.weight": new,
        "tied.weight": new,
        "head.weight": new,
        "other.weight": before["other.weight"],
    }
    sync([optimizer], before, after, {})
    assert [[p.numel() for p in group["params"]] for group in optimizer.param_groups] == [[1], [2]]


def test_frozen_ones_and_those_of_frozen_ones_stay_out():
    before = params("a.weight", "b.weight")
    optimizer = grouped([before["a.weight"]])
    frozen = Parameter(torch.ones(1), requires_grad=False)
    sync([optimizer], before, {**before, "a.mask": frozen, "b.weight": Parameter(torch.ones(1))}, {})
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == [id(before["a.weight"])]


def test_what_is_held_already_is_not_added_twice():
    before, new = params("a.weight"), Parameter(torch.ones(1))
    optimizer = grouped([before["a.weight"], new])
    sync([optimizer], before, {**before, "a.gain": new}, {})
    assert len(optimizer.param_groups[0]["params"]) == 2


def test_without_optimizers_there_is_nothing_to_do():
    before = params("a.weight")
    assert sync((), before, params("a.weight", "a.gain"), {}) == {}


def test_one_several_or_none():
    one, two = grouped(params("a").values()), grouped(params("b").values())
    assert as_tuple(None) == ()
    assert as_tuple(one) == (one,)
    assert as_tuple(each for each in (one, two)) == (one, two)


def test_the_second_optimizer_is_followed_too():
    before = params("a.weight", "b.weight")
    both = [grouped([before["a.weight"]]), grouped([before["b.weight"]])]
    new = Parameter(torch.ones(2))
    dropped = sync(both, before, {"a.weight": before["a.weight"], "b.weight": new}, {})
    assert both[1].param_groups[0]["params"] == [new]
    place, state = dropped[before["b.weight"]]
    assert place == (both[1], both[1].param_groups[0])
    assert state is None, "no step was taken"


def right_names(model, optimizer):
    """Whether each name in the group is the first that the parameter beside it has."""
    (group,) = optimizer.param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    return [names[id(p)] for p in group["params"]] == group["param_names"]


def test_names_go_with_their_parameters():
    model = build("bert", tie_word_embeddings=True)
    optimizer = torch.optim.AdamW(list(model.named_parameters()), lr=0.1)
    reports = [apply_glu(model, optimizers=optimizer), apply_alibi(model, optimizers=optimizer)]
    assert len(optimizer.param_groups[0]["params"]) == len(list(model.parameters()))
    assert right_names(model, optimizer)
    for report in reports:
        report.undo()
        assert right_names(model, optimizer)


def test_what_comes_back_has_its_group_and_its_own_state():
    model = build("bert").train()
    dense = model.bert.encoder.layer[1].intermediate.dense
    rest = [p for p in model.parameters() if p is not dense.weight]
    optimizer = torch.optim.AdamW([{"params": rest}, {"params": [dense.weight], "lr": 0.5}], lr=0.1)
    model(**batch("bert")).loss.backward()
    optimizer.step()
    old, momentum = dense.weight, optimizer.state[dense.weight]["exp_avg"].clone()
    report = apply_glu(model, optimizers=optimizer)
    assert optimizer.param_groups[1]["params"] == [dense.weight]
    assert dense.weight not in optimizer.state, "a new weight has no past"
    report.undo()
    assert optimizer.param_groups[1]["params"] == [old]
    assert torch.equal(optimizer.state[old]["exp_avg"], momentum)
    assert len(optimizer.state) == len(list(model.parameters()))


def order(model, optimizer):
    names = {id(p): name for name, p in model.named_parameters()}
    return [[names[id(p)] for p in group["params"]] for group in optimizer.param_groups]


def grouped_bert(arrange):
    """BERT, and an optimizer of two groups whose parameters are `arrange`d."""
    model = build("bert").train()
    matrices = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": arrange(matrices)}, {"params": arrange(rest), "weight_decay": 0.0}]
    return model, torch.optim.AdamW(groups, lr=0.1)


@pytest.mark.parametrize("undone", list(permutations(range(3))))
@pytest.mark.parametrize("arrange", [list, lambda ps: ps[::-1], lambda ps: ps[5:] + ps[:5]])
def test_the_order_after_undos_in_any_order_is_that_of_before(undone, arrange):
    """A state dict holds moments by position."""
    model, optimizer = grouped_bert(arrange)
    before = order(model, optimizer)
    reports = [apply(model, optimizers=optimizer) for apply in (apply_alibi, apply_glu, apply_vocab_padding)]
    for index in undone:
        reports[index].undo()
    assert order(model, optimizer) == before


def test_a_state_saved_before_a_surgery_fits_after_its_undo():
    model, optimizer = grouped_bert(list)
    model(**batch("bert")).loss.backward()
    optimizer.step()
    moments = {p: optimizer.state[p]["exp_avg"].clone() for p in model.parameters()}
    saved = copy.deepcopy(optimizer.state_dict())
    report = apply_glu(model, optimizers=optimizer)
    optimizer.load_state_dict(optimizer.state_dict())  # makes new groups
    report.undo()
    optimizer.load_state_dict(saved)
    assert all(torch.equal(optimizer.state[p]["exp_avg"], moment) for p, moment in moments.items())


@pytest.mark.parametrize("apply", [apply_alibi, apply_glu, apply_vocab_padding])
def test_an_optimizer_made_before_or_after_a_surgery_has_the_same_order(apply):
    early, late = build("bert"), build("bert")
    optimizer = torch.optim.SGD(early.parameters(), 0.1)
    apply(early, optimizers=optimizer)
    apply(late)
    assert order(early, optimizer) == order(late, torch.optim.SGD(late.parameters(), 0.1))


def test_several_optimizers_keep_their_orders():
    model = build("bert")
    both = [
        torch.optim.SGD(ps, 0.1) for ps in (list(model.bert.parameters()), list(model.cls.parameters())[::-1])
    ]
    both[1].param_groups[0]["params"] = [p for p in both[1].param_groups[0]["params"] if p.ndim == 1]
    before = [order(model, optimizer) for optimizer in both]
    reports = [apply(model, optimizers=both) for apply in (apply_vocab_padding, apply_alibi, apply_glu)]
    for report in reports:
        report.undo()
    assert [order(model, optimizer) for optimizer in both] == before


def test_an_order_that_someone_changes_meanwhile_is_kept():
    model = build("bert")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    report = apply_alibi(model, optimizers=optimizer)
    optimizer.param_groups[0]["params"].reverse()
    kept = order(model, optimizer)[0]
    report.undo()
    position = "bert.embeddings.position_embeddings.weight"
    assert [name for name in order(model, optimizer)[0] if name != position] == kept


def test_a_state_that_cannot_get_other_rows_is_refused():
    """Zero isn't the zero of codes."""
    model = build("bert")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    words = model.get_input_embeddings().weight
    optimizer.state[words]["codes"] = torch.zeros(words.shape, dtype=torch.uint8)
    with pytest.raises(
        SurgeryError, match=r"SGD keeps codes in torch.uint8, .*; operate before its first step"
    ):
        apply_vocab_padding(model, optimizers=optimizer)
    assert len(words) == 90


@dataclass(repr=False, eq=False)
class Untie(Surgery):
    stage = Stage.STRUCTURE

    def edit(self, site):
        if site.path == "head":
            tied = site.module.weight
            site.module.weight = Parameter(tied.detach().clone())
            yield lambda: setattr(site.module, "weight", tied)


def test_an_untied_weight_joins_the_group_of_the_tied_one():
    model = nn.ModuleDict({"words": nn.Embedding(3, 2), "head": nn.Linear(2, 3, bias=False)})
    model["near"] = nn.Linear(2, 2, bias=False)
    model["head"].weight = model["words"].weight
    optimizer = grouped([model["near"].weight], [model["words"].weight])
    report = Untie().operate(model, optimizer)
    near, tied = (group["params"] for group in optimizer.param_groups)
    assert [id(p) for p in tied] == [id(model["words"].weight), id(model["head"].weight)]
    assert len(near) == 1
    report.undo()
    assert [id(p) for p in optimizer.param_groups[1]["params"]] == [id(model["words"].weight)]
