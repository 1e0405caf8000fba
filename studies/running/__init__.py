"""How a study runs: in cells that are done once, and jobs that run side by side."""
