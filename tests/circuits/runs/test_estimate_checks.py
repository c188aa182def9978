"""`verify --dry-run` and `ablate --dry-run`: what is counted, held against what is run."""

import json
import re
import shutil
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from circuits.ablation.faithfulness import default_to
from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import discover
from circuits.edits.ablate import ablate
from circuits.edits.ablation import Ablation
from circuits.edits.edited import graph_left
from circuits.runs.estimate import task_of
from circuits.runs.estimate_checks import estimate_ablation
from circuits.runs.needs_checks import Checked, ablate_passes, verify_passes
from circuits.runs.needs_passes import PassCounter
from circuits.verification.verify import VerifyConfig, verify
from hooked_qwen import bundled
from hooked_qwen.placement import Placement
from tests.circuits.conftest import call
from tests.circuits.runs.test_estimate import cost, model, shapes_of, suite
from tests.toys import toy_prompts

__all__ = ["cost", "model", "suite"]
SINGLE = ("exact effects", "exact edges")
AGAIN = re.compile(r"read (\d+) times more")
ESTIMATORS = ("ig", "ig-inputs", "patching")


class Run:
    """MLPs that were run, and the tokens that went through them, while `counts` says so."""

    mlps = tokens = 0

    def __init__(self, counts=lambda: True):
        self.counts = counts

    @contextmanager
    def watching(self, model):
        def note(_, args, kwargs):
            if not self.counts():
                return
            x = args[0] if args else kwargs["hidden_states"]
            self.mlps += 1
            self.tokens += x.shape[0] * x.shape[1]

        # Hooks before a module, as those after it make a pass run all that it could leave out.
        handles = [b.mlp.register_forward_pre_hook(note, with_kwargs=True) for b in model.blocks]
        try:
            yield self
        finally:
            for handle in handles:
                handle.remove()


def counted(passes, leaving=()):
    """The same as estimated."""
    those = [one for one in passes if one.name not in leaving]
    return sum(one.mlps for one in those), sum(one.tokens for one in those)


def case(model, suite, cost, n, config):
    prompts = toy_prompts(n, length=6)
    analysis = Analysis.of(model, suite, prompts, config)
    found = discover(analysis)
    task = task_of(prompts, config, text=0)
    counter = PassCounter(cost, suite, shapes_of(suite), task)
    groups = [list(found.graph)[:2], [n for n in found.graph if n.kind == "error"][:3]]
    run = Checked(counter=counter, graph=found.graph, ranking=found.ranking, groups=groups)
    return Analysis.of(model, suite, prompts, config), found, run


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("to", ["mean", "zero"])
def test_of_a_pair_every_pass_of_a_quick_verification_is_counted(model, suite, cost, estimator, to):
    """Of one pair every node of the graph moves."""
    config = DiscoverConfig(estimator=estimator, nodes=30, steps=3)
    analysis, found, run = case(model, suite, cost, 1, config)
    asked = VerifyConfig(level="quick", to=to)
    with Run().watching(model) as ran:
        verify(analysis, found.graph, found.ranking, config=asked, groups=run.groups)
    assert counted(verify_passes(run, asked, to)) == (ran.mlps, ran.tokens)


@pytest.mark.parametrize("estimator", ["ig", "ig-inputs"])
def test_all_passes_but_those_of_single_nodes_are_counted(model, suite, cost, estimator):
    """Which nodes others choose for the pool is not known, nor on which prompts a node moves.

    Those passes are told apart by the progress, and from gradients between them by having none.
    """
    stage = [""]

    def report(what, done, total, note=""):
        stage[0] = "" if (what, done) == ("exact edges", total) else what

    single = Run(lambda: stage[0] in SINGLE and not torch.is_grad_enabled())
    config = DiscoverConfig(estimator=estimator, nodes=20, steps=3, batch_size=4)
    analysis, found, run = case(model, suite, cost, 7, config)
    asked = VerifyConfig(draws=2)
    to = default_to(analysis.prompts)
    with Run().watching(model) as ran, single.watching(model):
        verify(analysis, found.graph, found.ranking, config=asked, groups=run.groups, report=report)
    passes = verify_passes(run, asked, to)
    expected = counted(passes, leaving=SINGLE)
    assert expected == (ran.mlps - single.mlps, ran.tokens - single.tokens)
    of_nodes = counted([one for one in passes if one.name in SINGLE])
    assert single.tokens <= of_nodes[1] < 2 * single.tokens


@pytest.mark.parametrize("metric", ["logit-difference", "log-probability"])
@pytest.mark.parametrize("to", ["mean", "patch"])
@pytest.mark.parametrize("estimator", ["ig", "patching"])
def test_the_passes_of_an_ablation_are_counted(model, suite, cost, estimator, to, metric):
    config = DiscoverConfig(estimator=estimator, nodes=20, steps=3, batch_size=4, metric=metric)
    analysis, found, run = case(model, suite, cost, 7, config)
    edit = Ablation(ablated=tuple(n for n in found.graph if n.kind == "feature")[:3], to=to)
    with Run().watching(model) as ran:
        result = ablate(analysis, edit, found.ranking)
        graph_left(analysis, edit, found.graph)
    assert len(result["controls"]) == 2, "both kinds are there"
    assert counted(ablate_passes(run, edit)) == (ran.mlps, ran.tokens)


def test_to_ablate_all_outside_the_graph_has_one_kind_of_control(model, suite, cost):
    config = DiscoverConfig(estimator="patching", nodes=20, reference="mean")
    analysis, found, run = case(model, suite, cost, 3, config)
    edit = Ablation(kept=tuple(n for n in found.graph if n.kind != "logit"), to="zero")
    with Run().watching(model) as ran:
        ablate(analysis, edit, found.ranking)
        graph_left(analysis, edit, found.graph)
    assert counted(ablate_passes(run, edit)) == (ran.mlps, ran.tokens)


def test_batches_that_are_not_kept_are_run_for_every_loop_over_the_prompts(model, suite, cost):
    config = DiscoverConfig(estimator="patching", nodes=10, batch_size=2)
    _, _, run = case(model, suite, cost, 6, config)
    asked = VerifyConfig(level="quick")

    def states(memory):
        passes = verify_passes(replace(run, memory=memory), asked, "zero")
        return next(one for one in passes if one.name == "states of the prompts")

    # Clean and patch of three batches; two ends, one loop for effects and edges, four rows, what
    # each adds, and two for groups.
    assert states(1.0).count == 2 * 3
    assert states(1e-9).count == 2 * 3 * (2 + 1 + 4 + 1 + 2)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run of the bundled model, whose weights are others by now: who loads it is refused."""
    into = tmp_path_factory.mktemp("runs")
    weights = shutil.copytree(bundled.PATH, into / "model") / "model.safetensors"
    rows = [
        {"clean": f"The {noun}s by the bucket", "patch": f"The {noun} by the bucket"}
        for noun in ("judge", "boy")
    ]
    lines = [json.dumps(row | {"answer": " are", "wrong": " is"}) for row in rows]
    (into / "prompts.jsonl").write_text("\n".join(lines))
    done = call(
        *("discover", into / "prompts.jsonl", "--nodes", 10),
        *("--estimator", "patching", "--out", into / "run"),
        *("--model", into / "model", "--dictionaries", "bundled"),
    )
    assert done.exit_code == 0, done.output
    save_file({k: torch.zeros_like(v) for k, v in load_file(weights).items()}, weights)
    return into / "run"


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("verify",), ("exact effects", "controls: faithfulness", "circuits of coordinates")),
        (("verify", "--level", "quick"), ("exact edges", "circuits side by side")),
        (("ablate", "--top", 2), ("prompts under the ablation, and controls", "left: edges")),
    ],
)
def test_the_commands_tell_memory_and_time_and_change_nothing(folder, fails, options, told):
    before = files_in(folder)
    verb, *rest = options
    assert "model" in fails(verb, folder, *rest)
    done = call(verb, folder, *rest, "--dry-run")
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    for words in (*told, "passes of the model", "2 prompts of 5 tokens:", "at most on cpu"):
        assert words in said
    assert files_in(folder) == before


def test_an_ablation_reads_the_dictionaries_of_its_sites_and_what_is_left_all(folder):
    def read_again(memory, **asked):
        done = estimate_ablation(folder, **asked, placement=Placement(memory=memory))
        (again,) = (int(found[1]) for item in done.times if (found := AGAIN.match(item.note)))
        return again

    # In 3 MB there is room for one of them.
    kept, let_go = (read_again(memory, top=1) for memory in (3e-3, 1e-9))
    assert 0 < kept < let_go < read_again(1e-9, outside=True)


def test_held_out_prompts_are_counted_too(folder):
    done = call("verify", folder, "--held-out", folder.parent / "prompts.jsonl", "--dry-run")
    assert "held-out prompts" in done.output


def test_what_is_refused_is_refused_before_it_is_begun(folder, fails):
    dry = "--dry-run"
    assert "no --graph" in fails("verify", folder, "--graph", folder / "graph.json", dry)
    assert "expected --top 1 to" in fails("ablate", folder, "--top", 1000, dry)
    assert "prompts have positions 0 to 4" in fails(
        "ablate", folder, "--features", "mlp_out.3/8@9", dry
    )


def test_checks_of_a_replacement_graph_are_not_told(folder, fails, tmp_path):
    out, prompts = tmp_path / "run", folder.parent / "prompts.jsonl"
    done = call("discover", prompts, "--method", "replacement", "--nodes", 5, "--out", out)
    assert done.exit_code == 0, done.output
    assert "whose verify is not estimated" in fails("verify", out, "--dry-run")
