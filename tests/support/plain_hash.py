"""The hash behind masks and augmentation, in Python's own whole numbers."""

GAMMA = 0x9E3779B97F4A7C15


def splitmix(state: int) -> int:
    """What SplitMix64 gives from `state`: one step, then the finalizer (Steele, Lea and Flood, figure 17)."""
    z = (state + GAMMA) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)


def plain_uniform(key: int, draw: int, column: int) -> float:
    """A number in [0, 1) of 53 bits for each (key, draw, column)."""
    row = splitmix(splitmix(key) ^ splitmix(draw))
    return (splitmix(row ^ column) >> 11) / 2**53
