"""Dictionaries on the Hugging Face hub: listed at once, each file fetched when it is used.

hf:org/name[/folder][@revision]     org/name[@revision] where no such folder is here
"""

import re
from pathlib import Path

from huggingface_hub import HfApi, constants, hf_hub_download
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.file_download import repo_folder_name

from hooked_qwen.files import write_atomically
from hooked_qwen.notices import first_line
from saes.formats import ours
from saes.formats.place import Place, local_place

NAME = re.compile(r"(?:hf:)?([\w.-]+/[\w.-]+)((?:/[\w.-]+)*)(?:@([\w./-]+))?")
INDEX = "suite.json, cfg.json, config.json, config.yaml or a layer's file"


def is_hub_name(source: str) -> bool:
    """Whether `source` can only be, or at least could be, a name on the hub."""
    named = NAME.fullmatch(source)
    return named is not None and (source.startswith("hf:") or (source[0] != "." and not named[2]))


def hub_place(source: str) -> Place:
    """The repository or folder of one that `source` names, its revision pinned to a commit.

    Raises `ValueError` when the name is none, or nothing can be listed: then of a repository
    that was used before, what was downloaded counts.
    """
    named = NAME.fullmatch(source)
    if named is None:
        raise ValueError(f"{source!r} is no name on the hub: write hf:org/name[/folder][@revision]")
    repo, folder, revision = named[1], named[2].strip("/"), named[3]
    commit, names = _listing(repo, revision)
    prefix = f"{folder}/" if folder else ""

    def fetch(name: str) -> Path:
        return _fetch(repo, prefix + name, commit)

    return Place(
        label=f"hf:{repo}{named[2]}@{commit}",
        name=(folder or repo).rpartition("/")[2],
        names=tuple(sorted(n.removeprefix(prefix) for n in names if n.startswith(prefix))),
        fetch=fetch,
    )


def push_suite(folder: Path, repo_id: str, *, message: str = "Add dictionaries") -> str:
    """Upload a suite of ours to the hub, making the repository where there is none.

    Returns the address of the commit; raises `ValueError` when `folder` is no suite, or the hub
    does not take it.
    """
    ours.suite_folders(folder)
    api = HfApi()
    try:
        api.create_repo(repo_id, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=message,
            ignore_patterns=[".*", "**/.*"],
        )
    except Exception as error:  # the hub's client fails in as many ways as there are networks
        raise ValueError(f"cannot push {folder} to {repo_id}: {first_line(error)}") from error
    return str(commit.commit_url)


def _listing(repo: str, revision: str | None) -> tuple[str, tuple[str, ...]]:
    """The commit that a revision names and the files in it."""
    try:
        info = HfApi().model_info(repo, revision=revision)
        files = [sibling.rfilename for sibling in info.siblings or ()]
    except (GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        at = f"@{revision}" if revision else ""
        raise ValueError(
            f"the hub gives no {repo}{at}: {first_line(error)}; check the name, or log in"
        ) from error
    except Exception as error:  # no network, or one of the many ways of having half of one
        return _downloaded(repo, revision, error)
    # Files are fetched by commit, of which the client would keep no name to find it by offline.
    reference = _cache(repo) / "refs" / (revision or "main")
    write_atomically(reference, lambda path: path.write_text(str(info.sha)))
    return str(info.sha), tuple(f for f in files if not f.startswith("."))


def _downloaded(repo: str, revision: str | None, error: Exception) -> tuple[str, tuple[str, ...]]:
    reference = _cache(repo) / "refs" / (revision or "main")
    commit = reference.read_text().strip() if reference.is_file() else revision or ""
    snapshot = _cache(repo) / "snapshots" / commit
    if not commit or not snapshot.is_dir():
        raise ValueError(
            f"cannot list {repo} on the hub ({first_line(error)}) and nothing of it is downloaded: "
            f"wanted its {INDEX}; give a folder on this machine, or go online once"
        ) from error
    return commit, local_place(snapshot).names


def _cache(repo: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model")


def _fetch(repo: str, name: str, commit: str) -> Path:
    try:
        return Path(hf_hub_download(repo, name, revision=commit))
    except Exception as error:  # the hub's client fails in as many ways as there are networks
        raise ValueError(f"cannot fetch {name} of {repo}@{commit}: {first_line(error)}") from error
