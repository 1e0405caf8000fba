"""Files of .bz2 and .xz: one or more streams, each of which must be whole."""

import io
from collections.abc import Callable
from typing import Any

CHUNK = 1 << 16  # compressed bytes that are read together


class StreamReader(io.RawIOBase):
    """The decompressed bytes of `file`.

    Unlike `bz2.BZ2File` and `lzma.LZMAFile`, it doesn't take damage behind a whole stream for the end of the
    file.

    Args:
        decompressor: makes what decompresses one stream.
        padding: bytes that may stand behind a stream, any number of times.
    """

    def __init__(self, file: io.BufferedReader, decompressor: Callable[[], Any], padding: bytes) -> None:
        self.file, self.decompressor, self.padding = file, decompressor, padding
        self.stream, self.rest = decompressor(), b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with at most its length; 0 at the end of the file."""
        while not self.stream.eof or self._begin_another():
            compressed = self._compressed() if self.stream.needs_input else b""
            if found := self.stream.decompress(compressed, len(buffer)):
                buffer[: len(found)] = found
                return len(found)
        return 0

    def _begin_another(self) -> bool:
        """Whether another stream follows."""
        self.rest = self.stream.unused_data or self.rest
        while self.padding and self._start() == self.padding:
            self.rest = self.rest[len(self.padding) :]
        if self._start():
            self.stream = self.decompressor()
        return not self.stream.eof

    def _start(self) -> bytes:
        if len(self.rest) < max(len(self.padding), 1):
            self.rest += self.file.read(CHUNK)
        return self.rest[: max(len(self.padding), 1)]

    def _compressed(self) -> bytes:
        compressed, self.rest = self.rest or self.file.read(CHUNK), b""
        if not compressed:
            raise EOFError("the file ends within a stream")
        return compressed
