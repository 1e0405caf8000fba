"""Which classes there are, and in which order."""

from difflib import get_close_matches

from cadenza.data.errors import DataError
from cadenza.data.labelled.config import LabelledConfig
from cadenza.data.labelled.rows import Row
from cadenza.data.labelled.sources import Part

FEW = 20  # distinct labels that are taken for classes in a data set of any size


def labels_of(training: Part, cfg: LabelledConfig) -> list[str]:
    """The names of the classes, in the order of their ids; none of numbers.

    They are `data.labels`, else those that the Hub's data set names, else those of the training rows:
    integers in the order of their values, other names in that of their characters.

    Raises:
        DataError: fewer than two classes, or labels that are hardly classes.
    """
    if not cfg.classes:
        return []
    found = {str(row.label) for row in training.rows}
    if cfg.labels is None and training.names is None:
        _refuse_many(found, training)
    if len(found) < 2:
        problem = f"every training example has the label {min(found)!r}"
        raise DataError(f"data.label_field: {problem}; a classifier needs two classes at least")
    return cfg.labels or training.names or _in_order(found)


def check_labels(part: Part, labels: list[str], option: bool) -> None:
    """Raise `DataError` for a label of `part` that isn't among `labels`; `option`: they are `data.labels`."""
    known = set(labels)
    for row in part.rows:
        if row.label not in known:
            among, right = "data.labels" if option else "the classes", _nearest(str(row.label), labels)
            raise DataError(f"{part.key}: {_place(row)}, which is none of {among}; {right}")


def check_trained(part: Part, training: Part) -> None:
    """Raise `DataError` for a class of `part` that no training row has."""
    known = {row.label for row in training.rows}
    for row in part.rows:
        if row.label not in known:
            right = f"train on it, or leave it out of {part.key}"
            raise DataError(f"{part.key}: {_place(row)}, which no training example has; {right}")


def _refuse_many(found: set[str], training: Part) -> None:
    """Raise for labels that are hardly classes: half as many as examples, or numbers with fractions."""
    numbers = [label for label in found if _is_number(label)]
    numeric = 2 * len(numbers) > len(found)
    fractions = sum("." in label for label in numbers)
    if len(found) <= max(len(training.rows) / 2, FEW) and not (numeric and fractions > FEW):
        return
    problem = f"{training.key} has {len(found):,} different labels in {len(training.rows):,} examples"
    right = "set data.target=number to predict numbers" if numeric else "name the field with the classes"
    raise DataError(f"data.label_field: {problem}; {right}, or list the classes in data.labels")


def _is_number(label: str) -> bool:
    try:
        float(label)
    except ValueError:
        return False
    return True


def _in_order(found: set[str]) -> list[str]:
    if all(label.removeprefix("-").isdecimal() for label in found):
        return sorted(found, key=lambda label: (int(label), label))
    return sorted(found)


def _place(row: Row) -> str:
    return f"{row.place} has the label {row.label!r}"


def _nearest(label: str, labels: list[str]) -> str:
    near = get_close_matches(label, labels, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"valid: {', '.join(labels)}"
