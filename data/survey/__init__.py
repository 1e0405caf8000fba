"""What a corpus holds, before it is trained on: counts, lengths, waste, unknown words, examples."""
