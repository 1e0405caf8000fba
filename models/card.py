"""The model card of a saved model."""

import json
from importlib.metadata import version
from typing import Any

from cadenza.surgery.ledger import Entry, history
from cadenza.surgery.retype import is_of_transformers, stock_class

TASKS = {
    "ForMaskedLM": "fill-mask",
    "ForCausalLM": "text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}

CARD = """\
---
library_name: transformers
tags:
- cadenza
{task}---

# {name}

{stock} after surgery with cadenza {version}, {parameters:,} parameters.

| surgery | options | stock code computes the same |
|---|---|---|
{rows}

{facts}## Use

```python
{use}
```
"""

USE_STOCK = """\
from transformers import {auto}

model = {auto}.from_pretrained("{name}")  # stock transformers computes the same"""

USE_LIBRARY = """\
from transformers import {auto}

model = {auto}.from_pretrained("{name}")  # needs bitsandbytes and accelerate, and computes the same"""

USE_CADENZA = """\
import cadenza.models  # lets transformers load it; without, pass trust_remote_code=True
from transformers import {auto}

model = {auto}.from_pretrained("{name}")"""

USE_OWN = """\
import {module}  # it defines the class {stock}
from cadenza.models import load

model = load("{name}")"""


def card(model: Any, name: str, facts: dict[str, Any], format: str | None = None) -> str:
    """Markdown with the model's class, its surgeries, how to load it, and `facts` about its training.

    Args:
        format: a library whose layout the folder has, so that stock code computes the same with it.
    """
    entries = history(model)
    stock = type(model).__name__
    heads = [head for head in TASKS if stock.endswith(head)]
    use = USE_STOCK if all(entry.keeps_outputs for entry in entries) else USE_CADENZA
    use = USE_LIBRARY if format else use
    use = use if is_of_transformers(stock_class(model)) else USE_OWN
    return CARD.format(
        name=name,
        stock=stock,
        version=version("cadenza"),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        task=f"pipeline_tag: {TASKS[heads[0]]}\n" if heads else "",
        rows="\n".join(_row(entry, format) for entry in entries),
        facts="".join(f"- {key}: {value}\n" for key, value in facts.items()) + "\n" * bool(facts),
        use=use.format(
            auto=f"AutoModel{''.join(heads)}", name=name, stock=stock, module=type(model).__module__
        ),
    )


def _row(entry: Entry, format: str | None) -> str:
    options = ", ".join(f"{key}: {json.dumps(value)}" for key, value in entry.options.items())
    without = f"with {format}" if format else "no"
    return f"| {entry.name} | {options} | {'yes' if entry.keeps_outputs else without} |"
