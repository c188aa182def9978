"""Put people's and models' labels of features where pages and figures find them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from circuits import graph as graphs
from circuits.features.describe import SCHEMA as DESCRIPTIONS
from circuits.features.explanation_exports import Target, exported
from circuits.features.explanations import read_explanations
from circuits.features.labels import LABELS, PERSON, Label, merged, read_labels, write_labels
from circuits.runs.folder import write_pages
from circuits.runs.overwrite import check_folder
from circuits.runs.pages import FEATURES, GRAPH, SUITE, run_of
from hooked_qwen.files import build_folder_atomically
from saes.formats.reading import read_json
from saes.suite import find


@dataclass(frozen=True, kw_only=True)
class AddedLabels:
    """What became of labels that were given."""

    path: Path
    labels: Mapping[str, Label]
    "all that the file has"
    taken: int
    outranked: int
    "labels of models for features that a person has named"
    of_other_sites: Mapping[str, int]
    "labels left out, by a site that there is no dictionary of"
    stale: Path | None
    "a page with the old names, made by another command"


def add_labels(
    folder: Path,
    files: Sequence[Path] = (),
    *,
    given: Mapping[str, Label] | None = None,
    said: Sequence[str] = (),
    by: str | None = None,
    sites: Sequence[str] = (),
) -> AddedLabels:
    """Add what `files`, `given` and `said` (`SITE/INDEX=TEXT`) call features to a folder's labels.

    The folder is a run, whose pages are drawn anew, or dictionaries. `by` says whose words they
    are where a file does not; `sites` what a file's layers are called here, `NAME=SITE`. A model's
    word does not replace a person's.

    Raises `ValueError` for a folder that is neither or that is not here, for a file without
    explanations, and where none of them is of a site that the folder has.
    """
    known = _dictionaries(folder)
    told = _pairs(said, "SITE/INDEX=TEXT")
    for key in told:
        if not key.rpartition("/")[2].isdecimal():
            raise ValueError(
                f"{key!r} is no feature: write SITE/INDEX=TEXT, such as 'mlp_out.3/812=plurals'"
            )
    found: dict[str, Label] = dict(given or {})
    for file in files:
        found |= read_explanations(file, _pairs(sites, "NAME=SITE"))
    found |= {key: Label(text=text) for key, text in told.items()}
    if by is not None:
        found = {k: replace(x, by=by) if x.by == PERSON else x for k, x in found.items()}
    of_other = _counted(key for key in found if _site(key) not in known)
    taken = {key: label for key, label in found.items() if _site(key) in known}
    if found:
        check_keeps_labels(folder, map(_site, found))
    path = folder / LABELS
    before = read_labels(path)
    after = merged([before, taken])
    if taken:
        write_labels(after, path)
        if run_of(folder) == folder.resolve():
            write_pages(folder)
    suite = folder / FEATURES / SUITE
    return AddedLabels(
        path=path,
        labels=after,
        taken=sum(after[key] == label for key, label in taken.items()),
        outranked=sum(after[key] != label for key, label in taken.items()),
        of_other_sites=of_other,
        stale=suite if taken and suite.exists() else None,
    )


def check_keeps_labels(folder: Path, sites: Iterable[str]) -> None:
    """Raise `ValueError` where `add_labels` could not add labels of features of these sites.

    That is for what is neither a run nor dictionaries, such as the name of the bundled ones, which
    are no folder; for dictionaries of other sites; and for a `labels.json` that cannot be read.
    """
    if not folder.is_dir():
        raise ValueError(
            f"labels are kept in a folder of yours, and {folder} is none: name a run, or a folder "
            "of dictionaries (the bundled ones are part of the package)"
        )
    read_labels(folder / LABELS)
    known, sites = _dictionaries(folder), set(sites)
    if not sites & known:
        raise ValueError(
            f"no label is of a dictionary of {folder}, all are of {', '.join(sorted(sites))}: "
            f"expected some of {', '.join(sorted(known))}; --site NAME=SITE tells which is which"
        )


def export_labels(
    labels: Mapping[str, Label],
    target: Target,
    out: Path,
    *,
    sites: Sequence[str] = (),
    model_id: str | None = None,
    described: Path | None = None,
    force: bool = False,
) -> int:
    """Write labels into the folder `out` as others read them; how many files there are.

    `sites` says what our dictionaries are called there, `NAME=SITE` as for `add_labels`.

    Raises `ValueError` where the folder holds something else.
    """
    names = {site: name for name, site in _pairs(sites, "NAME=SITE").items()}
    record = None if described is None else read_json(described)
    if record is not None and record.get("schema") != DESCRIPTIONS:
        raise ValueError(f"{described} is not what `circuits describe` writes: no {DESCRIPTIONS}")
    files = exported(labels, target, model_id=model_id, names=names, described=record)
    check_folder(out, files, force=force)

    def build(folder: Path) -> None:
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(content)

    build_folder_atomically(out, build)
    return len(files)


def _dictionaries(folder: Path) -> set[str]:
    """Names of the dictionaries that a run or a folder has."""
    if run_of(folder) == folder.resolve():
        graph = graphs.load(folder / GRAPH)
        return {*(graph.graph.get("dictionaries") or {})} | {node.site for node in graph}
    return {entry.name for entry in find(folder).entries}


def _pairs(texts: Sequence[str], form: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise ValueError(f"{text!r} is not of the form {form}")
        pairs[name.strip()] = value.strip()
    return pairs


def _site(key: str) -> str:
    return key.rpartition("/")[0]


def _counted(keys: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for key in keys:
        counts[_site(key)] = counts.get(_site(key), 0) + 1
    return counts
