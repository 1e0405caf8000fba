"""The estimate of a device's memory as lines for the screen."""

from cadenza.recipe.memory.estimate import Estimate
from cadenza.recipe.memory.setting import Setting
from cadenza.recipe.schema import ImageRecipe

GIB, MIB = 2**30, 2**20
SAFE = 0.9  # of a device: what isn't counted often takes a tenth
MARGIN = {
    True: "CUDA's context and libraries (about 1 GiB), workspaces of kernels, buffers of collectives, and "
    "what the allocator holds without use",
    False: "Python and libraries (about 1 GiB), workspaces of kernels, and masks of documents",
}


def lines(found: Estimate, available: float | None = None) -> list[str]:
    """The table: a part a line, their sum, and what isn't among them.

    Args:
        available: the GiB of a device, to compare the sum with.
    """
    parts = {f"  {name}": size for name, size in found.parts.items()}
    width = max(len(name) for name in parts)
    unit, unit_name = (MIB, "MiB") if found.total < GIB else (GIB, "GiB")
    rows = [f"{name:<{width}} {size / unit:>9.3f} {unit_name}" for name, size in parts.items()]
    total = f"{'  total':<{width}} {found.total / unit:>9.3f} {unit_name}, at {found.when}"
    fits = [] if available is None else [_fits(found.total / GIB, available)]
    uncounted = f"  not counted: {MARGIN[found.setting.cuda]}"
    return [title(found.setting), *rows, total, *fits, uncounted, *(f"  {note}" for note in found.notes)]


def title(setting: Setting) -> str:
    """What the table is for."""
    kind = "CUDA device" if setting.cuda else "CPU process"
    devices = f"each of {setting.devices} {kind}s" if setting.devices > 1 else f"a {kind}"
    rows = f"{setting.rows} row{'s' * (setting.rows > 1)}"
    if not isinstance(setting.recipe, ImageRecipe):
        rows += f" of {setting.recipe.data.max_seq_len:,} tokens"
    searched = "; `auto` tries more rows" if setting.searched else ""
    return f"memory of {devices}, {setting.precision}, micro-batches of {rows}{searched}:"


def _fits(total: float, available: float) -> str:
    if total > available:
        return f"  doesn't fit: a device has {available:.1f} GiB, {total - available:.1f} too few"
    left = f"{available - total:.1f} of {available:.1f} GiB are left for what isn't counted"
    return f"  {'fits' if total <= SAFE * available else 'may not fit'}: {left}"
