"""Test-wide settings: two workers share two cores, so each computes with one thread."""

import importlib.util
import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
import torch.utils.data
from paths import ROOT

torch.set_num_threads(1)
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = (
    0.2  # 5 s is what each worker of a dropped loader is waited for
)
if not torch.cuda.is_available():
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # else composer's import starts a pool of compilers
    os.environ["TRITON_INTERPRET"] = (
        "1"  # programs in Triton run in its interpreter; read when it is imported
    )


def pytest_collection_modifyitems(items):
    """GPU tests without a GPU are skipped, and say so."""
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):  # not `keywords`, in which folders count, too
            item.add_marker(pytest.mark.skip(reason="NOT VERIFIED HERE: needs a CUDA device"))


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem):
    """Where bitsandbytes, an extra, isn't installed, tests that end for its sake are skipped, and say so."""
    try:
        return (yield)
    except Exception as error:
        if "bitsandbytes" not in str(error) or importlib.util.find_spec("bitsandbytes"):
            raise
        pytest.skip("NOT VERIFIED HERE: needs bitsandbytes")


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """`train.precision: auto` means fp32 on any CPU: it isn't timed."""
    from cadenza.recipe.cpu import precision

    monkeypatch.setattr(precision, "speed", lambda: 1.0)


@pytest.fixture
def fresh_graphs():
    """Graphs that others compiled don't count against what torch compiles at most of one function."""
    torch._dynamo.reset()


@pytest.fixture
def text(tmp_path, monkeypatch):
    """A file of documents in English of a kind; what is cached for it lies beside it."""
    monkeypatch.setenv("CADENZA_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "text.jsonl"
    line = '{{"text": "number {0} is {1} more than {2} and so on up to {0} {0} {0}"}}\n'
    path.write_text("".join(line.format(n * n, n % 7, n) * (1 + n % 3) for n in range(60)))
    return path


@pytest.fixture
def recipe(request, text, tmp_path):
    """The test module's RECIPE, of seconds, over lines of text, with everything it writes under tmp_path."""
    from cadenza.recipe import load

    file = tmp_path / "tiny.yaml"
    file.write_text(request.module.RECIPE)
    common = [f"data.source={text}", f"train.run_folder={tmp_path / 'runs'}"]
    return lambda *overrides: load([str(file)], common + list(overrides))


@pytest.fixture(scope="session")
def main():
    """The command line of train.py; gives its exit code."""
    path = ROOT / "train.py"
    spec = importlib.util.spec_from_file_location("cadenza_train_script", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main
