"""The loss of a language model without its logits: the output layer computes the loss itself."""
