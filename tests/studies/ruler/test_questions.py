"""Files of questions: the forms that are read, what is refused, and prompts made of them."""

import json
import random
import re

import pytest

from cadenza.studies.checks import StudyError
from cadenza.studies.ruler.material import Material
from cadenza.studies.ruler.questions import read
from cadenza.studies.ruler.tasks.example import Draw, Exhausted
from cadenza.studies.ruler.tasks.table import TASKS

ROWS = [
    {"question": f"What is {n}?", "answers": [f"answer {n}", "it"], "context": f"Paragraph {n} is {n}."}
    for n in range(6)
]


@pytest.fixture
def file(tmp_path):
    def file(text):
        path = tmp_path / "questions.json"
        path.write_text(text if isinstance(text, str) else json.dumps(text))
        return str(path)

    return file


def test_lines_of_json_and_a_list_hold_rows(file):
    lines = "\n".join(map(json.dumps, ROWS)) + "\n\n"
    for form in (lines, ROWS):
        found = read(file(form), "qa_1")
        assert found.paragraphs == [row["context"] for row in ROWS]
        assert [q.text for q in found.questions] == [row["question"] for row in ROWS]
        assert found.questions[2].answers == ("answer 2", "it")
        assert found.questions[2].own == (2,)


def test_one_line_is_one_row(file):
    assert len(read(file(json.dumps(ROWS[0])), "qa_1").questions) == 1


def test_rows_may_have_several_paragraphs_that_are_shared(file):
    rows = [
        {"question": "q", "answers": ["a"], "context": ["one", "two"]},
        {"question": "r", "answer": "b", "context": ["two", "three"]},
    ]
    found = read(file(rows), "qa_2")
    assert found.paragraphs == ["one", "two", "three"]
    assert [q.own for q in found.questions] == [(0, 1), (1, 2)]
    assert found.questions[1].answers == ("b",)


def test_squad_s_articles_give_paragraphs_nearby(file):
    def paragraph(text, *asked):
        return {"context": text, "qas": list(asked)}

    right = {"question": "q", "answers": [{"text": "a"}, {"text": "A"}]}
    never = {"question": "r", "answers": [], "is_impossible": True}
    articles = [
        {"paragraphs": [paragraph("one", right, never), paragraph("two")]},
        {"paragraphs": [paragraph("three")]},
    ]
    found = read(file({"data": articles}), "qa_1")
    (question,) = found.questions
    assert (question.answers, question.own, question.near) == (("a", "A"), (0,), (0, 1))
    assert found.paragraphs == ["one", "two"], "an article without questions is none"


def test_hotpotqa_s_rows_have_titles_with_sentences(file):
    row = {"question": "q", "answer": "yes", "context": [["T", ["A. ", "B."]], ["U", ["C."]]]}
    found = read(file([row]), "qa_2")
    assert found.paragraphs == ["T\nA. B.", "U\nC."]
    assert found.questions[0].own == (0, 1)


def test_the_content_decides_the_digest(file):
    first = read(file(ROWS), "qa_1").digest
    assert read(file(ROWS), "qa_1").digest == first != read(file(ROWS[1:]), "qa_1").digest


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no JSON",
        [1],
        [{"question": "q", "answers": ["a"]}],
        [{"question": "q", "answers": "a", "context": "c"}],
        [{"question": "", "answers": ["a"], "context": "c"}],
        [{"question": "q", "answers": [" "], "context": "c"}],
        [{"question": "q", "answers": [1], "context": "c"}],
        [{"question": "q", "answers": ["a"], "context": []}],
        [{"question": "q", "answers": ["a"], "context": [["t", ["s"], "more"]]}],
        [{"question": "q", "answers": [], "context": "c"}],
        {"data": [{"paragraphs": [{"context": "c"}]}]},
        {"data": {}},
    ],
)
def test_what_is_no_question_is_refused(content, file):
    with pytest.raises(
        StudyError, match=r"qa_1: .*questions.json (isn't a file of questions|has no question)"
    ):
        read(file(content), "qa_1")


def test_a_file_that_isn_t_there_is_named(tmp_path):
    with pytest.raises(StudyError, match=r"qa_2: .*none.json can't be read"):
        read(str(tmp_path / "none.json"), "qa_2")


@pytest.fixture
def asked(file):
    found = read(file(ROWS), "qa_1")
    material = Material(("some words here",), {"qa_1": found})
    return lambda size, seed=0: TASKS["qa_1"].make(Draw(random.Random(seed), size, 1024, material))


def test_own_and_other_paragraphs_are_shuffled(asked):
    places = set()
    for seed in range(60):
        example = asked(3, seed)
        number = re.search(r"Question: What is (\d)\? Answer:$", example.prompt)[1]
        held = re.findall(r"^Document (\d):\nParagraph (\d) is", example.prompt, re.M)
        assert [n for n, _ in held] == ["1", "2", "3"]
        assert len({paragraph for _, paragraph in held}) == 3
        assert example.expected == (f"answer {number}", "it")
        places.add([paragraph for _, paragraph in held].index(number))
    assert places == {0, 1, 2}
    assert asked(6)
    with pytest.raises(Exhausted):
        asked(7)


def test_paragraphs_of_the_same_article_come_first(file):
    def article(*texts):
        qas = [{"question": "q", "answers": [{"text": "a"}]}]
        return {"paragraphs": [{"context": text, "qas": qas} for text in texts]}

    far = article(*(f"far {n}" for n in range(20)))
    found = read(file({"data": [article("near 1", "near 2", "near 3"), far]}), "qa_1")
    near = [q for q in found.questions if q.own[0] < 3]
    material = Material(("some words",), {"qa_1": type(found)(near, found.paragraphs, "")})
    for seed in range(5):
        held = TASKS["qa_1"].make(Draw(random.Random(seed), 3, 1024, material)).prompt
        assert re.findall(r"^(near|far)", held, re.M) == ["near"] * 3
