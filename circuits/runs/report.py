"""The report of runs: what lies in their folders and beside them, gathered onto one page."""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from circuits.prompts import read_prompts
from circuits.render.pages.report.report import Reported, report_page
from circuits.runs.finished_run import Run, read_run
from circuits.runs.folder import verification_of
from circuits.runs.overwrite import ABLATIONS, EDITED, MADE_FROM, check_page, digest, signed
from circuits.runs.shown_paths import changes, in_record, shown_argument, shown_path
from hooked_qwen.files import content_hash, write_text_atomically

PROMPTS = 6
"Prompts of a run that its section shows."


def report_runs(
    folders: Sequence[Path], out: Path, *, nodes: int = 25, title: str = "", force: bool = False
) -> list[Reported]:
    """Write one page of some runs; figures show `nodes` nodes.

    Raises `ValueError` for a folder that is no finished run, and where `out` is anything but a
    report of the same runs, unless by `force`.
    """
    runs = [read_run(folder) for folder in folders]
    names = _names(folders)
    source = digest("report", *(folder.resolve().as_posix() for folder in folders))
    check_page(out, source, force=force)
    base = out.resolve().parent
    gathered = [_gathered(run, name, base) for run, name in zip(runs, names, strict=True)]
    usual = names[0] if len(names) == 1 else f"{len(names)} circuits"
    page = signed(report_page(gathered, title=title or usual, nodes=nodes), source)
    write_text_atomically(out, page)
    return gathered


def _names(folders: Sequence[Path]) -> list[str]:
    """The last part of each path, with the folders above where two have one."""
    parts = [folder.resolve().parts[1:] for folder in folders]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-length:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise ValueError("a run is named twice: name each once")


def _gathered(run: Run, name: str, base: Path) -> Reported:
    """What is known of a run, its paths as they are from `base`, the folder of the page."""
    folder = run.folder
    told = changes(_paths(run, base))
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    verification = verification_of(folder)
    ablations = in_record(_records(folder / ABLATIONS, "result.json"), told)
    edited = in_record(_records(folder / EDITED, "verification.json"), told)
    stability = folder / "stability.json"
    return Reported(
        name=name,
        graph=run.graph,
        prompts=_sample(run),
        dictionaries=_dictionaries(run),
        verification=verification,
        stability=json.loads(stability.read_text("utf-8")) if stability.exists() else None,
        ablations=ablations,
        edited=edited,
        reruns=in_record(_reruns(folder), told),
        commands=_commands(folder, manifest, verification, ablations, base),
        origin=_origin(manifest, base),
    )


def _paths(run: Run, base: Path) -> dict[str, str]:
    """Those that texts of a run's records may hold, and how the page shows them."""
    inputs = run.inputs
    found = (str(run.folder.resolve()), inputs.model, inputs.dictionaries, inputs.prompts)
    return {path: shown_path(path, base) for path in found if Path(path).is_absolute()}


def _records(folder: Path, name: str) -> dict[str, Any]:
    """Records of one name in the folders of a folder, by these."""
    return {
        path.parent.name: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob(f"*/{name}"))
        if not path.parent.name.startswith(".")
    }


def _reruns(folder: Path) -> dict[str, Any]:
    """Reruns of edits in folders beside the run, and in it, that are of this run's graph."""
    own = content_hash(folder / "graph.json")
    found = _records(folder.resolve().parent, "result.json") | _records(folder, "result.json")
    return {
        name: record
        for name, record in found.items()
        if isinstance(record, Mapping)
        and record.get("schema") == "rerun/1"
        and (record.get(MADE_FROM) or {}).get("run") == own
    }


def _sample(run: Run) -> list[dict[str, str]]:
    """The first prompts, where their file is still there."""
    path = Path(run.inputs.prompts)
    if not run.inputs.prompts or not path.is_file():
        return []
    return [
        {
            "clean": prompt.clean,
            "patch": prompt.patch or "–",
            "answer": " / ".join(prompt.answer) or "the model's own",
            "wrong": " / ".join(prompt.wrong) or "–",
        }
        for prompt in read_prompts(path)[:PROMPTS]
    ]


def _dictionaries(run: Run) -> list[dict[str, Any]]:
    """Each dictionary of the graph, with the metrics in its folder where there are some."""
    listed = []
    for name, about in (run.graph.graph.get("dictionaries") or {}).items():
        path = Path(run.inputs.dictionaries) / str(about.get("folder")) / "dictionary.json"
        metrics: Mapping[str, Any] = {}
        if path.is_file():
            metrics = json.loads(path.read_text(encoding="utf-8")).get("metrics") or {}
        listed.append(
            {"name": name, "source": about.get("source"), "hash": about.get("hash"), **metrics}
        )
    return listed


def _commands(
    folder: Path,
    manifest: Mapping[str, Any],
    verification: Mapping[str, Any] | None,
    ablations: Mapping[str, Any],
    base: Path,
) -> list[str]:
    """Command lines that make it all again: the run's own, and what its records were made from."""
    given = [shown_argument(str(part), base) for part in manifest.get("command") or ()]
    lines = [shlex.join(given) if given else "# made from Python: no command line is recorded"]
    run = shlex.quote(shown_path(str(folder.resolve()), base))
    if verification is not None:
        settings = verification.get(MADE_FROM) or {}
        parts = [f"circuits verify {run}", f"--level {settings.get('level', 'full')}"]
        parts += [f"--{name} {settings[name]}" for name in ("to", "seed") if settings.get(name)]
        if settings.get("held_out_hash"):
            parts.append(f"--held-out FILE  # {settings['held_out_hash']}")
        lines.append(" ".join(parts))
    for name, record in ablations.items():
        settings, nodes = record.get(MADE_FROM) or {}, record.get("features") or ()
        chosen = f"--features {shlex.quote(','.join(nodes))}"
        if settings.get("outside"):
            chosen = "--outside"
        parts = [f"circuits ablate {run}", chosen, f"--to {record['to']}"]
        parts.append(f"--name {shlex.quote(name)}")
        if settings.get("prompts_hash"):
            parts.append(f"--prompts FILE  # {settings['prompts_hash']}")
        lines.append(" ".join(parts))
    return lines


def _origin(manifest: Mapping[str, Any], base: Path) -> list[tuple[str, str]]:
    names = {
        "imported": "imported from",
        "model_path": "model",
        "model_hash": "model, hash",
        "dictionaries_path": "dictionaries",
        "dictionaries_hash": "dictionaries, hash",
        "prompts_path": "prompts",
        "prompts_hash": "prompts, hash",
        "seed": "seed",
        "device": "device",
        "dtype": "precision of the model",
        "wall_seconds": "seconds it took",
        "peak_memory_mb": "peak memory, MB",
    }
    rows = [
        (said, shown_path(str(manifest[name]), base))
        for name, said in names.items()
        if manifest.get(name) not in (None, "")
    ]
    versions = (manifest.get("versions") or {}).items()
    return rows + [(name, str(version)) for name, version in versions if version]
