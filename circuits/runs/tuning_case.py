"""What models trained in turn share: where they start, how they are trained and judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from circuits.runs.overwrite import digest
from hooked_qwen.load import load_tokenizer
from hooked_qwen.model_place import BUNDLED, local_folder, source_hash
from hooked_qwen.placement import AUTO, Placement
from hooked_qwen.plain_model import load_plain
from hooked_qwen.progress import Report
from hooked_qwen.threads import fit_threads_to
from saes.scope.behaviour import Behaviour, behaviour_called
from saes.scope.chosen_features import ChosenFeatures
from saes.scope.fine_tune import FineTuneConfig
from saes.scope.trained_weights import opened
from saes.scope.tuned_model import Judge, TokenRows, WriteConfig
from saes.suite import MlpChoice, Suite, hash_of, load_suite


@dataclass(frozen=True, kw_only=True)
class StartingModel:
    """The model that every arm starts from."""

    source: str
    placement: Placement
    rank: int | None
    seed: int

    @property
    def name(self) -> str:
        """What an adapter says that it belongs to."""
        folder = local_folder(self.source)
        return self.source if folder is None or self.source == BUNDLED else str(folder)

    def plain(self) -> nn.Module:
        """As it is."""
        device = self.placement.device or AUTO
        model = load_plain(self.source, dtype=self.placement.model_dtype, device=device)
        config = model.config.get_text_config()
        fit_threads_to(config.hidden_size, config.intermediate_size)
        return model

    def to_train(self) -> nn.Module:
        """As it is, what is to be trained opened."""
        return opened(self.plain(), self.rank, base=self.name, seed=self.seed)


@dataclass(frozen=True, kw_only=True)
class TuningCase:
    """What every arm has: the model it starts from, how it is trained, and how it is judged."""

    dictionaries: str
    suite: Suite
    start: StartingModel
    tokenizer: Any
    behaviour: Behaviour
    training: FineTuneConfig
    write: WriteConfig

    @classmethod
    def opened(
        cls,
        dictionaries: str,
        model: str,
        behaviour: str,
        training: FineTuneConfig,
        write: WriteConfig,
        *,
        rank: int | None,
        mlp: MlpChoice,
        placement: Placement,
    ) -> "TuningCase":
        """Dictionaries and tokenizer read; the model is opened by each arm."""
        return cls(
            dictionaries=dictionaries,
            suite=load_suite(dictionaries, mlp=mlp, memory=placement.memory),
            start=StartingModel(source=model, placement=placement, rank=rank, seed=training.seed),
            tokenizer=load_tokenizer(model),
            behaviour=behaviour_called(behaviour),
            training=training,
            write=write,
        )

    def settings(self) -> dict[str, Any]:
        """What the record says of how any arm was trained and judged."""
        training, write = self.training, self.write
        return {
            "rank": self.start.rank,
            "steps": training.steps,
            "learning_rate": training.learning_rate,
            "trainer": dict(training.trainer),
            "written": {"tokens": write.tokens, "samples": write.samples},
            "seed": training.seed,
        }

    def made_from(self, *texts: Any) -> dict[str, Any]:
        """What decides the result besides settings; `texts` as plain JSON values."""
        return {
            "dictionaries": hash_of(self.dictionaries),
            "model": source_hash(self.start.source),
            "dtype": self.start.placement.model_dtype,
            "texts": digest(*texts),
        }

    def judge(
        self,
        prompts: Sequence[str],
        clean: Mapping[str, TokenRows],
        features: Mapping[str, ChosenFeatures],
        report: Report,
    ) -> Judge:
        """Judges a model on what it writes after prompts, and on clean texts."""
        return Judge(
            tokenizer=self.tokenizer,
            suite=self.suite,
            prompts=prompts,
            behaviour=self.behaviour,
            clean=clean,
            features=features,
            write=self.write,
            report=report,
        )
