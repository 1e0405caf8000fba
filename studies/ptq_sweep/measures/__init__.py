"""What the study measures: prediction on fixed text, generated text, and speed."""
