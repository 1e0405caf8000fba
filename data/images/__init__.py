"""Images: from sources to batches."""
