"""What was prepared so far: files of rows, and a journal that is replaced whole."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from cadenza.data.errors import DataError, one_line
from cadenza.data.text.prepared.rows import Rows, write

STEP = 1 << 20  # tokens after which what was prepared is written down, at first
ALIKE = 16  # files of a size; the next ones are larger: 1 GB of text gives about 90 files, 100 GB about 900
NAME = "prepared.json"


@dataclass
class Part:
    """The counts of the training or the evaluation part."""

    files: int = 0
    documents: int = 0
    rows: int = 0
    tokens: int = 0
    unknown: int = 0


@dataclass
class Journal:
    """The state of a folder of prepared rows.

    Args:
        made_of: what the rows depend on, to look at.
        read: documents of the source that are prepared.
        said: lines about the source that a user is to see, such as rows left out.
        domains: the names of domains, by the numbers that rows have.
    """

    made_of: dict
    read: int = 0
    said: list[str] = field(default_factory=list)
    parts: dict[str, Part] = field(default_factory=dict)
    domains: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, folder: Path) -> "Journal | None":
        """The journal of `folder`; None if there is none."""
        try:
            values = json.loads((folder / NAME).read_text())
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise damaged(folder, error) from error
        parts = {name: Part(**counts) for name, counts in values.pop("parts").items()}
        return cls(**values, parts=parts)

    def save(self, folder: Path) -> None:
        """Replace the journal of `folder`."""
        temporary = folder / f"{NAME}.writing"
        temporary.write_text(json.dumps(asdict(self), indent=1))
        temporary.replace(folder / NAME)

    def rows(self, folder: Path, part: str, documents: int | None) -> Rows:
        """The rows of `part`; `documents` as in `Rows`."""
        paths = [_path(folder, part, number) for number in range(self.parts[part].files)]
        try:
            return Rows(paths, documents, self.domains)
        except (OSError, KeyError, pa.ArrowException, StopIteration) as error:
            raise damaged(folder, error) from error


def damaged(folder: Path, error: Exception) -> DataError:
    """What to say of a folder that can't be read."""
    return DataError(f"data.cache_dir: {folder} is damaged ({one_line(error)}); remove it")


class Writer:
    """Adds rows to a folder: to its files and its journal, a step at a time.

    A process that is killed leaves the files and the journal of the last step.
    """

    def __init__(self, folder: Path, journal: Journal) -> None:
        self.folder, self.journal, self.held = folder, journal, 0
        self.waiting: dict[str, tuple[list[np.ndarray], list[int], list[int]]] = {}
        self.domains = {name: number for number, name in enumerate(journal.domains)}

    def add(
        self, part: str, ids: np.ndarray, rows: list[np.ndarray], unknown: int, domain: str | None = None
    ) -> None:
        """Add the `rows` of a document of the tokens `ids`, of which `unknown` are unknown."""
        counts = self.journal.parts.setdefault(part, Part())
        waiting, numbers, domains = self.waiting.setdefault(part, ([], [], []))
        waiting += rows
        numbers += [counts.documents] * len(rows)
        domains += [] if domain is None else [self._number(domain)] * len(rows)
        counts.documents += 1
        counts.rows += len(rows)
        counts.tokens += len(ids)
        counts.unknown += unknown
        self.journal.read += 1
        self.held += len(ids)
        if self.held >= STEP * (1 + self.journal.parts["train"].files // ALIKE):
            self.flush()

    def _number(self, domain: str) -> int:
        """The number of a domain; a new one gets the next."""
        if domain not in self.domains:
            self.domains[domain] = len(self.domains)
            self.journal.domains.append(domain)
        return self.domains[domain]

    def flush(self) -> None:
        """Write down what was added."""
        for part, (rows, numbers, domains) in self.waiting.items():
            counts = self.journal.parts[part]
            write(_path(self.folder, part, counts.files), rows, numbers, domains)
            counts.files += 1
        self.journal.save(self.folder)
        self.waiting, self.held = {}, 0


def _path(folder: Path, part: str, number: int) -> Path:
    return folder / f"{part}-{number:05d}.arrow"
