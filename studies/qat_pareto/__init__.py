"""Accuracy against compute cost, by width, depth and bits: is the front mostly 4-bit?

1. `settings.Pareto` holds what is asked for; `points.points` lists the points, `points.Kind` and a seed each.
2. `plan.Plan` gives each point its recipe, by `recipes`, and a folder; `collecting` reads finished runs.
3. `cell.measured` trains a point, or quantizes it after training by `after`; `cost` counts what it computes.
4. `results.Results` compares kinds by seed, `findings` judges the paper's claims, `page` and `plot` show it.
"""
