"""The command line: python -m cadenza.studies.rope_precision [--model FOLDER --text FILE]."""

import sys
from typing import Any

import torch

import cadenza.studies.rope_precision as package
from cadenza.models.pretrained import model_folder
from cadenza.options import Range
from cadenza.studies import report
from cadenza.studies.checks import StudyError, causal, count, guarded, number, plots
from cadenza.studies.rope_precision import figures, measuring, memory, summary
from cadenza.studies.rope_precision.loading import MODES, outline
from cadenza.studies.rope_precision.rotations import errors
from cadenza.studies.rope_precision.texts import texts

PAPER = (0, 2, 4, 6, 8, 10, 12, 14, 15, 17, 18, 20, 22, 50, 100, 200, 500, 1000, 2000)
PAPER_AGAINST = 16


def main() -> int:
    """Run the command line and return the exit code."""
    parser = report.parser("rope_precision", package.__doc__)
    parser.add_argument("--theta", type=number(Range("[1, 1e12]")), nargs="+", default=[1e4, 5e5])
    parser.add_argument("--pairs", type=count(), default=20_000, help="vectors (default: %(default)s)")
    parser.add_argument("--model", help="for D: folder or run of a causal model with rotary positions")
    parser.add_argument("--text", help="for D: a file, a folder, a glob, or python_docs")
    _of_d(parser.add_argument_group("options of D"))
    chosen = parser.parse_args()
    if (chosen.model is None) != (chosen.text is None):
        parser.error("--model and --text go together")
    return guarded(lambda: study(chosen))


def _of_d(group: Any) -> None:
    shifts = group.add_mutually_exclusive_group()
    shifts.add_argument("--shifts", type=count(0), nargs="+", default=[16, 100_000], help="first positions")
    shifts.add_argument("--paper", action="store_true", help=f"the paper's shifts, against {PAPER_AGAINST}")
    group.add_argument("--against", type=count(0), help="first position to compare with (default: 0)")
    group.add_argument("--tokens", type=count(), default=128, help="of a text (default: %(default)s)")
    group.add_argument("--texts", type=count(), default=1, help="pieces of --text (default: %(default)s)")
    group.add_argument("--modes", nargs="+", default=list(MODES)[:3], choices=list(MODES))
    group.add_argument("--device", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    group.add_argument(
        "--memory",
        type=number(Range("(0, 1e6]")),
        default=4.0,
        help="GB that D may take beside the weights; as many shifts run at once (default: %(default)s)",
    )


def study(chosen: Any) -> None:
    """Measure and write the reports; what is named is read first."""
    plots()
    plan = plan_of(chosen) if chosen.model else None
    rows = [row for theta in chosen.theta for row in errors(theta, chosen.pairs)]
    for kind in ("error", "shift"):
        for theta in chosen.theta:
            part = [row for row in rows if row["kind"] == kind and row["theta"] == theta]
            name = f"rope_{kind}_theta_{theta:.0e}".replace("+", "")
            report.write(chosen.out, name, part, "position", "relative error", "mode")
    if plan is not None:
        _measure(plan, chosen)


def plan_of(chosen: Any) -> measuring.Plan:
    """What D is measured on, checked; prints the memory that it needs.

    Raises:
        StudyError: a model without rotary positions, too short a text, too little memory, no such device.
    """
    shifts = tuple(dict.fromkeys(PAPER if chosen.paper else chosen.shifts))
    usual = PAPER_AGAINST if chosen.paper else 0
    against = usual if chosen.against is None else chosen.against
    folder, device = model_folder(chosen.model), _device(chosen.device)
    tokenizer = causal(folder, max(*shifts, against) + chosen.tokens)
    model, at_once = outline(folder), {}
    for mode in dict.fromkeys(chosen.modes):
        dtype = MODES[mode].dtype
        at_once[mode] = memory.at_once(model, len(shifts), chosen.tokens, dtype, chosen.memory * memory.GB)
        print(f"{mode}: {memory.described(model, 1 + at_once[mode], chosen.tokens, dtype)}", flush=True)
    ids = texts(chosen.text, tokenizer, chosen.tokens, chosen.texts)
    return measuring.Plan(folder, ids, against, shifts, at_once, device)


def _device(name: str | None) -> str:
    there = [f"cuda:{n}" for n in range(torch.cuda.device_count())]
    if name is None:
        return "cuda" if there else "cpu"
    if name in ("cpu", *there) or (name == "cuda" and there):
        return name
    raise StudyError(f"--device is {name}; there are {', '.join(['cpu', *there])}")


def _measure(plan: measuring.Plan, chosen: Any) -> None:
    cells = measuring.run(plan, chosen.out / f"rope_D_{chosen.tokens}_cells.csv")
    shifts, places, lengths = (f(cells) for f in (summary.by_shift, summary.by_place, summary.by_length))
    tables = [report.markdown(shifts, "shift", column, "mode") for column in _tables(shifts[0])]
    (chosen.out / "rope_D.md").write_text("\n\n".join(tables) + "\n")
    for name, rows in (("rope_D", shifts), ("rope_D_keys", places), ("rope_D_scores", lengths)):
        report.as_csv(chosen.out / f"{name}.csv", rows)
    figures.draw(chosen.out, shifts, places, lengths)
    print("\n\n".join(tables) + f"\n\nwritten: {chosen.out / 'rope_D'}*.csv, .md, .png", flush=True)


def _tables(row: report.Row) -> list[str]:
    return [column for column in row if column.startswith(("D, ", "first"))]


if __name__ == "__main__":
    sys.exit(main())
