"""The data of a recipe in the words of another tokenizer, and the options of streams with what they open."""

from cadenza.recipe.run import task_of


def data(recipe, tokenizer):
    """Of training and of evaluation, in the words of this tokenizer."""
    task = task_of(recipe)
    vars(task)["tokenizer"] = tokenizer
    return task.data()


HUB = {
    "source": ("data.source=other/set", [("other/set", None, "train"), ("other/set", None, "validation")]),
    "subset": ("data.subset=de", [("some/set", "de", "train"), ("some/set", "de", "validation")]),
    "split": ("data.split=most", [("some/set", None, "most"), ("some/set", None, "validation")]),
    "eval_split": ("data.eval_split=rest", [("some/set", None, "train"), ("some/set", None, "rest")]),
    "shuffle_buffer": (
        "data.shuffle_buffer=7",
        [("some/set", None, "train"), ("some/set", None, "validation")],
    ),
}

SHARDS = {
    "remote": ("data.remote=s3://a", {"remote": "s3://a", "local": "b"}),
    "local": ("data.local=c", {"remote": None, "local": "c"}),
}
