"""The whole main job on the bundled model, read from top to bottom.

Text and a prompt set are written, dictionaries are trained, the agreement circuit is found, held
against ablation, its strongest features are cut out and the prompts run again, and all is drawn.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from circuits.discovery.config import DiscoverConfig
from circuits.discovery.sparse_feature import Discovery
from circuits.graph import ordered, write_json
from circuits.opening import load_model
from circuits.render.words import counted
from circuits.runs.ablate_run import ablate_run
from circuits.runs.discover_run import discover_run
from circuits.runs.inputs import Inputs
from circuits.runs.overwrite import ablations_in
from circuits.runs.prompt_sets import make_prompts
from circuits.runs.render_run import render_run
from circuits.runs.stopwatch import Stopwatch
from circuits.runs.verify_run import verify_run
from circuits.verification.verify import VerifyConfig
from hooked_qwen.load import BUNDLED
from hooked_qwen.percents import percent
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.stream import StreamConfig
from hooked_qwen.texts import texts_of
from saes.evaluation.metrics import Quality
from saes.training.config import TrainConfig
from saes.training.train import train
from transcoders.specs import dictionary_specs

TASK = "agreement_nounpp"
TOP = 10
ABLATION = f"top-{TOP}-mean"
MARK, SCHEMA = "demo.json", "demo/1"
"The file that says that a folder is a demo's."
FEATURES, FEATURES_PER_TOKEN = 512, 3
TRAINING = TrainConfig(width=FEATURES, tokens=245_760, learning_rate=2e-3)
STREAM = StreamConfig(batch_size=1024, buffer_size=16_384, reuse=2)


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """How large a demo is; as it stands it takes a minute or two on a laptop."""

    sites: Sequence[str] = ("resid_post", "attn_out", "mlp_out")
    "kinds of sites that have dictionaries, at every layer"
    prompts: int = 40
    training: TrainConfig = TRAINING
    stream: StreamConfig = STREAM
    discovery: DiscoverConfig = field(default_factory=DiscoverConfig)


DEMO = DemoConfig()


def run_demo(
    out: Path,
    *,
    config: DemoConfig = DEMO,
    force: bool = False,
    seed: int = 0,
    placement: Placement = ANYWHERE,
    command: Sequence[str] = (),
    report: Report = silent,
) -> list[str]:
    """Do everything into `out`; the summary as lines of text. A demo that was there is made anew.

    `seed` draws the text, the dictionaries' first weights, the prompts and the controls.

    Raises `ValueError` where anything but a demo in `out` would be lost, unless by `force`.
    """
    if not force:
        _check_place(out)
    watch = Stopwatch()
    write_json({"schema": SCHEMA}, out / MARK)
    model = load_model(BUNDLED, report, placement)
    layers = range(model.cfg.n_layers)
    specs = dictionary_specs(["saes"], layers, config.sites, k=FEATURES_PER_TOKEN)
    folder = out / "dictionaries"
    quality = train(
        model,
        specs,
        texts_of([BUNDLED], seed=seed),
        folder,
        config=replace(config.training, seed=seed),
        stream=replace(config.stream, seed=seed),
        report=report,
    )
    prompts, run = out / "prompts.jsonl", out / "run"
    make_prompts(
        TASK, config.prompts, split="test", seed=seed, model=BUNDLED, out=prompts, force=True
    )
    inputs = Inputs.resolved(BUNDLED, str(folder), prompts)
    found = discover_run(
        inputs,
        run,
        config=config.discovery,
        task=TASK,
        seed=seed,
        force=True,
        placement=placement,
        command=command,
        report=report,
    )
    check = VerifyConfig(draws=2, seed=seed)
    verification = verify_run(run, config=check, placement=placement, report=report)
    ablation = ablate_run(
        run, top=TOP, to="mean", label=ABLATION, placement=placement, report=report
    )
    figures = render_run(run, ["html", "svg", "pdf"], nodes=25)
    return _summary(quality, found, verification, ablation, figures, watch)


def _check_place(out: Path) -> None:
    """Raise `ValueError` where a demo would take the place of what a user made."""
    made = [path.name for path in out.glob("[!.]*")] if out.is_dir() else []
    if made and MARK not in made:
        raise ValueError(
            f"{out} is not empty and holds no demo: choose another --out, or replace its "
            "dictionaries, prompts and run with --force"
        )
    if others := [name for name in ablations_in(out / "run") if name != ABLATION]:
        raise ValueError(
            f"{out / 'run'} holds {counted(len(others), 'ablation')} of yours "
            f"({', '.join(others[:5])}): choose another --out, or replace all of it with --force"
        )


def _summary(
    quality: Sequence[Quality],
    found: Discovery,
    verification: dict[str, Any],
    ablation: dict[str, Any],
    figures: Sequence[Path],
    watch: Stopwatch,
) -> list[str]:
    meta, nodes, curves = found.graph.graph, verification["nodes"], verification["curves"]
    at = curves["sizes"].index(100)
    faithful = {name: row["faithfulness"][at] for name, row in curves["rows"].items()}
    fvu = sorted(q.fvu for q in quality)
    names = [found.graph.nodes[n]["label"] for n in ordered(found.graph) if n.kind == "feature"]
    control = ablation["controls"][0]
    reading = watch.reading()
    return [
        f"trained     {len(quality)} dictionaries, median FVU {fvu[len(fvu) // 2]:.2f}",
        f"prompts     {meta['n_prompts']} of {TASK}, the model is right on "
        f"{percent(meta['accuracy'])}",
        f"metric      logit difference {meta['clean_metric']:.2f}, patched "
        f"{meta['patch_metric']:.2f}",
        f"circuit     {len(found.graph)} nodes, {found.graph.number_of_edges()} edges; "
        f"strongest: {', '.join(names[:3])}",
        f"estimate    against exact: Spearman {nodes['spearman']:.2f}, same sign "
        f"{percent(nodes['sign_agreement'])}",
        f"faithful    100 nodes {faithful['circuit']:.2f}, 100 random ones "
        f"{faithful['random nodes']:.2f}, 100 neurons {faithful['neurons']:.2f}",
        f"ablated     top {TOP} features: {ablation['before']:.2f} becomes "
        f"{ablation['after']:.2f}; random ones: {control['after']:.2f}",
        f"page        {next(p for p in figures if p.suffix == '.html')}",
        f"figures     {', '.join(str(p) for p in figures if p.suffix == '.pdf')}",
        f"took        {reading['wall_seconds']:.0f} s, peak {reading['peak_memory_mb']:.0f} MB",
    ]
