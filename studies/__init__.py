"""Studies: `python -m cadenza.studies.NAME --help`. Each writes a CSV file, a plot and a Markdown table."""

__all__: list[str] = []
