"""Prints the table of attention kernels."""

from cadenza.attention.kernels.table import table

print(table())
