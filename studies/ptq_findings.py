"""The report of a PTQ sweep: tables, plots, and which findings of arXiv 2309.05210 hold on its models."""

from pathlib import Path
from statistics import fmean, median

from cadenza.studies import report

TEXT = ("model", "format", "settings")
FOUR_BIT = ("nf4", "nf4-dq", "fp4", "fp4-dq")


def as_numbers(rows: list[report.Row]) -> list[report.Row]:
    """The rows of a CSV file, with numbers in place of their texts."""
    return [{k: v if k in TEXT else float(v) for k, v in row.items()} for row in rows]


def write(folder: Path, rows: list[report.Row]) -> None:
    """Write `ptq_sweep.md`, and for each model plots of error by temperature and of speed by memory."""
    models = dict.fromkeys(row["model"] for row in rows)
    pages = [_page(folder, model, [row for row in rows if row["model"] == model]) for model in models]
    (folder / "ptq_sweep.md").write_text("\n\n".join(["# Post-training quantization", *pages]) + "\n")
    print(f"written: {folder / 'ptq_sweep'}.csv, .md", flush=True)


def _page(folder: Path, model: str, rows: list[report.Row]) -> str:
    short = model.rstrip("/").rpartition("/")[2]
    by_format, by_temperature = summary(rows, ("format",)), summary(rows, ("format", "temperature"))
    error = [row for row in by_temperature if row["format"] != "none"]
    if error:
        report.write(folder, f"ptq_error_{short}", error, "temperature", "kl", "format", log="y")
    speed = [{**row, "weight_MB": round(row["weight_bytes"] / 1e6, 1)} for row in by_format]
    axes = "weight_MB", "decode_tokens_per_second", "format"
    report.write(folder, f"ptq_speed_{short}", speed, *axes, log="")
    measures = _measures(by_format)
    tables = [
        report.table(
            ["format", *measures], [[r["format"], *(f"{r[m]:.4g}" for m in measures)] for r in by_format]
        ),
        *(report.markdown(by_temperature, "temperature", y, "format") for y in ("kl", "generated_nll")),
    ]
    return "\n\n".join([f"## {short}", *tables, "\n".join(findings(rows))])


def summary(rows: list[report.Row], keys: tuple[str, ...]) -> list[report.Row]:
    """One row for each combination of values of `keys`: medians of speeds, means of all other measures."""
    groups: dict[tuple, list[report.Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return [
        {
            **dict(zip(keys, group, strict=True)),
            **{k: _average(k, [r[k] for r in members]) for k in _measures(rows)},
        }
        for group, members in groups.items()
    ]


def findings(rows: list[report.Row]) -> list[str]:
    """The paper's findings, each with the numbers for or against it."""
    kl = {(r["format"], r["temperature"]): r["kl"] for r in summary(rows, ("format", "temperature"))}
    speed = {r["format"]: r["decode_tokens_per_second"] for r in summary(rows, ("format",))}
    temperatures = sorted({temperature for _, temperature in kl})
    return [
        *_fp4_line(kl, speed, temperatures),
        *_temperature_line(kl, [name for name in FOUR_BIT if name in speed], temperatures),
        *_speed_lines(speed),
    ]


def _fp4_line(kl: dict, speed: dict, temperatures: list[float]) -> list[str]:
    if not {"nf4", "fp4"} <= speed.keys():
        return []
    ratios = [kl["fp4", t] / kl["nf4", t] for t in temperatures]
    close = report.holds(max(ratios) < 1.1 and min(ratios) > 0.9)
    return [
        f"- nf4 = fp4: {close} fp4's KL is {min(ratios):.2f} to {max(ratios):.2f} times nf4's; "
        f"it decodes {speed['fp4'] / speed['nf4']:.2f} times as fast."
    ]


def _temperature_line(kl: dict, formats: list[str], temperatures: list[float]) -> list[str]:
    low = [t for t in temperatures if 0.5 <= t <= 0.8]
    if not formats or not 0 < len(low) < len(temperatures):
        return []
    mean = {t: fmean(kl[name, t] for name in formats) for t in temperatures}
    worst = max(mean, key=lambda t: mean[t])
    shown = ", ".join(f"{mean[t]:.3g} at {t:g}" for t in temperatures)
    return [
        f"- 4-bit models are the more sensitive at temperatures 0.5 to 0.8: {report.holds(worst in low)} "
        f"their mean KL is {shown}."
    ]


def _speed_lines(speed: dict) -> list[str]:
    if not {"none", "int8"} <= speed.keys():
        return []
    order = sorted(speed, key=lambda name: -speed[name])
    shown = ", ".join(f"{name} {speed[name] / speed['none']:.2f}" for name in order)
    slowest, fastest = report.holds(order[-1] == "int8"), report.holds(order[0] == "none")
    return [
        f"- int8 is the slowest: {slowest} decode against unquantized: {shown}.",
        f"- unquantized is the fastest: {fastest}",
    ]


def _measures(rows: list[report.Row]) -> list[str]:
    return [key for key in rows[0] if key not in (*TEXT, "temperature", "top_k", "max_new_tokens")]


def _average(key: str, values: list[float]) -> float:
    return median(values) if key.endswith("per_second") else fmean(values)
