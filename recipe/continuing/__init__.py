"""What a run needs that goes on from a pretrained model: its surgeries, and losses before and after."""
