"""The plain Hugging Face model, for what trains it: loaded, its sites read and moved by hooks.

TransformerLens' bridge computes the same, but a trainer, peft and generation expect the model as
transformers has it. A peft model is read through: its adapters sit inside the layers.
"""

from collections.abc import Callable, Generator, Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from hooked_qwen.hooks import Activation, HookFunction
from hooked_qwen.load import trainable
from hooked_qwen.placement import AUTO, DtypeName, dtype_called, find_device
from hooked_qwen.sites import READ_ONLY, Site

End = Literal["input", "output"]


def load_plain(
    source: str | Path,
    *,
    dtype: torch.dtype | DtypeName = torch.float32,
    device: str | torch.device = AUTO,
) -> PreTrainedModel:
    """A Qwen model as transformers has it, every weight open to training, in evaluation mode.

    `source` is as `hooked_qwen.load.load` takes it. Raises `ValueError` as `load` does.
    """
    dtype = dtype_called(dtype) if isinstance(dtype, str) else dtype
    return cast(PreTrainedModel, trainable(source, dtype).to(find_device(device)).eval())


@contextmanager
def captured(model: nn.Module, sites: Iterable[Site]) -> Generator[dict[Site, Activation]]:
    """Yield a dictionary that each forward pass inside the block fills with the sites' tensors.

    They keep their autograd history, their precision and their device.
    """
    seen: dict[Site, Activation] = {}

    def keep(site: Site) -> HookFunction:
        def read(value: Activation) -> Activation:
            seen[site] = value
            return value

        return read

    with ExitStack() as stack:
        for site in set(sites):
            stack.enter_context(_attached(model, site, keep(site)))
        yield seen


@contextmanager
def shifted(model: nn.Module, site: Site, change: HookFunction) -> Generator[None]:
    """Replace the tensor at a site by `change` of it inside the block.

    Raises `ValueError` for a read-only site, and `RuntimeError` on leaving if no pass ran.
    """
    if site.kind in READ_ONLY:
        raise ValueError(
            f"{site} is read-only: the residual stream has taken its own copy by then. "
            f"Change attn_out.{site.layer} or resid_post.{site.layer} instead"
        )
    ran = False

    def changed(value: Activation) -> Activation:
        nonlocal ran
        ran = True
        return change(value)

    with _attached(model, site, changed):
        yield
    if not ran:
        raise RuntimeError(f"{site} was never changed: no forward pass inside the block reached it")


@contextmanager
def _attached(model: nn.Module, site: Site, change: HookFunction) -> Generator[None]:
    module, end = place_of(model, site)
    if end == "input":
        handle = module.register_forward_pre_hook(_on_input(change), with_kwargs=True)
    else:
        handle = module.register_forward_hook(_on_output(change))
    try:
        yield
    finally:
        handle.remove()


def _on_input(change: HookFunction) -> Callable[..., Any]:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, kwargs | {"hidden_states": change(kwargs["hidden_states"])}

    return hook


def _on_output(change: HookFunction) -> Callable[..., Any]:
    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    return hook


def place_of(model: nn.Module, site: Site) -> tuple[nn.Module, End]:
    """The module that has a site's tensor, and at which of its ends.

    Raises `ValueError` past the last layer, and for the neurons of a mixture of experts.
    """
    decoder = cast(Any, model).get_decoder()
    if site.kind == "embed":
        return decoder.embed_tokens, "output"
    if site.layer >= len(decoder.layers):
        raise ValueError(
            f"the model has layers 0 to {len(decoder.layers) - 1}, so there is no site {site}"
        )
    layer = decoder.layers[site.layer]
    match site.kind:
        case "resid_pre":
            return layer, "input"
        case "attn_out":
            mixer = layer.linear_attn if hasattr(layer, "linear_attn") else layer.self_attn
            return mixer, "output"
        case "resid_mid":
            return layer.post_attention_layernorm, "input"
        case "mlp_in":
            return layer.mlp, "input"
        case "mlp_hidden":
            if not hasattr(layer.mlp, "down_proj"):
                raise ValueError(f"the MLP of layer {site.layer} is a mixture: it has no {site}")
            return layer.mlp.down_proj, "input"
        case "mlp_out":
            return layer.mlp, "output"
        case _:
            return layer, "output"
