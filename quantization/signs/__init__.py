"""Which inputs of layers are never negative, read off graphs of torch.fx."""
