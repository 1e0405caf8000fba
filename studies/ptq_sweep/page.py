"""What the study writes: ptq_sweep.md, which it prints as well, and the plots; CSV files have the cells."""

from pathlib import Path

from cadenza.recipe import record
from cadenza.studies import report
from cadenza.studies.ptq_sweep import estimates, plot
from cadenza.studies.ptq_sweep.estimates import shown
from cadenza.studies.ptq_sweep.findings import findings, front, speed_ratio
from cadenza.studies.ptq_sweep.measures.generated import MEASURES
from cadenza.studies.ptq_sweep.models import simulated
from cadenza.studies.ptq_sweep.results import Results, minus
from cadenza.studies.ptq_sweep.sensitivity import AXES, change, excess
from cadenza.studies.ptq_sweep.settings import PLAIN, Sweep

POINTS = 100  # a probability in percent


def write(cfg: Sweep, results: Results) -> None:
    """Write and print the results."""
    folder = Path(cfg.out)
    page = text(cfg, results)
    (folder / "ptq_sweep.md").write_text(page + "\n", encoding="utf-8")
    drawn = plot.draw(folder, results)
    tables = "prediction.csv, generation.csv, speed.csv"
    print(f"{page}\n\nwritten to {folder}: ptq_sweep.md, {tables}, {', '.join(drawn)}", flush=True)


def text(cfg: Sweep, results: Results) -> str:
    """The page."""
    parts = [about(cfg), "## Findings"]
    for scope, lines in findings(results):
        parts.append(f"### {scope.name}\n\n" + "\n".join(map(str, lines)))
    for model in results.models:
        parts.append(f"## {model}")
        parts += [prediction(results, model, each) for each in results.texts]
        parts += [by_temperature(results, model), generation(results, model)]
        parts += [changes(results, model, name) for name in AXES if len(results.settings(name)) > 1]
        parts += [speed(results, model)] if any(key[0] == model for key in results.speed) else []
    return "\n\n".join(parts)


def about(cfg: Sweep) -> str:
    """What was measured, in a paragraph."""
    without = [form for form in cfg.formats if simulated(form)]
    kernels = f" Simulated here, so that their speed isn't compared: {', '.join(without)}." if without else ""
    commit = (record.commit() or "")[:12]
    return (
        f"{cfg.windows} windows of {cfg.window} tokens of each text; {cfg.prompts} prompts of {cfg.prompt} "
        f"tokens and {len(cfg.seeds)} seeds for each setting; {cfg.dtype}. In brackets: 95 % intervals, over "
        f"windows or over prompts. Nats of generated text are those under the unquantized model.{kernels}"
        f"{f' Commit {commit}.' if commit else ''}"
    )


def prediction(results: Results, model: str, source: str) -> str:
    """The table of a text: bits, KL, probabilities, perplexity."""
    head = [
        "format",
        "bits",
        "weights, MB",
        "KL, nats",
        "KL median",
        "KL 99 %",
        "KL most",
        "RMS Δp, points",
        "mean Δp",
    ]
    head += ["same top, %", "perplexity", "perplexity ratio", "beaten by"]
    beaten = front(results, [model])
    body = []
    for form in (PLAIN, *results.formats([model])):
        row = results.prediction[model, form, source]
        of = {name: results.predicted([model], form, name, [source]) for name in ("kl", "change", "same_top")}
        square = results.predicted([model], form, "square_change", [source])
        own, plain = (results.predicted([model], form, name, [source]) for name in ("nll", "nll_reference"))
        at = row["kl_percentiles"]
        body.append(
            [
                form,
                f"{float(row['bits']):.3f}".rstrip("0").rstrip("."),
                f"{float(row['weight_bytes']) / 1e6:.4g}",
                shown(estimates.mean(of["kl"]), ".3g"),
                *(f"{at[each]:.2g}" for each in ("50", "99", "100")),
                shown(estimates.root(estimates.mean(square)), ".2f", POINTS),
                shown(estimates.mean(of["change"]), "+.2f", POINTS),
                shown(estimates.mean(of["same_top"]), ".1f", POINTS),
                f"{estimates.exp(estimates.mean(own)).mean:.4g}",
                shown(estimates.exp(estimates.mean(minus(own, plain))), ".4f"),
                beaten.get(form, ""),
            ]
        )
    title = f"Prediction on {Path(source).name}, temperature 1:"
    return f"{title}\n\n{report.table(head, body)}"


def by_temperature(results: Results, model: str) -> str:
    """Nats of generated text: the unquantized model's, and how much more those of formats have."""
    values = results.settings("temperature")
    body = []
    for form in (PLAIN, *results.formats([model])):
        cells = []
        for value in values:
            ours, plain = (results.generated([model], f, "nll", temperature=value) for f in (form, PLAIN))
            cells.append(
                shown(estimates.mean(ours), ".3f")
                if form == PLAIN
                else shown(estimates.mean(minus(ours, plain)), "+.3f")
            )
        body.append([form, *cells])
    title = "Nats a token of generated text, by temperature; of formats what they have more than unquantized:"
    return f"{title}\n\n{report.table(['format', *(f'{value:g}' for value in values)], body)}"


def generation(results: Results, model: str) -> str:
    """All measures of generated text, over all settings; of formats minus the unquantized model's."""
    body = []
    for form in (PLAIN, *results.formats([model])):
        ours, plain = (
            {name: results.generated([model], f, name) for name in MEASURES} for f in (form, PLAIN)
        )
        found = [ours[name] if form == PLAIN else minus(ours[name], plain[name]) for name in MEASURES]
        style = ".3f" if form == PLAIN else "+.3f"
        body.append([form, *(shown(estimates.mean(each), style) for each in found)])
    title = "Generated text, over all settings; of formats the difference from unquantized:"
    return f"{title}\n\n{report.table(['format', *MEASURES], body)}"


def changes(results: Results, model: str, name: str) -> str:
    """What the highest value of a setting changes against the lowest; of formats, how much more."""
    values = results.settings(name)
    ends = name, values[0], values[-1]
    body = []
    for form in (PLAIN, *results.formats([model])):
        of = change if form == PLAIN else excess
        found = (estimates.mean(of(results, [model], form, measure, *ends)) for measure in MEASURES)
        body.append([form, *(shown(each, "+.3f") for each in found)])
    title = (
        f"Change with {name} from {values[0]:g} to {values[-1]:g}; of formats the excess over unquantized's:"
    )
    return f"{title}\n\n{report.table(['format', *MEASURES], body)}"


def speed(results: Results, model: str) -> str:
    """Speeds, and their ratios to the unquantized model's, by batch size."""
    head = [
        "format",
        "batch",
        "prefill tokens/s",
        "against unquantized",
        "decode tokens/s",
        "against unquantized",
    ]
    body = []
    for (owner, form, batch), row in results.speed.items():
        if owner == model:
            cells = [
                cell
                for name in ("prefill", "decode")
                for cell in (
                    f"{estimates.middle(row[name]).mean:.4g}",
                    shown(speed_ratio(row, name), ".2f"),
                )
            ]
            body.append([form, str(batch), *cells])
    return f"Speed: medians over rounds, in turns with the unquantized model:\n\n{report.table(head, body)}"
