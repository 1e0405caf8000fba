"""The fields of the data's configs: the values that they take, and those that they refuse."""

import pytest

from cadenza.data import DataError, ImageConfig, LabelledConfig, TextConfig, TokenizerConfig

LEAST = [
    (TextConfig, "max_seq_len", 3),
    (TextConfig, "num_workers", 0),
    (TextConfig, "shuffle_buffer", 1),
    (TextConfig, "upsample_times", 1),
    (TextConfig, "eval_documents", 1),
    (LabelledConfig, "max_seq_len", 3),
    (LabelledConfig, "num_workers", 0),
    (LabelledConfig, "train_examples", 1),
    (LabelledConfig, "eval_examples", 1),
    (LabelledConfig, "split_seed", 0),
    (ImageConfig, "image_size", 1),
    (ImageConfig, "num_workers", 0),
    (ImageConfig, "train_images", 1),
    (ImageConfig, "eval_images", 1),
]


@pytest.mark.parametrize(("config", "key", "least"), LEAST)
def test_the_least_is_taken_and_less_is_refused(config, key, least):
    assert getattr(config(**{key: least}), key) == least
    with pytest.raises(DataError, match=f"^data.{key} is {least - 1}; it must be at least {least}$"):
        config(**{key: least - 1})


def test_the_smallest_vocabulary():
    assert TokenizerConfig(vocab_size=300).vocab_size == 300
    with pytest.raises(DataError, match=r"^tokenizer.vocab_size is 299; it must be at least 300$"):
        TokenizerConfig(vocab_size=299)


@pytest.mark.parametrize("key", ["mlm_probability", "eval_mlm_probability", "eval_fraction"])
def test_shares_lie_between_nothing_and_everything(key):
    for share in (1e-9, 0.5, 0.999):
        assert getattr(TextConfig(**{key: share}), key) == share
    for share in (0.0, 1.0, -0.1, 1.5):
        with pytest.raises(DataError, match=rf"^data.{key} is {share}; it must lie in \(0, 1\)$"):
            TextConfig(**{key: share})


def test_long_documents_are_truncated_or_split():
    assert [TextConfig(long_documents=word).long_documents for word in ("truncate", "split")] == [
        "truncate",
        "split",
    ]
    with pytest.raises(DataError, match=r"^data.long_documents is 'cut'; it must be truncate or split$"):
        TextConfig(long_documents="cut")


@pytest.mark.parametrize(
    ("source", "augmentations"),
    [
        ("digits", ["crop_flip", "flip", "none"]),
        ("fashion_mnist", ["crop_flip", "flip", "none"]),
        ("some/set", ["inception", "none"]),
    ],
)
def test_each_kind_of_source_has_its_augmentations(source, augmentations):
    assert ImageConfig(source=source).in_memory == ("/" not in source)
    for augmentation in ("inception", "crop_flip", "flip", "none"):
        if augmentation in augmentations:
            assert ImageConfig(source=source, augmentation=augmentation).augmentation == augmentation
            continue
        right = ", ".join(augmentations[:-1]) + f" or {augmentations[-1]}"
        with pytest.raises(DataError, match=f"with data.source {source} it must be {right}$"):
            ImageConfig(source=source, augmentation=augmentation)


def test_an_unknown_augmentation_is_refused():
    said = "^data.augmentation is 'mixup'; it must be inception, crop_flip, flip or none$"
    with pytest.raises(DataError, match=said):
        ImageConfig(augmentation="mixup")


def test_the_crop_may_be_as_large_as_what_it_is_cut_from():
    assert ImageConfig(image_size=256, eval_resize=256).eval_resize == 256
    with pytest.raises(DataError, match=r"eval_resize is 255; .* data.image_size, 256"):
        ImageConfig(image_size=256, eval_resize=255)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"eval_fraction": 1.0}, r"data\.eval_fraction is 1\.0; it must lie in \(0, 1\)"),
        ({"target": "label"}, r"data\.target is 'label'; it must be class or number"),
        ({"on_bad_row": "drop"}, r"data\.on_bad_row is 'drop'; it must be error or skip"),
        ({"encoding": "utf-9"}, r"data\.encoding is 'utf-9'; it must be an encoding that Python knows"),
        ({"text_field": " "}, r"data\.text_field is ' '; it must be a text that isn't empty"),
        ({"source": []}, r"data\.source is \[\]; it must name one at least"),
        ({"eval_source": []}, r"data\.eval_source is \[\]; it must name one at least"),
        ({"labels": []}, r"data\.labels is \[\]; it must name one at least"),
        ({"labels": ["a"]}, r"data\.labels is \['a'\]; it must name two classes at least, each once"),
        ({"labels": ["a", "b", "a"]}, r"data\.labels is .*; it must name two classes at least, each once"),
        ({"label_field": "text"}, r"data\.label_field: text, text must be fields of their own"),
        ({"pair_field": "label"}, r"data\.label_field: text, label, label must be fields of their own"),
        (
            {"other_eval": {"eval": "a.csv"}},
            r"data\.other_eval\.eval: a name has letters, digits, _ and -, and",
        ),
        ({"other_eval": {"a/b": "a.csv"}}, r"data\.other_eval\.a/b: a name has letters"),
        (
            {"other_eval": {"x": 3}},
            r"data\.other_eval\.x is 3; it must name files, or a split of a Hub data set",
        ),
        ({"other_eval": {"x": []}}, r"data\.other_eval\.x is \[\]; it must name files"),
    ],
)
def test_what_a_config_of_labelled_text_refuses(values, said):
    with pytest.raises(DataError, match=f"^{said}"):
        LabelledConfig(**values)


def test_an_other_set_is_left_out_by_null():
    assert LabelledConfig(other_eval={"x": None, "y": "a.csv"}).other_eval == {"y": "a.csv"}
