"""Files of questions: JSON lines of fields, SQuAD's JSON, and HotpotQA's JSON.

A row has the fields `question`, `answers` (a list of ways to say the answer, or one `answer`) and `context`
(a paragraph, or a list of them). SQuAD's form holds articles of paragraphs. HotpotQA's is a list of rows
whose context is a list of titles with sentences.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cadenza.studies.checks import StudyError

RIGHT = "a row has `question`, `answers` and `context`; SQuAD's and HotpotQA's JSON are read as well"


@dataclass(frozen=True)
class Question:
    """A question; `own` are the numbers of its paragraphs, `near` those of others in the same article."""

    text: str
    answers: tuple[str, ...]
    own: tuple[int, ...]
    near: tuple[int, ...] = ()


@dataclass(frozen=True)
class Questions:
    """All questions and different paragraphs of a file, and a hash of its content."""

    questions: list[Question]
    paragraphs: list[str]
    digest: str


Raw = tuple[str, list[str], list[str], list[str]]  # question, answers, its paragraphs, those near them


def read(path: str, key: str) -> Questions:
    """The questions in the file `path`, which `key` of the settings names.

    Raises:
        StudyError: the file can't be read, has another form, or no question that has an answer.
    """
    try:
        content = Path(path).expanduser().read_bytes()
        rows = [row for row in _rows(content.decode()) if row[1]]
    except OSError as error:
        raise StudyError(
            f"{key}: {path} can't be read ({error.strerror}); name a file of questions"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StudyError(f"{key}: {path} isn't a file of questions ({error!r}); {RIGHT}") from error
    if not rows:
        raise StudyError(f"{key}: {path} has no question with an answer; {RIGHT}")
    return _numbered(rows, hashlib.sha256(content).hexdigest()[:16])


def _rows(text: str) -> Iterator[Raw]:
    try:
        content = json.loads(text)
    except ValueError:
        content = [json.loads(line) for line in text.splitlines() if line.strip()]
    if isinstance(content, dict) and "data" in content:
        yield from (row for article in content["data"] for row in _of_article(article))
    else:
        yield from map(_of_row, content if isinstance(content, list) else [content])


def _of_article(article: dict[str, Any]) -> Iterator[Raw]:
    """Those of an article in SQuAD's form; its other paragraphs are near."""
    texts = [_text(paragraph["context"]) for paragraph in article["paragraphs"]]
    for paragraph, own in zip(article["paragraphs"], texts, strict=True):
        for asked in paragraph["qas"]:
            answers = [] if asked.get("is_impossible") else [_text(a["text"]) for a in asked["answers"]]
            yield _text(asked["question"]), answers, [own], texts


def _of_row(row: dict[str, Any]) -> Raw:
    answers = row["answers"] if "answers" in row else [row["answer"]]
    context = [row["context"]] if isinstance(row["context"], str) else row["context"]
    if not isinstance(answers, list) or not isinstance(context, list) or not context:
        raise TypeError("`answers` and `context` must be lists that aren't empty")
    return _text(row["question"]), [_text(each) for each in answers], [_paragraph(c) for c in context], []


def _paragraph(value: Any) -> str:
    """A text, or HotpotQA's title with its sentences."""
    if isinstance(value, str):
        return _text(value)
    title, sentences = value
    return _text(f"{title}\n{''.join(sentences)}")


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{value!r} must be a text that isn't empty")
    return value.strip()


def _numbered(rows: list[Raw], digest: str) -> Questions:
    numbers: dict[str, int] = {}
    for _, _, own, near in rows:
        for text in (*own, *near):
            numbers.setdefault(text, len(numbers))
    found = [
        Question(
            text,
            tuple(answers),
            tuple(numbers[p] for p in own),
            tuple(dict.fromkeys(numbers[p] for p in near)),
        )
        for text, answers, own, near in rows
    ]
    return Questions(found, list(numbers), digest)
