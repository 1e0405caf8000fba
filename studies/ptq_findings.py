"""What a sweep says: tables, plots, and which findings of arXiv 2309.05210 hold on its models."""

from pathlib import Path
from statistics import fmean, median

from cadenza.studies import report

TEXT = ("model", "format", "settings")
FOUR_BIT = ("nf4", "nf4-dq", "fp4", "fp4-dq")


def as_numbers(rows: list[report.Row]) -> list[report.Row]:
    """The rows of a CSV with their numbers as numbers."""
    return [{k: v if k in TEXT else float(v) for k, v in row.items()} for row in rows]


def write(folder: Path, rows: list[report.Row]) -> None:
    """For each model a summary by format, its error by temperature, speed by memory; one page for all."""
    models = dict.fromkeys(row["model"] for row in rows)
    pages = [_page(folder, model, [row for row in rows if row["model"] == model]) for model in models]
    (folder / "ptq_sweep.md").write_text("\n\n".join(["# Post-training quantization", *pages]) + "\n")
    print(f"written: {folder / 'ptq_sweep'}.csv, .md", flush=True)


def _page(folder: Path, model: str, rows: list[report.Row]) -> str:
    short = model.rstrip("/").rpartition("/")[2]
    by_format, by_heat = summary(rows, ("format",)), summary(rows, ("format", "temperature"))
    error = [row for row in by_heat if row["format"] != "none"]
    if error:
        report.write(folder, f"ptq_error_{short}", error, "temperature", "kl", "format", log="y")
    speed = [{**row, "weight_MB": round(row["weight_bytes"] / 1e6, 1)} for row in by_format]
    name, axes = f"ptq_speed_{short}", ("weight_MB", "decode_tokens_per_second", "format")
    report.write(folder, name, speed, *axes, log="")
    tables = [
        report.markdown(by_heat, "temperature", measure, "format") for measure in ("kl", "generated_nll")
    ]
    return "\n\n".join([f"## {short}", _table(by_format), *tables, "\n".join(findings(rows))])


def summary(rows: list[report.Row], keys: tuple[str, ...]) -> list[report.Row]:
    """One row for each value of `keys`: medians of speeds, means of all else."""
    groups: dict[tuple, list[report.Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        {
            **dict(zip(keys, group, strict=True)),
            **{k: _middle(k, [r[k] for r in members]) for k in _measures(rows)},
        }
        for group, members in groups.items()
    ]


def findings(rows: list[report.Row]) -> list[str]:
    """The paper's findings, each with the numbers that speak for or against it."""
    kl = {(r["format"], r["temperature"]): r["kl"] for r in summary(rows, ("format", "temperature"))}
    speed = {r["format"]: r["decode_tokens_per_second"] for r in summary(rows, ("format",))}
    heats = sorted({heat for _, heat in kl})
    found = []
    if {"nf4", "fp4"} <= speed.keys():
        ratios = [kl["fp4", heat] / kl["nf4", heat] for heat in heats]
        close = _holds(max(ratios) < 1.1 and min(ratios) > 0.9)
        found.append(
            f"- nf4 = fp4: {close} fp4's KL is {min(ratios):.2f} to {max(ratios):.2f} times nf4's; "
            f"it decodes {speed['fp4'] / speed['nf4']:.2f} times as fast."
        )
    low, rest = [h for h in heats if 0.5 <= h <= 0.8], [h for h in heats if not 0.5 <= h <= 0.8]
    four = [name for name in FOUR_BIT if name in speed]
    if low and rest and four:
        mean = {h: fmean(kl[name, h] for name in four) for h in heats}
        worst = max(mean, key=lambda h: mean[h])
        shown = ", ".join(f"{mean[h]:.3g} at {h:g}" for h in heats)
        found.append(
            f"- 4-bit models are the more sensitive at temperatures 0.5 to 0.8: {_holds(worst in low)} "
            f"their mean KL is {shown}."
        )
    if {"none", "int8"} <= speed.keys():
        order = sorted(speed, key=lambda name: -speed[name])
        shown = ", ".join(f"{name} {speed[name] / speed['none']:.2f}" for name in order)
        found.append(
            f"- int8 is the slowest: {_holds(order[-1] == 'int8')} decode against unquantized: {shown}."
        )
        found.append(f"- unquantized is the fastest: {_holds(order[0] == 'none')}")
    return found


def _holds(condition: bool) -> str:
    return "holds here." if condition else "doesn't hold here."


def _measures(rows: list[report.Row]) -> list[str]:
    return [key for key in rows[0] if key not in (*TEXT, "temperature", "top_k", "max_new_tokens")]


def _middle(key: str, values: list[float]) -> float:
    return median(values) if key.endswith("per_second") else fmean(values)


def _table(rows: list[report.Row]) -> str:
    names = _measures(rows)
    body = [[row["format"], *(f"{row[name]:.4g}" for name in names)] for row in rows]
    return "\n".join(
        "| " + " | ".join(line) + " |" for line in [["format", *names], ["---"] * (len(names) + 1), *body]
    )
