"""How a decoder's context is best extended: modes of attention, weights of the loss, positions taken away.

1. `settings`: what is compared. `text`: prose with keys and values in it, for training and for scores.
2. `plan`: cells. For each seed one model on short windows, and from it one of each row.
3. `cell`: trains and scores a cell in a process of its own.
4. `positions`, `recall`: the scores; `tasks` hands the models to `cadenza.studies.ruler`.
5. `results`, `report`, `plot`: means over seeds, differences with intervals, a page and a figure.
"""
