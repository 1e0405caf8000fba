"""Fine-tuning on several tasks: GLUE by default, or any labelled files."""
