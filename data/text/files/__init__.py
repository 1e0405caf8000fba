"""Local files of text: found by path, folder or glob, decompressed, decoded, and read row by row."""
