"""When a process counts as hung."""

PATIENCE = 3600  # seconds: no test takes a tenth of it on a slow machine that does ten other things
