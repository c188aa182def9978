"""An edit rerun: prompts, a text, continuations, side effects; the record of `result.json`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.edits.continuations import GenerateConfig, rerun_generation
from circuits.edits.rerun import rerun_prompts, rerun_text
from circuits.edits.side_effects import SideEffectsConfig, behaviours_for, side_effects
from circuits.graph import write_json
from circuits.metrics.answers import with_own_answers
from circuits.prompts import encode_prompts, read_prompts
from circuits.runs.commands import positions_for, reference_for
from circuits.runs.overwrite import MADE_FROM, check_record, digest
from circuits.suites import load_model
from hooked_qwen.files import content_hash
from hooked_qwen.load import BUNDLED
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.texts import texts_of
from saes.edit import check
from saes.edit_file import Edit
from saes.edit_words import in_words
from saes.evaluation.metrics import held_out_blocks
from saes.suite import MlpChoice, Suite, hash_of, load_suite

SCHEMA = "rerun/1"
RESULT = "result.json"


@dataclass(frozen=True, kw_only=True)
class Rerun:
    """What is run again under an edit."""

    prompts: Path | None = None
    "a prompt file"
    metric: str = "logit-difference"
    "of the prompts"
    text: tuple[str, ...] = ()
    "sources of `hooked_qwen.texts`"
    tokens: int = 8192
    "of the text, at most"
    generate: tuple[str, ...] = ()
    "prompts to write on from"
    side_effects: SideEffectsConfig | None = None
    "what else the edit does is looked at, on other tasks and on the text, else on our English"
    writing: GenerateConfig = field(default_factory=GenerateConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        if not (self.prompts or self.text or self.generate or self.side_effects):
            raise ValueError(
                "say what to run again with --prompts, --text, --generate or --side-effects"
            )

    def made_from(self) -> dict[str, Any]:
        """What decides the result, as a record holds it."""
        prompts = self.prompts and content_hash(self.prompts)
        return asdict(self) | {"prompts": prompts}


def rerun_edit(
    path: Path,
    rerun: Rerun,
    out: Path | None = None,
    *,
    model: str = BUNDLED,
    dictionaries: str = BUNDLED,
    mlp: MlpChoice = "sae",
    force: bool = False,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Run the edit at `path` and write what came of it to `out`/result.json.

    Raises `ValueError` for an edit of other dictionaries, and where `out` holds something else,
    unless by `force`; `RuntimeError` for an edit that changes nothing of what is run.
    """
    edit = Edit.load(path)
    suite = load_suite(dictionaries, mlp=mlp, memory=placement.memory)
    check(suite, edit)
    source = {
        "edit": digest(edit.text()),
        "dictionaries_hash": hash_of(dictionaries),
        "model": model,
        "mlp": mlp,
        "dtype": placement.dtype or "float32",
        **rerun.made_from(),
    }
    if out is not None:
        if out.is_file():
            raise ValueError(f"{out} is a file: give a folder")
        check_record(out / RESULT, source, force=force)
    loaded = load_model(model, report, placement)
    suite.notify_of_another_model(loaded)
    record = {
        "schema": SCHEMA,
        "edit": in_words(edit),
        **_parts(loaded, suite.fitting(loaded), edit, rerun, model, report),
        MADE_FROM: source,
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        write_json(record, out / RESULT)
    return record


def _parts(
    model: TransformerBridge, suite: Suite, edit: Edit, rerun: Rerun, name: str, report: Report
) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    total = sum(map(bool, (rerun.prompts, rerun.text, rerun.generate)))

    def done() -> None:
        report("rerunning", len(found), total)

    if rerun.prompts is not None:
        found["prompts"] = rerun_prompts(_analysis(model, suite, rerun, name), edit)
        done()
    if rerun.text:
        found["text"] = rerun_text(model, suite, edit, _blocks(model, rerun))
        done()
    if rerun.generate:
        found["generate"] = rerun_generation(model, suite, edit, rerun.generate, rerun.writing)
        done()
    if rerun.side_effects is not None:
        found["side_effects"] = _side_effects(model, suite, edit, rerun, name, report)
    return found


def _blocks(model: TransformerBridge, rerun: Rerun) -> Int[Tensor, "blocks pos"]:
    texts = texts_of(list(rerun.text or (BUNDLED,)), seed=rerun.seed)
    return held_out_blocks(texts(), model, tokens=rerun.tokens)


def _side_effects(
    model: TransformerBridge, suite: Suite, edit: Edit, rerun: Rerun, name: str, report: Report
) -> dict[str, Any]:
    config = rerun.side_effects
    assert config is not None, "asked for above"
    behaviours, left_out = behaviours_for(name, model.tokenizer, config)
    if rerun.prompts is not None:
        own = _analysis(model, suite, rerun, name).prompts
        if own.patch is not None:
            behaviours = {f"prompts of {rerun.prompts.name}": own, **behaviours}
    blocks = _blocks(model, rerun)
    found = side_effects(model, suite, edit, behaviours, blocks, config, report=report)
    return {**found, "left_out": left_out}


def _analysis(model: TransformerBridge, suite: Suite, rerun: Rerun, name: str) -> Analysis:
    assert rerun.prompts is not None, "asked for above"
    listed = read_prompts(rerun.prompts)
    positions = positions_for(listed, name, "auto", "refuse")
    config = DiscoverConfig(
        metric=rerun.metric, positions=positions, reference=reference_for(listed)
    )
    encoded = encode_prompts(listed, model.tokenizer, positions=positions)
    return Analysis.of(model, suite, with_own_answers(model, encoded), config)
