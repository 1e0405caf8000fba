"""Files of text in every kind and compression, and what a config reads from them."""

import bz2
import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet

from cadenza.data import TextConfig, documents

GOOD = [f"the cat {n} sat,\ton a \u201cmat\u201d" for n in range(5)]


def zstd(content):
    return pa.Codec("zstd").compress(content, asbytes=True)


def gzipped(content):
    return gzip.compress(content, mtime=0)


COMPRESSED = {"": bytes, ".gz": gzipped, ".zst": zstd, ".bz2": bz2.compress, ".xz": lzma.compress}


def lines(texts=GOOD, **more):
    return "".join(json.dumps({"text": text, **more}) + "\n" for text in texts).encode()


def table(texts, delimiter):
    cells = ('"' + text.replace('"', '""') + '"' for text in texts)
    rows = "".join(f"{n}{delimiter}{cell}\n" for n, cell in enumerate(cells))
    return f"id{delimiter}text\n{rows}".encode()


def columns(texts):
    return pa.table({"id": range(len(texts)), "text": texts})


def parquet_bytes(made):
    sink = pa.BufferOutputStream()
    parquet.write_table(made, sink)
    return sink.getvalue().to_pybytes()


def ipc_bytes(made, stream=False):
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_stream if stream else pa.ipc.new_file)(sink, made.schema) as writer:
        writer.write_table(made)
    return sink.getvalue().to_pybytes()


# The end of a name, and the bytes of a file of these texts. `.txt` is one document.
KINDS = {
    ".jsonl": lines,
    ".json": lambda texts: json.dumps([{"text": text} for text in texts], indent=1).encode(),
    "-lines.json": lines,
    ".csv": lambda texts: table(texts, ","),
    ".tsv": lambda texts: table(texts, "\t"),
    ".parquet": lambda texts: parquet_bytes(columns(texts)),
    ".arrow": lambda texts: ipc_bytes(columns(texts)),
    "-stream.arrow": lambda texts: ipc_bytes(columns(texts), stream=True),
}


def read(path, content=None, **options):
    """The documents of `path`, a file to which `content` is written first."""
    if content is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)
    return documents(TextConfig(eval_source=str(path), **options), train=False)
