"""qa_1 and qa_2: a question, its paragraphs, and other ones of the same file that distract."""

from dataclasses import dataclass

from cadenza.studies.ruler.tasks.example import Draw, Example, Exhausted

ASKED = "Answer the question by the documents. Give the answer alone and no other words."


@dataclass(frozen=True)
class Paragraphs:
    """A question of the file of the task `name`; paragraphs near its own ones are the first to distract."""

    name: str

    def __call__(self, draw: Draw) -> Example:
        """An example with `size` - 1 paragraphs beside the question's own."""
        file = draw.material.questions[self.name]
        question = draw.rng.choice(file.questions)
        near = [each for each in question.near if each not in question.own]
        far = [each for each in range(len(file.paragraphs)) if each not in {*question.own, *near}]
        draw.rng.shuffle(near)
        draw.rng.shuffle(far)
        if draw.size - 1 > len(near) + len(far):
            raise Exhausted
        chosen = [*question.own, *[*near, *far][: draw.size - 1]]
        draw.rng.shuffle(chosen)
        texts = [f"Document {number}:\n{file.paragraphs[each]}" for number, each in enumerate(chosen, 1)]
        context = "\n\n".join(texts)
        return Example(
            f"{ASKED}\n\nThese are the documents.\n\n{context}\n\n{ASKED}\n\n"
            f"Question: {question.text} Answer:",
            question.answers,
        )
