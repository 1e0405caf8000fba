"""Token ids of a finite source on disk: made once, memory-mapped by every process."""
