"""Files opened for reading, decompressed on the way, and the errors of that."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, Any

from cadenza.data.errors import DataError, one_line
from cadenza.data.text.files.encodings import KEPT, codec
from cadenza.data.text.files.kinds import compression_of
from cadenza.data.text.files.streams import StreamReader

Watch = Callable[[IO[bytes]], None] | None  # is handed the file as it stands on the disk
DAMAGED = (EOFError, zlib.error, lzma.LZMAError)


@contextmanager
def named(path: str, key: str, place: Any) -> Iterator[None]:
    """Turn what goes wrong while `path` is read into a `DataError`; `place.last` is what was read before."""
    try:
        yield
    except (*DAMAGED, OSError) as error:
        compression = compression_of(path)
        if isinstance(error, OSError) and (error.errno is not None or not compression):
            raise DataError(f"{key}: {path} can't be read ({one_line(error)})") from error
        if "too much memory" in str(error):
            window = "has a window above 128 MB; compress it anew, without --long"
            raise DataError(f"{key}: {path} {window} ({one_line(error)})") from error
        problem = f"is cut short or no {compression} file after {place.last}"
        raise DataError(f"{key}: {path} {problem} ({one_line(error)}); fetch it again") from error


@contextmanager
def opened(path: str, watch: Watch = None) -> Iterator[Any]:
    """The bytes of the file at `path`, decompressed while they are read."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(0, "not a regular file")
    compression = compression_of(path)
    if compression and os.path.getsize(path) == 0:
        raise EOFError("no bytes at all")  # some decompressors read it as a file without lines
    with open(path, "rb") as file, _decompressed(file, compression) as stream:
        if watch is not None:
            watch(file)
        yield stream


@contextmanager
def decoded(
    path: str, encoding: str, where: str, newline: str | None, watch: Watch = None
) -> Iterator[io.TextIOWrapper]:
    """The text of the file at `path`, without its byte order mark; bytes that don't fit are marked.

    Args:
        encoding: the value of `data.encoding`.
        where: how an error message begins.
        newline: as in `open`: "\\n" splits there alone, None also at "\\r" and "\\r\\n", which become "\\n".
    """
    with opened(path) as file:
        name = codec(encoding, file.read(4), where)
    with opened(path, watch) as file:
        yield io.TextIOWrapper(file, name, KEPT, newline)


@contextmanager
def seekable(path: str, watch: Watch = None) -> Iterator[IO[bytes]]:
    """The same, for formats that are read from the end; what was compressed goes to a temporary file."""
    with opened(path, watch) as stream:
        if not compression_of(path):
            yield stream
            return
        with tempfile.TemporaryFile() as file:
            shutil.copyfileobj(stream, file, 1 << 20)
            file.seek(0)
            yield file


def _decompressed(file: io.BufferedReader, compression: str) -> Any:
    if not compression:
        return file
    if compression == "gzip":
        return gzip.GzipFile(fileobj=file)
    if compression == "bz2":
        return io.BufferedReader(StreamReader(file, bz2.BZ2Decompressor, padding=b""))
    if compression == "xz":
        return io.BufferedReader(StreamReader(file, lzma.LZMADecompressor, padding=b"\0\0\0\0"))
    import pyarrow as pa

    raw: Any = pa.CompressedInputStream(file, compression)
    return io.BufferedReader(raw)
