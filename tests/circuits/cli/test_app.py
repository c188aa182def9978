"""The commands as a user meets them: what they write, and what they say when something is off."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest
import torch

from circuits.runs.finished_run import read_run
from circuits.runs.prompt_sets import make_prompts
from hooked_qwen.bundled import DICTIONARIES, PATH
from hooked_qwen.files import PARTIAL
from hooked_qwen.sites import Site
from saes.suite import load_suite
from tests.circuits.cli.processes import processes
from tests.circuits.conftest import call
from tests.hooked_qwen.test_stream import text
from tests.toys import toy_hf, toy_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One discovered and verified run on the bundled model, shared by the tests."""
    folder = tmp_path_factory.mktemp("cli")
    prompts = folder / "prompts.jsonl"
    make_prompts("agreement_nounpp", 32, split="test", seed=0, model="bundled", out=prompts)
    done = call("discover", prompts, "--out", folder / "run")
    assert done.exit_code == 0, done.output
    done = call("verify", folder / "run", "--level", "quick")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def small(folder):
    """A smaller run, on the first of the prompts; and how it is made again."""
    prompts = folder / "few.jsonl"
    lines = (folder / "prompts.jsonl").read_text().splitlines(keepends=True)
    prompts.write_text("".join(lines[:4]))
    made = ("discover", prompts, "--estimator", "patching", "--nodes", 40)
    done = call(*made, "--out", folder / "few")
    assert done.exit_code == 0, done.output
    return folder / "few", made


@pytest.fixture(scope="module")
def started():
    with processes() as found:
        yield found


def wait_for(folder, pattern=None):
    while not (any(folder.glob(pattern)) if pattern else folder.exists()):
        time.sleep(0.002)


def test_a_run_folder_holds_what_the_contract_says(folder):
    run = folder / "run"
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["model_path"] == str(PATH)
    assert manifest["dictionaries_path"] == str(DICTIONARIES)
    assert manifest["prompts_path"] == str(folder / "prompts.jsonl")
    for name in ("model_hash", "dictionaries_hash", "prompts_hash"):
        assert len(manifest[name]) == 16
    assert manifest["norm_outliers"]["tokens"] > 0
    assert manifest["wall_seconds"] > 0
    assert manifest["peak_memory_mb"] > 0
    graph = json.loads((run / "graph.json").read_text())
    assert graph["schema"] == "feature-graph/1"
    assert sum(n["kind"] in ("feature", "error") for n in graph["nodes"]) == 100
    assert all(n["exact"] is not None for n in graph["nodes"])


def test_a_run_reads_back_with_every_node_that_moves(folder, fails, tmp_path):
    run = read_run(folder / "run")
    effects = dict(run.ranking)
    assert len(effects) > len(run.graph)
    for node, data in run.graph.nodes(data=True):
        assert node.kind == "logit" or effects[node] == data["effect"]
    earlier = tmp_path / "earlier"
    shutil.copytree(folder / "run", earlier)
    (earlier / "ranking.json").write_text('{"strongest": []}')
    assert "run `circuits discover` again" in fails("verify", earlier)


def test_estimates_agree_with_the_oracle_on_the_bundled_model(folder):
    """The strongest hundred nodes: same sign for at least nine in ten, by either estimator."""
    verification = json.loads((folder / "run" / "verification.json").read_text())
    assert verification["nodes"]["n"] >= 100
    assert verification["nodes"]["n_prompts"] >= 30
    assert verification["nodes"]["sign_agreement"] >= 0.9
    out = folder / "patching"
    assert (
        call(
            "discover", folder / "prompts.jsonl", "--estimator", "patching", "--out", out
        ).exit_code
        == 0
    )
    assert call("verify", out, "--level", "quick").exit_code == 0
    verification = json.loads((out / "verification.json").read_text())
    assert verification["nodes"]["n"] >= 100
    assert verification["nodes"]["sign_agreement"] >= 0.9


def test_the_circuit_is_more_faithful_than_random_nodes_by_a_wide_margin(folder):
    curves = json.loads((folder / "run" / "verification.json").read_text())["curves"]
    at = curves["sizes"].index(100)
    circuit = curves["rows"]["circuit"]
    assert circuit["low"][at] > curves["rows"]["random nodes"]["faithfulness"][at] + 0.3
    assert circuit["completeness"][at] < 0.5


def test_exact_effects_of_the_graph_equal_plain_hugging_face_hooks(folder, small):
    """`--estimator exact` recomputed with transformers alone: 1e-4 logits."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, (_, prompts, *_) = folder / "exact", small[1]
    assert call("discover", prompts, "--estimator", "exact", "--out", out).exit_code == 0
    graph = json.loads((out / "graph.json").read_text())
    hf = AutoModelForCausalLM.from_pretrained(PATH, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(PATH)
    suite = load_suite("bundled")
    lines = [json.loads(x) for x in prompts.read_text().splitlines()]
    tokens = {
        name: torch.tensor([tokenizer(x[name])["input_ids"] for x in lines])
        for name in ("clean", "patch")
    }
    right, wrong = (
        torch.tensor([tokenizer(x[name])["input_ids"][0] for x in lines])
        for name in ("answer", "wrong")
    )
    rows = torch.arange(len(lines))

    def module(site):
        layer = hf.model.layers[site.layer]
        return {"resid_post": layer, "attn_out": layer.self_attn, "mlp_out": layer.mlp}[site.kind]

    def run(site, ids, edit=None):
        seen = {}

        def hook(_module, _args, output):
            value = output[0] if isinstance(output, tuple) else output
            seen["x"] = value
            new = value if edit is None else value + edit
            return (new, *output[1:]) if isinstance(output, tuple) else new

        handle = module(site).register_forward_hook(hook)
        with torch.no_grad():
            logits = hf(ids).logits[:, -1]
        handle.remove()
        return logits[rows, right] - logits[rows, wrong], seen["x"]

    nodes = [n for n in graph["nodes"] if n["kind"] in ("feature", "error")][::5]
    for node in nodes:
        site = Site.parse(node["site"])
        dictionary = suite[site]
        before, clean = run(site, tokens["clean"])
        _, patch = run(site, tokens["patch"])
        f_clean, f_patch = (dictionary.encode(x).dense() for x in (clean, patch))
        if node["kind"] == "error":
            change = (patch - f_patch @ dictionary.W_dec) - (clean - f_clean @ dictionary.W_dec)
        else:
            i = node["feature"]
            change = (f_patch - f_clean)[..., i, None] * dictionary.W_dec[i]
        only = torch.zeros_like(change)
        only[:, node["position"]] = change[:, node["position"]]
        after, _ = run(site, tokens["clean"], only)
        assert float((after - before).mean()) == pytest.approx(node["effect"], abs=1e-4), node["id"]


def test_the_same_command_writes_the_same_bytes(small):
    out, made = small
    first = (out / "graph.json").read_bytes()
    assert call(*made, "--out", out).exit_code == 0
    assert (out / "graph.json").read_bytes() == first
    assert b"NaN" not in first


def test_ablating_outside_the_circuit_and_comparing(folder, small):
    run, _ = small
    assert call("ablate", run, "--outside", "--to", "mean", "--name", "only").exit_code == 0
    result = json.loads((run / "ablations" / "only" / "result.json").read_text())
    assert len(result["kept"]) == 40
    assert result["features"] == []
    assert len(result["prompts"]) == 4
    page = folder / "compare.html"
    done = call("compare", run, run / "ablations" / "only", "--out", page)
    assert done.exit_code == 0
    assert page.stat().st_size > 100_000


def test_ablations_of_different_features_lie_side_by_side(small):
    run, _ = small
    for feature in ("resid_post.3/5", "resid_post.3/6"):
        assert call("ablate", run, "--features", feature).exit_code == 0
    assert len(list((run / "ablations").glob("resid_post.3-*"))) == 2


def test_training_writes_a_suite_that_discovery_takes(folder, small, fails):
    out = folder / "trained"
    done = call(
        "train", "saes", "transcoders", "--text", "bundled", "--out", out, "--layers", "1,3",
        "--sites", "resid_post", "--width", 128, "--k", 8, "--tokens", 8192,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert sorted(p.name for p in out.iterdir() if p.is_dir()) == [
        "mlp_in.1-mlp_out.1",
        "mlp_in.3-mlp_out.3",
        "resid_post.1",
        "resid_post.3",
    ]
    _, made = small
    done = call(
        *made, "--dictionaries", out, "--mlp", "transcoder", "--positions", "sum",
        "--out", folder / "small",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    meta = read_run(folder / "small").graph.graph
    assert meta["dictionaries"]["mlp_out.1"]["source"] == "mlp_in.1"
    done = call("evaluate", out, "--text", "bundled", "--tokens", 512, "--out", folder / "q.json")
    assert done.exit_code == 0, done.output
    assert "4 dictionaries (ours) at" in done.output.replace("\n", " ")
    record = json.loads((folder / "q.json").read_text())
    assert record["dictionaries"]["resid_post.1"]["l0"] <= 8
    assert set(record["dictionaries"]["resid_post.1"]["controls"]) == {"untrained", "PCA"}
    assert record["joint"]["dictionaries"] == 4
    assert (folder / "q.svg").read_text().startswith("<?xml")
    assert "not empty" in fails("train", "saes", "--text", "bundled", "--out", out)


@pytest.fixture(scope="module")
def toy_folder(tmp_path_factory):
    """A toy as a model's folder, and a file of text that its tokenizer can read."""
    folder = tmp_path_factory.mktemp("toy")
    toy_hf("qwen3", torch.float32).save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    (folder / "text.txt").write_text("\n\n".join(text(n=8000)), encoding="utf-8")
    return folder


@pytest.mark.parametrize("arch", ["batch-topk", "jumprelu", "relu", "gated", "matryoshka"])
def test_every_architecture_trains_loads_and_is_converted(arch, toy_folder, tmp_path):
    out = tmp_path / "suite"
    done = call(
        "train", "saes", "transcoders", "--arch", arch, "--skip", "--model", toy_folder,
        "--text", toy_folder / "text.txt", "--out", out, "--layers", "1", "--sites", "mlp_out",
        "--width", 64, "--k", 4, "--tokens", 4096,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    chosen = load_suite(out, mlp="transcoder")[Site("mlp_out", 1)]
    assert (chosen.spec.architecture, chosen.spec.skip) == (arch, True)
    done = call("convert", out, tmp_path / "theirs", "--to", "saelens")
    assert done.exit_code == 0, done.output
    again = load_suite(tmp_path / "theirs", mlp="transcoder")[Site("mlp_out", 1)]
    x = torch.randn(5, chosen.W_enc.shape[1])
    torch.testing.assert_close(again(x), chosen(x))


def test_activations_from_disk_train_the_same_dictionaries(tmp_path):
    shared = ["--layers", "1", "--sites", "mlp_out"]
    few = ["--width", 64, "--k", 4, "--tokens", 16384]
    text = ["--text", "bundled"]
    done = call("cache", *shared, *text, "--tokens", 16384, "--out", tmp_path / "cache")
    assert done.exit_code == 0, done.output
    for name, source in (("live", text), ("cached", ["--cache", tmp_path / "cache"])):
        done = call("train", "saes", *shared, *few, *source, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
    live, cached = (
        (tmp_path / name / "mlp_out.1/dictionary.safetensors").read_bytes()
        for name in ("live", "cached")
    )
    assert live == cached


def test_a_killed_training_goes_on_to_the_same_weights(started, tmp_path):
    """SIGKILL once a checkpoint is there; --resume ends as a run that was never cut off."""
    # A GPU adds up in any order, so that no two trainings there are equal to the bit.
    arguments = ("train", "saes", "--text", "bundled", "--layers", "0,1", "--sites", "mlp_out",
                 "--width", 64, "--k", 4, "--tokens", 24576, "--checkpoint-every", 0.02,
                 "--device", "cpu", "--out")  # fmt: skip
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    process = started.start(*arguments, cut)
    wait_for(cut / "checkpoint.safetensors")
    os.kill(process, signal.SIGKILL)
    assert started.ended() == -signal.SIGKILL
    assert not (cut / "suite.json").exists()
    said = tmp_path / "said.txt"
    for more in ((cut, "--resume"), (whole,)):
        started.start(*arguments, *more, into=said)
        assert started.ended() == 0, said.read_text()
    for name in ("mlp_out.0", "mlp_out.1"):
        tensors = (folder / name / "dictionary.safetensors" for folder in (cut, whole))
        one, other = (path.read_bytes() for path in tensors)
        assert one == other
    assert not list(tmp_path.rglob(".partial-*"))


def test_dictionaries_of_another_model_are_used_and_it_is_said(tmp_path, ends):
    suite = shutil.copytree(DICTIONARIES / "mlp_out.2", tmp_path / "mlp_out.2")
    record = json.loads((suite / "dictionary.json").read_text(encoding="utf-8"))
    record["model"] = {"name": "bundled", "hash": "0" * 16, "d_model": 64}
    (suite / "dictionary.json").write_text(json.dumps(record), encoding="utf-8")
    code, said = ends("evaluate", suite, "--text", "bundled", "--tokens", 512)
    assert code == 0
    (line,) = [x for x in said.splitlines() if x.startswith("note: ")]
    assert "were trained on another model, bundled (0000000000000000), than bundled (" in line


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "saes", "--text", "a", "b", "--out", "x"),
        ("cache", "--text", "a", "b", "--out", "x"),
        ("evaluate", "bundled", "--text", "a", "b"),
    ],
)
def test_several_texts_are_given_by_repeating_the_option(ends, arguments):
    code, said = ends(*arguments)
    assert code == 2
    (line,) = said.splitlines()
    assert line.startswith("error: ")
    assert line.endswith("each --text takes one; for several write --text A --text B")


def test_a_feature_and_a_suite_share_their_examples(tmp_path):
    out = tmp_path / "features"
    common = ("--text", "bundled", "--tokens", 1024, "--out", out)
    done = call("feature", "bundled", "resid_post.2/17", *common)
    assert done.exit_code == 0, done.output
    assert "promotes" in done.output
    card = json.loads((out / "resid_post.2-17.json").read_text())
    assert card["feature"] == "resid_post.2/17"
    assert "<html" in (out / "resid_post.2-17.html").read_text()
    done = call("feature", "bundled", "resid_post.2/18", *common)
    assert done.exit_code == 0, done.output
    assert len(list(out.glob("examples-*"))) == 1
    done = call("suite", "bundled", *common)
    assert done.exit_code == 0, done.output
    assert "<html" in (out / "suite.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("feature", "bundled", "mlp_out.9/1", "--text", "bundled"), "no feature is called"),
        (
            ("convert", "bundled", "x", "--to", "sparsify"),
            "convert only the SAEs or only the transcoders",
        ),
        (("discover", "absent.jsonl", "--out", "x"), "there is no prompt file at"),
        (("discover", "--out", "x"), "say which prompts"),
        (("discover", "p", "--clean", "The keys", "--out", "x"), "not both"),
        (("discover", "p", "--patch", "The key", "--out", "x"), "go with --clean"),
        (
            ("discover", "p", "--metric", "kl", "--estimator", "relp", "--out", "x"),
            "there is no prompt file at",
        ),
        (("verify", "absent"), "absent is not a finished run"),
        (("ablate", "absent", "--top", "3"), "absent is not a finished run"),
        (("ablate", "absent"), "one of --features, --top or --outside"),
        (("prompts", "make", "poetry", "--out", "x.jsonl"), "agreement_nounpp"),
        (("train", "saes", "--text", "absent.txt", "--out", "x"), "there is no text at"),
        (("evaluate", "absent", "--text", "bundled"), "there are no dictionaries at absent"),
    ],
)
def test_bad_input_is_one_clear_line(arguments, message, tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    assert message in fails(*arguments)
    assert not list(tmp_path.iterdir())


def test_a_process_that_fails_exits_with_an_error_and_no_traceback(started, tmp_path):
    said = tmp_path / "said.txt"
    started.start("verify", "absent", into=said)
    assert started.ended() == 1
    assert said.read_text().startswith("error: absent is not a finished run")
    assert said.read_text().count("\n") == 1


def test_prompts_given_on_the_command_line(tmp_path):
    """A pair with its answers; and one prompt alone, which the model answers itself."""
    pair = ("--clean", "The judges by the bucket", "--patch", "The judge by the bucket")
    few = ("--nodes", 20, "--estimator", "patching")
    out = tmp_path / "pair"
    done = call("discover", *pair, "--answer", " are", "--wrong", " is", *few, "--out", out)
    assert done.exit_code == 0, done.output
    meta = json.loads((out / "graph.json").read_text())["meta"]
    assert meta["clean_metric"] > 0 > meta["patch_metric"]
    out = tmp_path / "alone"
    done = call("discover", *pair[:2], *few, "--out", out)
    assert done.exit_code == 0, done.output
    graph = json.loads((out / "graph.json").read_text())
    assert graph["meta"]["reference"] == "zero"
    (output,) = (n for n in graph["nodes"] if n["kind"] == "logit")
    own = [token.strip() for token, _ in graph["meta"]["answers"]["by_prompt"][0]]
    assert output["label"].startswith(own[0])
    assert graph["meta"]["example"]["patch"] is None
    assert call("verify", out, "--level", "quick").exit_code == 0
    assert json.loads((out / "verification.json").read_text())["curves"]["baseline"] == "zero"


def test_elimination_keeps_fewer_nodes_that_are_as_faithful(small, tmp_path):
    run, made = small
    done = call(*made, "--nodes", 24, "--faithfulness", "0.2", "--out", tmp_path / "fewer")
    assert done.exit_code == 0, done.output
    counts = []
    for folder in (run, tmp_path / "fewer"):
        graph = json.loads((folder / "graph.json").read_text())
        counts.append(sum(n["kind"] in ("feature", "error") for n in graph["nodes"]))
    assert counts[0] == 40, "as many as were asked for"
    assert 0 < counts[1] < 24


def test_a_run_whose_prompts_changed_is_refused(small, tmp_path, fails):
    _, (verb, given, *options) = small
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_bytes(given.read_bytes())
    call(verb, prompts, *options, "--out", tmp_path / "run")
    with prompts.open("a") as file:
        file.write("\n")
    assert "the prompts at" in fails("verify", tmp_path / "run")


@pytest.mark.parametrize("verb", ["train", "discover"])
def test_a_killed_command_leaves_nothing_half_written(verb, started, folder, tmp_path):
    """SIGKILL at several moments: what is there is whole, and a rerun succeeds."""
    out = tmp_path / "out"
    arguments = {
        "train": ("train", "saes", "--text", "bundled", "--layers", "0", "--sites", "mlp_out",
                  "--width", 64, "--k", 4, "--tokens", 32768, "--out", out),
        "discover": ("discover", folder / "prompts.jsonl", "--estimator", "patching",
                     "--nodes", 20, "--out", out),
    }[verb]  # fmt: skip

    def killed_after(wait):
        process = started.start(*arguments)
        wait()
        # Until the parent has been told of its end a process can be killed, over or not.
        os.kill(process, signal.SIGKILL)
        started.ended()
        for path in out.rglob("*.json") if out.exists() else ():
            if not any(part.startswith(PARTIAL) for part in path.parts):
                json.loads(path.read_text())

    for seconds in (0.3, 0.8):
        killed_after(partial(time.sleep, seconds))
    if not out.exists():
        # Something is being written, or has just been.
        killed_after(partial(wait_for, tmp_path, "*"))
    if (out / "suite.json").exists():
        load_suite(out)
    else:
        done = call(*arguments)
        assert done.exit_code == 0, done.output
    assert not list(tmp_path.rglob(".partial-*"))


def test_a_wrong_choice_is_said_in_words(ends):
    code, said = ends("features", "search", "bundled", "--by", "meen")
    assert code == 2
    assert "Invalid value for '--by': 'meen' is not one of 'share', 'mean'" in said


def test_a_search_for_nothing_is_refused_before_torch_is_imported():
    program = (
        "import sys; sys.argv = 'circuits features search bundled'.split()\n"
        "from circuits.cli.app import main\n"
        "try: main()\n"
        "except SystemExit as ended: print(ended.code, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "1 False\n"
    assert "got none" in done.stderr


def test_a_row_of_a_table_is_all_that_the_command_line_needs():
    program = (
        "import sys\n"
        "from saes.operations import OPERATIONS, OperationKind\n"
        "OPERATIONS['negate'] = OperationKind(become=lambda own, value, to: -own)\n"
        "from circuits.attribution.estimators import ESTIMATORS, Estimator\n"
        "ESTIMATORS['new'] = Estimator(estimate=lambda analysis, state: {})\n"
        "from circuits.cli.edits import make_edit\n"
        "from circuits.cli.options import Estimator as Offered\n"
        "from circuits.cli.shift import ZeroEstimator\n"
        "from circuits.cli.steer import Does\n"
        "said = make_edit.__annotations__['do'].__metadata__[0].help\n"
        "for line in (said, *Does), Offered, ZeroEstimator, ['torch' in sys.modules]:\n"
        "    print(*line, sep='|')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    (said, *does), offered, without_patch, (loaded,) = (
        line.split("|") for line in done.stdout.splitlines()
    )
    assert said.endswith("clamp, negate.")
    assert does == ["set", "scale", "add", "clamp"]
    assert offered == ["ig", "ig-inputs", "patching", "relp", "exact", "new"]
    assert without_patch == ["ig", "patching", "relp", "exact", "new"]
    assert loaded == "False"
