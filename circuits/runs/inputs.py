"""What a run is made from: named, and opened as an analysis."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformer_lens.model_bridge import TransformerBridge

from circuits.analysis import Analysis
from circuits.discovery.config import DiscoverConfig
from circuits.metrics.answers import with_own_answers
from circuits.opening import open_suite
from circuits.prompts import (
    EncodedPrompts,
    Prompt,
    WhenUnfit,
    encode_prompts,
    read_prompts,
)
from hooked_qwen.files import content_hash
from hooked_qwen.model_place import local_folder
from hooked_qwen.placement import ANYWHERE, Placement
from saes.suite import MlpChoice, Suite, hash_of, pinned


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a run was made from: paths as given, resolved where they are local."""

    model: str
    dictionaries: str
    prompts: str
    mlp: MlpChoice = "sae"
    unfit: WhenUnfit = "refuse"
    "what is done with prompts that do not fit the model's tokenizer"

    @classmethod
    def resolved(
        cls,
        model: str,
        dictionaries: str,
        prompts: str | Path,
        mlp: MlpChoice = "sae",
        unfit: WhenUnfit = "refuse",
    ) -> "Inputs":
        folder = local_folder(model)
        return cls(
            model=str(folder.resolve()) if folder else model,
            dictionaries=pinned(dictionaries),
            prompts=str(Path(prompts).resolve()),
            mlp=mlp,
            unfit=unfit,
        )

    def check_same(self, other: "Inputs") -> None:
        """Raise `ValueError` where another run is of another model, or of other dictionaries."""
        for name in ("model", "dictionaries", "mlp"):
            own, others = getattr(self, name), getattr(other, name)
            if own != others:
                raise ValueError(
                    f"the runs are not of the same {name}: {others} and {own}; what is compared "
                    "here needs one model and its dictionaries"
                )

    def hashes(self) -> dict[str, str | None]:
        """Content hashes of dictionaries and prompts; a model's is known once it is loaded."""
        prompts = Path(self.prompts)
        return {
            "dictionaries_hash": hash_of(self.dictionaries),
            "prompts_hash": content_hash(prompts) if prompts.is_file() else None,
        }


@dataclass(frozen=True)
class Loaded:
    """A run's inputs, opened."""

    analysis: Analysis
    inputs: Inputs

    def others(self, path: Path) -> EncodedPrompts:
        """Other prompts, their positions counted as those of the run are."""
        model, config = self.analysis.model, self.analysis.config
        width = self.analysis.prompts.clean.tokens.shape[1]
        encoded = encode_prompts(
            read_prompts(path),
            model.tokenizer,
            positions=config.positions,
            bos=config.bos,
            unfit=self.inputs.unfit,
            width=None if config.positions == "sum" else width,
        )
        return with_own_answers(model, encoded)


def open_inputs(
    inputs: Inputs,
    config: DiscoverConfig,
    given: Sequence[Prompt] | None = None,
    *,
    placement: Placement = ANYWHERE,
    beside: Loaded | None = None,
) -> Loaded:
    """Load model, dictionaries and prompts; raises `ValueError` when they do not fit together.

    `given` are prompts that are not in the file yet. `beside` another run of the same model and
    dictionaries, these are opened once for both; raises `ValueError` where they are not the same.
    """
    prompts = read_prompts(Path(inputs.prompts)) if given is None else given
    if beside is None:
        model, suite = open_suite(inputs.dictionaries, inputs.model, inputs.mlp, placement)
        _check_fit(model, suite)
    else:
        inputs.check_same(beside.inputs)
        model, suite = beside.analysis.model, beside.analysis.suite
    encoded = encode_prompts(
        prompts,
        model.tokenizer,
        positions=config.positions,
        bos=config.bos,
        unfit=inputs.unfit,
    )
    analysis = Analysis.of(model, suite, with_own_answers(model, encoded), config)
    return Loaded(analysis, inputs)


def _check_fit(model: TransformerBridge, suite: Suite) -> None:
    for name in suite:
        writes = suite.writes_of(name)
        for read in set(suite.reads_of(name)) - set(writes):
            if suite.writing(read):
                raise ValueError(
                    f"{read} is written by one dictionary and read by that of {name}: "
                    "a graph needs one of them left out"
                )
        if max(writes).layer >= model.cfg.n_layers:
            raise ValueError(
                f"the dictionary of {name} is for a deeper model: "
                f"{model.cfg.model_name} has layers 0 to {model.cfg.n_layers - 1}"
            )
    suite.check_width(model.cfg.d_model)
