"""The packaged recipes, by what they are of."""

from pathlib import Path

from paths import ROOT

STUDIES = {
    "ablation.yaml",
    "ablation_modern.yaml",
    "glue.yaml",
    "long_context_study.yaml",
    "ptq_sweep.yaml",
    "cpu_ptq.yaml",
    "qat_fidelity.yaml",
    "qat_pareto.yaml",
    "qat_text.yaml",
    "cpu_pareto.yaml",
}  # settings of a study, not of a run
RECIPES = sorted(str(path) for path in (ROOT / "yamls").glob("*.yaml") if path.name not in STUDIES)


def stem(path):
    """A test's name is the same in any checkout."""
    return Path(str(path)).stem
