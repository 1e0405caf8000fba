"""What each technique of a recipe gives at equal steps and at equal time.

1. `settings.Ablation` holds the rows, `recipes.of_rows` loads and checks their recipes.
2. `speed.measure` times the rows' training steps in one process; `speeds.Speeds` reads what it kept.
3. `plan.Plan` turns minutes into steps, and lists the cells: a row, a seed and a number of steps each.
4. `cell.measured` trains a cell: pretraining, then fine-tuning.
5. `results.Results` compares rows, `findings` says what was found, `report` and `plot` write it.
"""
