"""What is added to a document's token ids: its domain's tag, its end, and the anchor of its window."""
