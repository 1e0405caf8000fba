"""Techniques that change the data of a batch, and no module, as training goes on."""
