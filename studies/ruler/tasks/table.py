"""The tasks by name, with RULER's parameters (Hsieh et al., arXiv 2404.06654)."""

from cadenza.studies.ruler.tasks.example import Task, any_of
from cadenza.studies.ruler.tasks.frequencies import common_words, frequent_words
from cadenza.studies.ruler.tasks.key_value import key_value
from cadenza.studies.ruler.tasks.needles import LINES, NEEDLES, Needles
from cadenza.studies.ruler.tasks.paragraphs import Paragraphs
from cadenza.studies.ruler.tasks.variables import variable_tracking

FORMAT = 1  # raise it when another text is made of the same material: cells are then done anew
NEEDLE_TOKENS = 128

RULER = {
    "niah_single_1": Task(Needles(LINES), NEEDLE_TOKENS),
    "niah_single_2": Task(Needles(), NEEDLE_TOKENS),
    "niah_single_3": Task(Needles(long_values=True), NEEDLE_TOKENS),
    "niah_multikey_1": Task(Needles(keys=4), NEEDLE_TOKENS),
    "niah_multikey_2": Task(Needles(NEEDLES), NEEDLE_TOKENS),
    "niah_multikey_3": Task(Needles(NEEDLES, long_keys=True, long_values=True), NEEDLE_TOKENS),
    "niah_multivalue": Task(Needles(values=4), NEEDLE_TOKENS),
    "niah_multiquery": Task(Needles(keys=4, asked=4), NEEDLE_TOKENS),
    "vt": Task(variable_tracking, 30),
    "cwe": Task(common_words, 120),
    "fwe": Task(frequent_words, 50),
    "qa_1": Task(Paragraphs("qa_1"), 32, any_of),
    "qa_2": Task(Paragraphs("qa_2"), 32, any_of),
}
QUESTIONS = ("qa_1", "qa_2")  # those that need a file
TASKS = {**RULER, "key_value": Task(key_value, 32)}
