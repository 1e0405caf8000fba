"""How wrong is the score of two rotated vectors, by the way they are rotated?

The relative RMS error of q.k against float64 at growing positions, and the change of q.k when both positions
are shifted. (arXiv 2411.13476 looks at the change alone, which doesn't show a consistently wrong frequency.)

With --model and --text, that paper's D on a model: how much do attention probabilities change when all
positions are shifted (equation 4, with the absolute value inside and outside the sum over rows), and the
scores of the first key (equation 5)? The model runs layer by layer with both positions at once, and only a
block of rows of one layer's probabilities exists at a time. A stopped run resumes.
"""
