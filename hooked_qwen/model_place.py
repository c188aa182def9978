"""Where a model is: the bundled one, a folder, a GGUF file, adapters, or a name on the hub."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from transformers import AutoModelForCausalLM, AutoTokenizer

from hooked_qwen import bundled
from hooked_qwen.adapters import base_of
from hooked_qwen.files import build_folder_atomically, content_hash
from hooked_qwen.notices import first_line

BUNDLED = "bundled"


def local_folder(source: str | Path) -> Path | None:
    """The folder or file that `source` names on this machine, or None for a name on the hub."""
    if str(source) == BUNDLED:
        return bundled.PATH
    path = Path(source).expanduser()
    return path.resolve() if path.exists() else None


def source_hash(source: str | Path) -> str:
    """Content hash of a model's files; of a name on the hub, the name."""
    folder = local_folder(source)
    return str(source) if folder is None else content_hash(folder)


@dataclass(frozen=True)
class ModelPlace:
    """A local folder, or a name on the hub."""

    folder: Path | str
    revision: str | None = None
    "a branch, tag or commit of a model on the hub"
    gguf: str | None = None
    "the GGUF file in the folder that all is read from"
    adapters: tuple[Path, ...] = ()
    "folders of adapters to the model, one after another"


def unconverted(source: str | Path) -> ModelPlace:
    """As `place_of_model`, for what needs no weights: a GGUF file is read as it is."""
    path = local_folder(source)
    if path is not None and (base := base_of(path)) is not None:
        return _adapted(unconverted(base), path)
    if path is None or path.suffix != ".gguf" or not path.is_file() or _converted(path).exists():
        return place_of_model(source)
    return ModelPlace(path.parent, gguf=path.name)


def place_of_model(source: str | Path) -> ModelPlace:
    """The folder of a model's weights, those of a GGUF file dequantised, or its name on the hub.

    Raises `ValueError` where there is no model.
    """
    path = local_folder(source)
    if path is not None and (base := base_of(path)) is not None:
        return _adapted(place_of_model(base), path)
    if path is not None:
        return ModelPlace(_folder(path))
    name, _, revision = str(source).partition("@")
    looks_local = name.startswith(("/", ".", "~")) or name.endswith(".gguf")
    if looks_local or name.count("/") > 1:
        raise ValueError(f"there is no model at {source}: no such file or folder")
    return ModelPlace(name, revision or None)


def _adapted(base: ModelPlace, adapter: Path) -> ModelPlace:
    return replace(base, adapters=(*base.adapters, adapter))


def _folder(path: Path) -> Path:
    if path.is_file():
        if path.suffix != ".gguf":
            raise ValueError(f"{path} is a file: expected a .gguf file or a model's folder")
        return _dequantised(path)
    if not (path / "config.json").exists():
        raise ValueError(f"{path} holds no config.json: expected a Hugging Face model's folder")
    return path


def _dequantised(gguf: Path) -> Path:
    """Folder with the weights of `gguf` in float32, made on first use and kept in the cache."""
    folder = _converted(gguf)
    if not folder.exists():
        where: dict[str, Any] = {
            "pretrained_model_name_or_path": str(gguf.parent),
            "gguf_file": gguf.name,
        }

        def convert(partial: Path) -> None:
            quantised = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
            quantised.config.__dict__.pop("quantization_config", None)
            # A model that remembers its quantiser refuses to be saved; a fresh one of the same
            # class around the same dequantised tensors does not.
            with torch.device("meta"):
                plain = type(quantised)(quantised.config)
            plain.load_state_dict(quantised.state_dict(), assign=True)
            plain.tie_weights()
            plain.save_pretrained(partial)
            AutoTokenizer.from_pretrained(**where).save_pretrained(partial)

        try:
            build_folder_atomically(folder, convert)
        except Exception as error:  # damaged files fail in as many ways as there are parsers
            raise ValueError(f"cannot read {gguf} as a GGUF model: {first_line(error)}") from error
    return folder


def _converted(gguf: Path) -> Path:
    """Where the weights of `gguf` lie once they are dequantised."""
    return user_cache_path("qwen-circuits") / "gguf" / f"{gguf.stem}-{content_hash(gguf)}"
