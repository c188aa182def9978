"""The one place that loads weights: a hub name, a local folder, a GGUF file, or the bundled model.

Weights are Hugging Face's as they are (nothing folded or centred), so the hooked model's logits
equal Hugging Face's.
"""

import os
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import (
    build_bridge_from_module,
    detect_tokenizer_bos_eos,
)
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
)

from hooked_qwen import bundled
from hooked_qwen.adapters import with_adapter
from hooked_qwen.identity import identity_of, known_as
from hooked_qwen.lean import make_lean
from hooked_qwen.model_place import BUNDLED, ModelPlace, place_of_model, unconverted
from hooked_qwen.moved import moved
from hooked_qwen.notices import first_line, notify
from hooked_qwen.placement import AUTO, DtypeName, dtype_called, find_devices
from hooked_qwen.precision import HALF
from hooked_qwen.spread import spread
from hooked_qwen.tensor_files import aligned

ARCHITECTURES = (
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "Qwen3_5ForCausalLM",
    "Qwen3_5MoeForCausalLM",
)
"Classes of language models that can be hooked; they load from checkpoints of other classes too."
META = torch.device("meta")
"Where tensors have shapes and no values."


def load(
    source: str | Path,
    *,
    dtype: torch.dtype | DtypeName = torch.float32,
    device: str | torch.device = AUTO,
) -> TransformerBridge:
    """A hooked Qwen model with its tokenizer, in evaluation mode, weights frozen.

    `source` is `"bundled"`, a local folder (of a model, or of an adapter to one, which is merged
    into it), a `.gguf` file (dequantised once, the result kept in the user's cache folder), or a
    model on the hub as `org/name` or `org/name@revision`. `device`
    is any that torch knows; `auto` takes the first accelerator, else the CPU; over several, such
    as `cuda:0,cuda:1`, the layers are spread (`hooked_qwen.spread`).

    Of a model that takes images as well (Qwen3.5 as published) the language model is loaded.

    Raises `ValueError` with one line when nothing is there, the hub cannot be reached, the
    language model is not one of `ARCHITECTURES`, or there is no such device.
    """
    home, *others = find_devices(device)
    place = place_of_model(source)
    name = BUNDLED if place.folder == bundled.PATH else Path(source).name
    config = _from_hub(AutoConfig, place, source)
    _require_known_class(config, source)
    dtype = dtype_called(dtype) if isinstance(dtype, str) else dtype
    known = None
    if dtype in HALF:
        # A model is known by what its files hold, not by what is left of it in less precision.
        whole = _weights(place, source, "auto")
        known = None if whole.dtype == dtype else identity_of(whole)
        del whole
    model = _weights(place, source, dtype)
    if others:
        spread(model, [home, *others])
    else:
        model.to(home)
    bridge = hook(model, tokenizer=load_tokenizer(source), name=name)
    if known is not None:
        known_as(bridge, known)
    return bridge


def trainable(source: str | Path, dtype: torch.dtype) -> Any:
    """The Hugging Face model itself, as it is loaded: without hooks, its weights open to training.

    `hooked_qwen.plain_model.load_plain` puts it on a device. Raises `ValueError` as `load` does.
    """
    place = place_of_model(source)
    _require_known_class(_from_hub(AutoConfig, place, source), source)
    return _weights(place, source, dtype, attention="sdpa")


def load_config(source: str | Path) -> Any:
    """The configuration of a model, without its weights; of a GGUF file, from its metadata.

    Raises `ValueError` as `load` does.
    """
    config = _from_hub(AutoConfig, unconverted(source), source)
    _require_known_class(config, source)
    return config.get_text_config()


def weight_files(source: str | Path) -> list[Path]:
    """The files with a model's weights, where they are on this machine as they are loaded."""
    place = unconverted(source)
    if place.gguf is not None or not Path(place.folder).is_dir():
        return []
    found = (sorted(Path(place.folder).glob(f"*.{kind}")) for kind in ("safetensors", "bin"))
    return next((files for files in found if files), [])


def random_model(
    config: Any, *, dtype: torch.dtype, device: torch.device, name: str
) -> TransformerBridge:
    """A hooked model of a configuration with random weights; on `META` shapes without values."""
    return hook(unhooked(config, dtype=dtype, device=device), name=name)


def unhooked(
    config: Any, *, dtype: torch.dtype = torch.float32, device: torch.device = META
) -> PreTrainedModel:
    """Hugging Face's model of a configuration: shapes alone, elsewhere with random weights."""
    with device:
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager")


def _weights(
    place: ModelPlace, source: str | Path, dtype: torch.dtype | str, *, attention: str = "eager"
) -> Any:
    model, loading = _from_hub(
        AutoModelForCausalLM,
        place,
        source,
        dtype=dtype,
        attn_implementation=attention,
        output_loading_info=True,
    )
    _require_all_weights(loading, source)
    for folder in place.adapters:
        model = with_adapter(model, folder)
    return model


def load_tokenizer(source: str | Path) -> Any:
    """The tokenizer of a model, without its weights.

    Raises `ValueError` as `load` does, and when the model has no tokenizer beside it.
    """
    tokenizer = _from_hub(AutoTokenizer, unconverted(source), source)
    # Without files, transformers makes one of the model's class that knows no text at all.
    if not set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens):
        raise ValueError(
            f"{source} holds no tokenizer, or one without a vocabulary: put the tokenizer.json "
            "and tokenizer_config.json of the model that it was made from beside its weights"
        )
    return tokenizer


def hook(model: PreTrainedModel, *, tokenizer: Any = None, name: str) -> TransformerBridge:
    """Put hooks into a Hugging Face Qwen model already in memory; the model is changed in place.

    Attention is switched to the eager implementation, the one whose every step has a hook.
    """
    model.set_attn_implementation("eager")
    model.eval().requires_grad_(False)
    for tensor in chain(model.parameters(), model.buffers()):
        tensor.data = aligned(tensor.data)
    # TransformerLens puts the modules that it adds into the model's mode.
    bridge = build_bridge_from_module(
        model,
        type(model).__name__,
        hf_config=model.config,
        model_name=name,
    )
    make_lean(bridge)
    if tokenizer is not None:
        # Given when the bridge is built, TransformerLens takes a copy that begins every text with
        # the beginning-of-sequence token, whether the tokenizer itself does so or not.
        bridge.tokenizer = tokenizer
        adds = detect_tokenizer_bos_eos(tokenizer)
        bridge.cfg.tokenizer_prepends_bos, bridge.cfg.tokenizer_appends_eos = adds
        bridge.cfg.default_prepend_bos = bridge.cfg.tokenizer_prepends_bos
    return bridge


def _from_hub(auto: Any, place: ModelPlace, source: str | Path, **options: Any) -> Any:
    folder = place.folder
    if place.revision is not None:
        options["revision"] = place.revision
    if place.gguf is not None:
        options["gguf_file"] = place.gguf
    try:
        return auto.from_pretrained(folder, **options)
    except Exception as error:  # damaged files fail in as many ways as there are parsers
        where = f"the folder {folder}" if Path(folder).exists() else f"{folder!r} on the hub"
        hint = ""
        if not Path(folder).exists():
            offline = os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0")
            hint = (
                "; HF_HUB_OFFLINE is set, so only models already downloaded can be loaded"
                if offline
                else "; check the name and the network, or give a local folder or .gguf file"
            )
        raise ValueError(f"cannot load {source} from {where}: {first_line(error)}{hint}") from error


def _require_known_class(config: Any, source: str | Path) -> None:
    """Raise `ValueError` unless the class that will be loaded is one of `ARCHITECTURES`.

    A configuration may name another class: that of the whole of which this is the language model.
    """
    classes: Any = MODEL_FOR_CAUSAL_LM_MAPPING
    try:
        loaded = classes[type(config)].__name__
    except KeyError:
        loaded = (getattr(config, "architectures", None) or [f"model of {config.model_type}"])[0]
    if loaded not in ARCHITECTURES:
        raise ValueError(f"{source} is a {loaded}: expected one of {', '.join(ARCHITECTURES)}")


def _require_all_weights(loading: dict[str, Any], source: str | Path) -> None:
    """Raise `ValueError` naming the tensors that the files lack: they would be random numbers."""
    missing = sorted(loading["missing_keys"])
    missing += sorted(key for key, *_ in loading["mismatched_keys"])
    if missing:
        raise ValueError(
            f"the weights of {source} are not complete: {', '.join(missing[:3])}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            + " missing or of another shape"
        )
    if spare := sorted(loading["unexpected_keys"]):
        more = f" and {len(spare) - 3} more" if len(spare) > 3 else ""
        notify(
            f"{source} has weights that its language model does not use: "
            f"{', '.join(spare[:3])}{more}"
        )


__getattr__ = moved(__name__, {"local_folder": "hooked_qwen.model_place"})
