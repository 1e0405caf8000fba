"""What a recipe's run does on a CPU alone: bfloat16 where it is faster, and freed memory that is kept."""
