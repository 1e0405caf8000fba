"""What a run writes to its folder, and what it says of the run that it goes on from."""
