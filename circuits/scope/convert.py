"""Dictionaries of any layout of files made ours by a map: read, checked on text, written."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from circuits.graph import rounded
from circuits.opening import load_model
from hooked_qwen.files import build_folder_atomically, check_new_folder
from hooked_qwen.identity import identity
from hooked_qwen.notices import notify
from hooked_qwen.placement import ANYWHERE, Placement
from hooked_qwen.progress import Report, silent
from hooked_qwen.sites import Site
from hooked_qwen.texts import texts_of
from saes.dictionary import SparseDictionary, fitted
from saes.evaluation.baselines import untrained
from saes.evaluation.bootstrap import ratio_interval
from saes.evaluation.convention_files import Here, mean_norm
from saes.evaluation.conventions import (
    FITS,
    Convention,
    Trial,
    Tried,
    as_map,
    ends_after,
    moves_of,
)
from saes.evaluation.metrics import held_out_blocks
from saes.evaluation.try_conventions import activations, try_conventions
from saes.formats import ours
from saes.formats.checkpoint import place_of_file
from saes.formats.finding import place_of
from saes.formats.guessed import guessed
from saes.formats.map_hashes import sha256_of
from saes.formats.mapped import (
    BY_TOKEN,
    MEASURED,
    NONE,
    DictionaryMap,
    joined,
    map_text,
    read_map,
)
from saes.formats.place import Entry, Place
from saes.suite import Suite

MAP = "map.yaml"
"The map by which a folder was converted, in it."
TOKENS = 4096


def convert(
    source: str | Path,
    out: Path,
    *,
    map: Path | None = None,
    try_all: bool = False,
    text: Sequence[str] = (),
    model: str | None = None,
    tokens: int = TOKENS,
    seed: int = 0,
    placement: Placement = ANYWHERE,
    report: Report = silent,
) -> dict[str, Any]:
    """Dictionaries in the file or folder `source`, read by the file `map`, as a suite in `out`.

    With `text` and the `model` each is judged: its FVU stands in the record and in its card. With
    `try_all` every usual convention is tried, and the one that fits is used; without a `map` the
    files are guessed from their names first. The map that was used is `map.yaml` in `out`. `seed`
    draws the text `bundled`.

    Raises `ValueError` where `out` is there, where a file is not as the map says, and where nothing
    that was tried fits.
    """
    check_new_folder(out)
    if bool(text) != (model is not None):
        raise ValueError("judging needs both --text and --model")
    if try_all and not text:
        raise ValueError("conventions are tried on real text: give --text and --model")
    place = _place(source)
    what = guessed(place) if map is None else read_map(map)
    entries = what.find(place)
    if model is None:
        card = ours.Card(model={"hash": what.model} if what.model else {})
        read = ((entry, what, what.load(entry), card) for entry in entries)
        return _written(read, out)
    loaded = load_model(model, report, placement)
    blocks = held_out_blocks(texts_of(text, seed=seed)(), loaded, tokens=tokens)
    tried: dict[str, Any] = {}
    if try_all:
        trial = try_conventions(
            loaded, what, entries, blocks, report=lambda n, of: report("conventions", n, of)
        )
        _check_fit(trial)
        tried = {"trial": _trial_record(trial)}
        what = as_map(trial.best.convention, what, place, entries)
        entries = what.find(place)
    what = _of_model(what, loaded)
    judged = _judged(loaded, what, entries, blocks, report)
    return tried | _written(judged, out)


def _place(source: str | Path) -> Place:
    file = Path(source).expanduser()
    return place_of_file(file) if file.is_file() else place_of(source)


def _of_model(what: DictionaryMap, model: TransformerBridge) -> DictionaryMap:
    """The map with the hash of the model, which is told where the map has another."""
    found = identity(model)
    if what.model not in ("", found):
        notify(f"the map is of another model ({what.model}) than {model.cfg.model_name} ({found})")
    return replace(what, model=found)


Converted = Iterable[tuple[Entry, DictionaryMap, SparseDictionary, ours.Card]]
"Each with the map of it alone, where a scale that was measured is a number."


def _judged(
    model: TransformerBridge,
    what: DictionaryMap,
    entries: Sequence[Entry],
    blocks: Int[Tensor, "blocks pos"],
    report: Report,
) -> Converted:
    """Each dictionary with what it leaves unexplained, one at a time."""
    about = {"name": model.cfg.model_name, "hash": what.model, "d_model": model.cfg.d_model}
    for done, entry in enumerate(entries):
        report("judging", done, len(entries))
        near = [ends_after(entry, move, len(model.blocks)) for move in moves_of(entry)[1:3]]
        near = [ends for ends in near if ends is not None]
        sites = {entry.source, entry.target, *(site for ends in near for site in ends)}
        seen = activations(model, blocks, sites)
        here = Here.of(seen[entry.source], seen[entry.target])
        s, t = here.x.shape[-1], here.y.shape[-1]
        own = _measured(what, entry, here)
        dictionary = own.load(entry)
        if dictionary.W_enc.shape[1] != s or dictionary.W_dec.shape[1] != t:
            raise ValueError(
                f"{entry.name} reads {dictionary.W_enc.shape[1]} numbers, {entry.source} of "
                f"{model.cfg.model_name} has {s}: it is another model's"
            )
        ready = fitted(dictionary, model)
        figures = _figures(ready, here)
        _notify_of_misfit(
            entry, figures, {ends: _fvu(ready, Here.of(*(seen[s] for s in ends))) for ends in near}
        )
        yield entry, own, dictionary, ours.Card(model=about, metrics=figures)
    report("judging", len(entries), len(entries))


def _notify_of_misfit(
    entry: Entry, figures: Mapping[str, Any], near: Mapping[tuple[Site, Site], float]
) -> None:
    """Say so where a dictionary is no better than chance, or better a layer before or after.

    How much it leaves does not tell by itself: of a good dictionary read a layer off it can be
    less than of another one where it belongs.
    """
    fvu, best = figures["fvu"], min(near, key=lambda ends: near[ends], default=None)
    what = f"{entry.name} leaves {fvu:.3g} of {entry.source} unexplained (FVU)"
    if best is not None and near[best] < FITS * min(fvu, 1.0, figures["untrained_fvu"]):
        notify(
            f"{what}, but {near[best]:.3g} of {best[0]}: the site of the map is a layer off; --try "
            "looks for it"
        )
    elif fvu >= FITS * min(1.0, figures["untrained_fvu"]):
        notify(
            f"{what}, an untrained dictionary {figures['untrained_fvu']:.3g}: a convention of the "
            "map is wrong; --try looks for it"
        )


def _measured(what: DictionaryMap, entry: Entry, here: Here) -> DictionaryMap:
    """The map of one file with numbers for scales by mean norms, of activations less the mean."""
    mean: Tensor | float = 0.0
    if what.scale in MEASURED and what.mean != NONE:
        mean = what.opened(entry).tensor(what.mean, "mean").to(here.x)
    x, y = here.x - mean, here.y - mean
    return what.measured(mean_norm(x), mean_norm(y), x.shape[-1], y.shape[-1])


@torch.no_grad()
def _fvu(dictionary: SparseDictionary, here: Here) -> float:
    return float(_squared(dictionary, here.x, here.y).sum() / here.spread.sum())


@torch.no_grad()
def _figures(dictionary: SparseDictionary, here: Here) -> dict[str, Any]:
    """FVU with its interval and L0, and the FVU of an untrained dictionary of its shape."""
    control = untrained(Suite({dictionary.name: dictionary}, {}))[dictionary.name]
    errors = here.by_block(_squared(dictionary, here.x, here.y)).cpu()
    spread, on = here.spread.cpu(), dictionary.encode(here.x).value != 0
    return {
        "tokens": len(here.x),
        "fvu": float(errors.sum() / spread.sum()),
        "l0": float(on.sum() / len(here.x)),
        "intervals": {"fvu": ratio_interval(errors, spread)},
        "untrained_fvu": _fvu(control, here),
    }


def _squared(
    dictionary: SparseDictionary, x: Float[Tensor, "tokens s"], y: Float[Tensor, "tokens t"]
) -> Float[Tensor, " tokens"]:
    return (y - dictionary(x)).double().square().sum(-1)


def _written(converted: Converted, out: Path) -> dict[str, Any]:
    """The suite with its map, whole or not at all, and what is known of each dictionary."""
    found: dict[str, Any] = {}
    maps: dict[str, DictionaryMap] = {}
    entries: list[Entry] = []
    used: list[DictionaryMap] = []

    def build(partial: Path) -> None:
        for entry, own, dictionary, card in converted:
            maps[entry.name] = own
            entries.append(entry)
            name = dictionary.spec.name
            if name in found:
                raise ValueError(f"two files are {name}, such as {entry.name}: map them apart")
            ours.save_dictionary(dictionary, partial / name, card=card)
            found[name] = {
                "file": entry.name,
                "architecture": dictionary.spec.architecture,
                "k": dictionary.spec.k,
                "features": dictionary.n_features,
                **card.metrics,
            }
        ours.save_suite_index(partial, list(found))
        used.append(_kept(joined(maps), entries))
        (partial / MAP).write_text(map_text(used[0]), encoding="utf-8")

    build_folder_atomically(out, build)
    return {"dictionaries": found, "map": map_text(used[0])}


def _kept(what: DictionaryMap, entries: Sequence[Entry]) -> DictionaryMap:
    """The map with the hashes of the files that it was used for."""
    terms = (what.k, what.threshold, what.scale, what.target_scale)
    return replace(what, sha256=sha256_of(entries, terms))


def _check_fit(trial: Trial) -> None:
    """Raise where nothing fits, or what fits is no convention that can be folded."""
    best, told = trial.best, _words(trial.best.convention)
    if not trial.fits:
        raise ValueError(
            f"none of {trial.ways} conventions fits: the best leaves an FVU of {best.fvu:.3g} "
            f"({told}), an untrained dictionary of the same shape {trial.untrained:.3g}; it is not "
            "trained, of another model, or read in a way that is not tried"
        )
    if best.convention.scale in BY_TOKEN:
        raise ValueError(
            f"what fits is {told} (FVU {best.fvu:.3g}), but a scale of "
            f"{best.convention.scale} depends on the token: our dictionaries are linear in what "
            "they read, so it cannot be converted"
        )


def _words(convention: Convention) -> str:
    return ", ".join(f"{name}: {value}" for name, value in convention.told().items())


def _trial_record(trial: Trial) -> dict[str, Any]:
    return {
        "ways": trial.ways,
        "files": list(trial.files),
        "tokens": trial.tokens,
        "untrained_fvu": rounded(trial.untrained),
        "ambiguous": trial.is_ambiguous,
        "tried": [_tried_record(one, trial) for one in trial.tried],
    }


def _tried_record(one: Tried, trial: Trial) -> dict[str, Any]:
    told, best = one.convention.told(), trial.best.convention.told()
    return {
        **told,
        "differs": {name: value for name, value in told.items() if value != best[name]},
        "given": one.convention == trial.given,
        "fvu": one.fvu,
        "fvu_interval": one.fvu_interval,
        "worse": one.worse,
        "worse_interval": one.worse_interval,
        "same": one.is_the_same,
        "close": one.is_close,
    }
