"""Read and edit a model's tensors inside a `with` block; the model is restored on any exit.

A hook captures or edits and does nothing else. An edit that never ran looks the same as a
feature that does nothing, so leaving the block without it having run raises.
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager

from jaxtyping import Float
from torch import Tensor
from transformer_lens.model_bridge import TransformerBridge

from hooked_qwen.hook_points import hook_point
from hooked_qwen.placement import device_of
from hooked_qwen.precision import widened
from hooked_qwen.sites import READ_ONLY, Site

Activation = Float[Tensor, "batch pos d_model"]
HookFunction = Callable[[Activation], Activation]


@contextmanager
def capture(
    model: TransformerBridge, sites: Iterable[Site], *, must_run: bool = True
) -> Generator[dict[Site, Activation], None, None]:
    """Yield a dictionary that each forward pass inside the block fills with the sites' tensors.

    Tensors keep their autograd history, are float32 where the model's are less, and lie on the
    device where tokens are read (`hooked_qwen.placement.device_of`). A site that
    is captured and edited at once is seen as the contexts are nested: an outer capture sees the
    tensor before an inner edit.

    Raises `RuntimeError` on leaving if a site was never reached, unless it need not be
    (`must_run`).
    """
    with _captured(model, sites, prepend=False, must_run=must_run) as seen:
        yield seen


@contextmanager
def capture_arriving(
    model: TransformerBridge, sites: Iterable[Site]
) -> Generator[dict[Site, Activation], None, None]:
    """As `capture`, but sees each tensor before the edits of blocks around this one, too."""
    with _captured(model, sites, prepend=True, must_run=True) as seen:
        yield seen


@contextmanager
def _captured(
    model: TransformerBridge, sites: Iterable[Site], *, prepend: bool, must_run: bool
) -> Generator[dict[Site, Activation], None, None]:
    seen: dict[Site, Activation] = {}
    home = device_of(model)

    def keep(site: Site) -> HookFunction:
        def read(value: Activation) -> Activation:
            seen[site] = widened(value).to(home)
            # What was captured lies on the way on, so that gradients reach it.
            return seen[site].to(value)

        return read

    wanted = tuple(sites)
    with _hooked(model, {site: keep(site) for site in wanted}, prepend=prepend):
        yield seen
    if must_run:
        _require_all(wanted, seen, "captured")


@contextmanager
def intervene(
    model: TransformerBridge, edits: Mapping[Site, HookFunction], *, must_run: bool = True
) -> Generator[None, None, None]:
    """Replace the tensor `x` at each site by `edits[site](x)` inside the block.

    Edits see float32 where the model's tensors are less, on the device where tokens are read; what
    they give is rounded to the model's precision. Nested blocks compose: the outer edit runs first.

    Raises `ValueError` for a read-only site, and `RuntimeError` on leaving if an edit never ran,
    unless it need not (`must_run`), as in runs of some layers only.
    """
    ran: set[Site] = set()
    home = device_of(model)

    def watch(site: Site, edit: HookFunction) -> HookFunction:
        def change(value: Activation) -> Activation:
            ran.add(site)
            edited = edit(widened(value).to(home))
            if not isinstance(edited, Tensor) or edited.shape != value.shape:
                found = tuple(edited.shape) if isinstance(edited, Tensor) else edited
                raise ValueError(
                    f"the edit at {site} gave {found}, expected a tensor of shape "
                    f"{tuple(value.shape)}"
                )
            return edited.to(value)

        return change

    for site in edits:
        if site.kind in READ_ONLY:
            raise ValueError(
                f"{site} is read-only: the residual stream has taken its own copy by then. "
                f"Change attn_out.{site.layer} or resid_post.{site.layer} instead"
            )
    with _hooked(model, {site: watch(site, edit) for site, edit in edits.items()}):
        yield
    if must_run:
        _require_all(edits, ran, "edited")


@contextmanager
def _hooked(
    model: TransformerBridge, functions: Mapping[Site, HookFunction], *, prepend: bool = False
) -> Generator[None]:
    with ExitStack() as stack:
        for site, function in functions.items():
            handle = hook_point(model, site).register_forward_hook(
                lambda _module, _args, output, function=function: function(output),
                prepend=prepend,
            )
            stack.callback(handle.remove)
        yield


def _require_all(wanted: Iterable[Site], reached: Iterable[Site], verb: str) -> None:
    missed = sorted(set(wanted) - set(reached))
    if missed:
        raise RuntimeError(
            f"{', '.join(map(str, missed))} never {verb}: no forward pass inside the block "
            "reached the site. Run the model inside the `with` block, through that layer"
        )
