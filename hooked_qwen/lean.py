"""TransformerLens' modules without what they do for hooks that nobody has set.

On each call they look for weights that accelerate has put elsewhere, compute a norm a second time
for the two hooks within it, read a block's signature, and call a module for each hook. With short
texts that is a fifth of a pass. Here it is left out where it changes nothing: results are the same
bits, and where a hook is set all is as TransformerLens has it.
"""

import inspect
from functools import cache
from typing import Any

from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.generalized_components.block import BlockBridge
from transformer_lens.model_bridge.generalized_components.normalization import NormalizationBridge


def make_lean(model: TransformerBridge) -> None:
    """Change the classes of a hooked model's modules, in place."""
    for module in model.modules():
        lean = next((way for base, way in LEAN.items() if isinstance(module, base)), None)
        if lean is not None and not isinstance(module, lean):
            module.__class__ = _lean_kind(type(module), lean)


@cache
def _lean_kind(kind: type[nn.Module], lean: type[nn.Module]) -> type[nn.Module]:
    """A class with the name of `kind` that does what `lean` says, and all else as `kind` does."""
    return type(kind.__name__, (lean, kind), {"__doc__": kind.__doc__})


class _LeanHook(HookPoint):
    def __call__(self, x: Tensor) -> Tensor:
        return super().__call__(x) if _is_hooked(self) else x


class _LeanComponent(GeneralizedComponent):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        wrapped = self._modules.get("_original_component")
        if wrapped is not None and "_hf_hook" in vars(wrapped):
            # Placed by accelerate, which may have to bring its weights here first.
            return super().__call__(*args, **kwargs)
        return nn.Module.__call__(self, *args, **kwargs)


class _LeanNorm(_LeanComponent, NormalizationBridge):
    def _hf_autograd_forward_with_hooks(self, x: Tensor) -> Tensor:
        if _is_hooked(self.hook_scale) or _is_hooked(self.hook_normalized):
            return super()._hf_autograd_forward_with_hooks(x)
        assert self.original_component is not None
        return self.original_component(x).to(x.dtype)


class _LeanBlock(_LeanComponent, BlockBridge):
    def _filter_kwargs_for_forward(
        self, kwargs: dict[str, Any], num_positional_args: int = 0
    ) -> dict[str, Any]:
        if _takes_any_keyword(type(self.original_component)):
            return kwargs
        return super()._filter_kwargs_for_forward(kwargs, num_positional_args)


LEAN = {
    HookPoint: _LeanHook,
    NormalizationBridge: _LeanNorm,
    BlockBridge: _LeanBlock,
    GeneralizedComponent: _LeanComponent,
}
"What stands in front of each class of TransformerLens and those made from it; the first that fits."


def _is_hooked(module: nn.Module) -> bool:
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
    )


@cache
def _takes_any_keyword(kind: type[nn.Module]) -> bool:
    parameters = inspect.signature(kind.forward).parameters.values()
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
