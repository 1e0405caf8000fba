"""The kinds of files that hold text, by the end of their names, in any case."""

from pathlib import Path

KINDS = (".txt", ".jsonl", ".json", ".csv", ".tsv", ".parquet", ".arrow")
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
NAMES = f"{' '.join(KINDS)}, each plain or with {' '.join(COMPRESSIONS)} behind"


def kind_of(path: str) -> str:
    """The one of `KINDS` in which the name of `path` ends, compressed or not; empty if there is none."""
    ends = [end.lower() for end in Path(path).suffixes[-2:]]
    if ends and ends[-1] in COMPRESSIONS:
        ends.pop()
    return ends[-1] if ends and ends[-1] in KINDS else ""


def compression_of(path: str) -> str:
    """The name of the compression of `path`, such as `gzip`; empty if it is plain."""
    return COMPRESSIONS.get(Path(path).suffix.lower(), "")
