"""Training steps of a recipe's model on a CPU, and the bytes that they allocate, by torch's profiler."""

import gc

import torch

from cadenza.models.built import built
from cadenza.models.lora import lora_config
from cadenza.recipe import build
from cadenza.recipe.memory.shapes import AUTO
from cadenza.recipe.optimizers import optimizer_for


def model_of(recipe):
    """The model with random weights, with the recipe's techniques."""
    section = recipe.model
    fields = {"vocab_size": recipe.tokenizer.vocab_size, "pad_token_id": 0, **section.config}
    model = built(AUTO[section.objective], section.model_type, None, fields, section.attention, None)
    if section.lora:
        from peft import get_peft_model

        model = get_peft_model(model, lora_config(section.lora, causal=True))
    for algorithm in build.algorithms(recipe.algorithms):
        algorithm.operate(model)
    if section.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    return model.train()


def batch_of(recipe, rows):
    """Random tokens; those of a masked LM end in padding, and one in so many is labelled."""
    shape = rows, recipe.data.max_seq_len
    ids = torch.randint(5, recipe.tokenizer.vocab_size, shape)
    if recipe.model.objective == "causal_lm":
        return {"input_ids": ids, "labels": ids.clone()}
    mask = torch.ones(shape, dtype=torch.long)
    mask[-1, -2:] = 0
    labels = torch.full(shape, -100)
    labels.view(-1)[: int(recipe.data.mlm_probability * labels.numel())] = 7
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


def step(model, optimizer, batch, count):
    """One step by `count` micro-batches, as a Trainer does it."""
    for _ in range(count):
        outputs = model(**batch)
        outputs.loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def peak_of_run(recipe):
    """The most bytes of tensors in the second step, with weights, optimizer state and batch."""
    model = model_of(recipe)
    optimizer = optimizer_for(recipe.optimizer, model)
    rows = recipe.train.device_train_microbatch_size
    batch, count = batch_of(recipe, rows), recipe.train.global_batch_size // rows
    step(model, optimizer, batch, count)
    gc.collect()
    states = [t for state in optimizer.state.values() for t in state.values() if torch.is_tensor(t)]
    before = sum(t.nbytes for t in (*model.parameters(), *model.buffers(), *states, *batch.values()))
    return before + rise(lambda: step(model, optimizer, batch, count))


def rise(function):
    """The most bytes that `function` has allocated at once."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        function()
    changes = [e.nbytes() for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = most = 0
    for change in changes:
        now += change
        most = max(most, now)
    return most
