"""Model cards, word by word."""

from importlib.metadata import version

import pytest
import torch
import transformers
from families import build

from cadenza.algorithms import apply_alibi, apply_glu, apply_sparse_prediction, apply_unpadding
from cadenza.models.card import card

CARD = """\
---
library_name: transformers
tags:
- cadenza
pipeline_tag: fill-mask
---

# some name

BertForMaskedLM after surgery with cadenza {version}, {parameters:,} parameters.

| surgery | options | stock code computes the same |
|---|---|---|
| GLU | variant: "reglu", intermediate_size: 96 | no |
| Unpadding |  | yes |

- batches: 1,000

## Use

```python
import cadenza.models  # lets transformers load it; without, pass trust_remote_code=True
from transformers import AutoModelForMaskedLM

model = AutoModelForMaskedLM.from_pretrained("some name")
```
"""


def test_a_card():
    model = build("bert")
    apply_glu(model, "reglu", 96)
    apply_unpadding(model)
    count = sum({id(p): p.numel() for p in model.parameters()}.values())
    expected = CARD.format(version=version("cadenza"), parameters=count)
    assert card(model, "some name", {"batches": "1,000"}) == expected
    assert card(model, "some name", {}) == expected.replace("- batches: 1,000\n\n", "")


def test_the_card_of_a_model_that_stock_code_loads():
    model = build("bert")
    apply_sparse_prediction(model)
    said = card(model, "name", {})
    assert 'AutoModelForMaskedLM.from_pretrained("name")  # stock transformers computes the same' in said
    assert "import cadenza" not in said
    apply_alibi(model)
    assert "import cadenza.models" in card(model, "name", {}), "one that changes outputs is enough"


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("BertForMaskedLM", "fill-mask"),
        ("LlamaForCausalLM", "text-generation"),
        ("BertForSequenceClassification", "text-classification"),
        ("BertForTokenClassification", "token-classification"),
        ("BertForQuestionAnswering", "question-answering"),
        ("BertModel", None),
    ],
)
def test_the_task_of_a_card(name, task):
    cls = getattr(transformers, name)
    with torch.device("meta"):
        model = cls(cls.config_class(num_hidden_layers=1))
    said = card(model, "name", {})
    (use,) = (line for line in said.splitlines() if line.startswith("model = "))
    if task is None:
        assert "pipeline_tag" not in said
        assert use.startswith("model = AutoModel.from_pretrained")
    else:
        assert f"- cadenza\npipeline_tag: {task}\n---\n" in said
        assert use.startswith(f"model = AutoModelFor{name.partition('For')[2]}.from_pretrained")
