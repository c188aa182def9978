"""Bake an edit into a model's folder that plain transformers loads.

Where weights can do it exactly (`circuits.edits.fold`) the folder is a model like any other, for
`AutoModelForCausalLM.from_pretrained`. Else it holds the model's own weights, the edit, the
dictionaries that it needs and a loader (`circuits.edits.loader`) that puts it in with hooks.

Either way what was written is loaded again without our code, and held against the edit in the
hooked model: the largest difference between their logits, over all tokens of some prompts, and
the tokens that both generate greedily after each.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM

from circuits.edits.fold import CannotFold, FoldedModel, fold, plain_weights, saved_model
from circuits.edits.loader import LOADER, CannotWrite, loader_text, needed
from circuits.graph import rounded, write_json
from hooked_qwen.files import build_folder_atomically
from hooked_qwen.hooks import capture_arriving
from hooked_qwen.identity import identity
from hooked_qwen.notices import counted
from hooked_qwen.placement import device_of
from hooked_qwen.sites import Site
from hooked_qwen.tokens import by_length
from saes.edit_checks import check_edit
from saes.edit_file import Edit, OpenedModel
from saes.formats import ours
from saes.identity import suite_hash
from saes.suite import Suite, load_suite

SCHEMA = "baked/1"
EDIT, RECORD, DICTIONARIES = "edit.json", "baked.json", "dictionaries"
GENERATED = 30
"Tokens that are generated after each prompt, to compare."
MOST_GENERATED = 16
"Prompts after which they are."
BakeMethod = Literal["auto", "weights", "loader"]
TEXTS_PER_PASS = 16
"Of one length, run together."
Tokens = Int[Tensor, "batch pos"]


@dataclass(frozen=True, kw_only=True)
class BakeConfig:
    """How an edit gets into the folder."""

    how: BakeMethod = "auto"
    "`weights` where they can do it on every text, else `loader`; `weights` alone also where a "
    "feature was only seen to be on at every token of the prompts"


def bake(
    opened: OpenedModel,
    edit: Edit,
    folder: Path,
    prompts: Sequence[str],
    config: BakeConfig | None = None,
    *,
    made_from: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the folder, load it without our code, and hold it against the hooked edit.

    The record of `baked.json`: what was changed, the largest difference in logits, and after how
    many prompts the same tokens are generated.

    Raises `ValueError` where the edit can be baked in neither way, `RuntimeError` where it does
    nothing on the prompts, for then nothing would be compared.
    """
    config, model, suite = config or BakeConfig(), opened.model, opened.suite
    check_edit(suite, edit)
    texts = _tokens(model, prompts)
    folded, reason = _folded(opened, edit, texts, config)
    record: dict[str, Any] = {
        "schema": SCHEMA,
        "how": "loader" if folded is None else "weights",
        "why_no_weights": reason,
        "changed": [] if folded is None else list(folded.changed),
        "exact_where_on": [] if folded is None else list(map(str, folded.where_on)),
        "model": {"name": model.cfg.model_name, "hash": identity(model)},
    }

    def build(partial: Path) -> None:
        if folded is None:
            _write_with_loader(model, suite, edit, partial)
        else:
            saved_model(folded.config, folded.weights).save_pretrained(partial)
            edit.save(partial / EDIT)
        _write_beside(model, partial)
        record.update(_held_against(opened, edit, partial, texts))
        write_json({**record, "made_from": dict(made_from or {})}, partial / RECORD)

    build_folder_atomically(folder, build)
    return record


def _tokens(model: TransformerBridge, prompts: Sequence[str]) -> list[list[int]]:
    if not prompts:
        raise ValueError("give prompts on which the baked model is held against the hooked edit")
    tokenizer = model.tokenizer
    assert tokenizer is not None, "a model that is loaded has one"
    return [tokenizer(text)["input_ids"] for text in prompts]


def _batches(model: TransformerBridge, texts: Sequence[list[int]]) -> Iterator[Tokens]:
    """Texts of one length together, on the model's device."""
    device = device_of(model)
    return (tokens.to(device) for _, tokens in by_length(texts, TEXTS_PER_PASS))


def _folded(
    opened: OpenedModel, edit: Edit, texts: Sequence[list[int]], config: BakeConfig
) -> tuple[FoldedModel | None, str | None]:
    """The weights with the edit in them, or why there are none."""
    if config.how == "loader":
        return None, "the loader was asked for"
    try:
        found = fold(opened.model, opened.suite, edit)
        if found.where_on and config.how == "auto":
            nodes = ", ".join(map(str, found.where_on[:3]))
            raise CannotFold(
                f"weights do it only where {nodes} {'is' if len(found.where_on) == 1 else 'are'} "
                "on, and no text is known to keep to that (--how weights takes it as it is on the "
                "prompts)"
            )
        if found.where_on:
            _require_on(opened, edit, texts, found)
    except CannotFold as reason:
        if config.how == "weights":
            raise ValueError(f"weights alone cannot do this edit: {reason}") from None
        return None, str(reason)
    return found, None


def _require_on(
    opened: OpenedModel, edit: Edit, texts: Sequence[list[int]], found: FoldedModel
) -> None:
    """Raise `CannotFold` for a feature that is off at a token of the prompts, under the edit."""
    sites = {Site.parse(node.site) for node in found.where_on}
    off = dict.fromkeys(found.where_on, 0)
    total = 0
    for tokens in _batches(opened.model, texts):
        with (
            edit.applied(opened, must_fire=False),
            capture_arriving(opened.model, sites) as seen,
            torch.no_grad(),
        ):
            opened.model.original_model(tokens)
        total += tokens.numel()
        for node in off:
            f = opened.suite[node.site].encode(seen[Site.parse(node.site)])
            chosen = torch.tensor([int(node.feature)], device=f.index.device)
            off[node] += int((f.of(chosen) == 0).sum())
    for node, n in off.items():
        if n:
            raise CannotFold(f"{node} is off at {n:,} of {counted(total, 'token')} of the prompts")


def _write_with_loader(model: TransformerBridge, suite: Suite, edit: Edit, folder: Path) -> None:
    try:
        text = loader_text(suite, edit)
    except CannotWrite as reason:
        raise ValueError(f"this edit cannot be baked: {reason}") from None
    saved_model(model.original_model.config, plain_weights(model)).save_pretrained(folder)
    ours.save([suite[name] for name in needed(suite, edit)], folder / DICTIONARIES)
    chosen = load_suite(folder / DICTIONARIES)
    replace(edit, suite=suite_hash(chosen), suite_name=DICTIONARIES).save(folder / EDIT)
    (folder / LOADER).write_text(text, encoding="utf-8")


def _write_beside(model: TransformerBridge, folder: Path) -> None:
    """The tokenizer, and how the model generates."""
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(folder)
    generation = getattr(model.original_model, "generation_config", None)
    if generation is not None:
        generation.save_pretrained(folder)


def load_baked(folder: Path, **options: Any) -> Any:
    """The model in a folder as anybody would load it: by its loader, where it has one."""
    if not (folder / LOADER).exists():
        return AutoModelForCausalLM.from_pretrained(folder, **options)
    spec = importlib.util.spec_from_file_location("load_edited", folder / LOADER)
    assert spec is not None, "the file is there"
    assert spec.loader is not None, "it is Python"
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.load(**options)


@torch.no_grad()
def _held_against(
    opened: OpenedModel, edit: Edit, folder: Path, texts: Sequence[list[int]]
) -> dict[str, Any]:
    """How far what was written is from the edit in the hooked model."""
    hooked: Any = opened.model.original_model
    # Attention as it is in the hooked model first: another implementation rounds otherwise.
    largest, moved, same = {}, 0.0, 0
    for name, options in (("same", {"attn_implementation": "eager"}), ("default", {})):
        baked = load_baked(folder, dtype=hooked.dtype, **options)
        baked = baked.to(device_of(opened.model)).eval()
        gaps = [_gap(opened, edit, baked, tokens) for tokens in _batches(opened.model, texts)]
        largest[name] = max(gap for gap, _ in gaps)
        moved = max(change for _, change in gaps)
        if not moved:
            raise RuntimeError(
                "the edit changes nothing on the prompts: give some on which it does"
            )
        if name == "same":
            continue
        for tokens in _batches(opened.model, texts[:MOST_GENERATED]):
            with edit.applied(opened, must_fire=False):
                expected = _generated(hooked, tokens)
            same += int((_generated(baked, tokens) == expected).all(1).sum())
    return {
        "prompts": len(texts),
        "largest_difference": rounded(largest["same"]),
        "largest_difference_default_attention": rounded(largest["default"]),
        "largest_change": rounded(moved),
        "generated": {
            "tokens": GENERATED,
            "prompts": len(texts[:MOST_GENERATED]),
            "same": same,
        },
    }


def _gap(opened: OpenedModel, edit: Edit, baked: Any, tokens: Tokens) -> tuple[float, float]:
    """How far the baked model's logits are from the edited ones, and these from the plain ones."""
    hooked: Any = opened.model.original_model
    plain = hooked(tokens).logits.double()
    with edit.applied(opened, must_fire=False):
        expected = hooked(tokens).logits.double()
    return float((baked(tokens).logits.double() - expected).abs().max()), float(
        (plain - expected).abs().max()
    )


def _generated(model: Any, tokens: Tokens) -> Int[Tensor, "batch longer"]:
    return model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        do_sample=False,
        min_new_tokens=GENERATED,
        max_new_tokens=GENERATED,
        use_cache=True,
    )
