"""Gemma Scope 1 and 2 and Qwen-Scope: each a table, and where its facts stand.

    gemma-scope-2b-pt-res/layer_L/width_16k/average_l0_N/params.npz
        W_enc [d, m], W_dec [m, d], b_enc [m], b_dec [d], threshold [m]

    resid_post/layer_9_width_16k_l0_small/{params.safetensors,config.json}
        w_enc [s, m], w_dec [m, t], b_enc [m], b_dec [t], threshold [m],
        optional affine_skip_connection [s, t]

    SAE-Res-Qwen3-1.7B-Base-W32K-L0_50/layer{n}.sae.pt
        W_enc [m, d], W_dec [d, m], b_enc [m], b_dec [d]

    p = x @ W_enc + b_enc;   y = f @ W_dec + b_dec (+ x @ affine_skip_connection, not transposed)
    f = relu(p) * [p > threshold]                   Gemma Scope
    f = the k largest of p, negative ones too       Qwen-Scope

Gemma Scope 1 has the site's kind in the repository's name: `res` or `mlp`. `att` reads the heads
before they are mixed and `transcoders` before the norm's gain: no sites of ours, so refused. The
sites of 2 are `hf_hook_point_in` and, for transcoders, `hf_hook_point_out`.

Qwen-Scope has k in the repository's name. File n is read from the output of decoder layer n, which
is `resid_post.n`; Hugging Face's `hidden_states[n + 1]` equals it except after the last layer,
where it is normed.

Source: Lieberum et al. 2024, arXiv:2408.05147, of Gemma Scope 1.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hooked_qwen.sites import Site
from saes.formats.layout import layout_of_files, layout_of_folders
from saes.formats.place import Place
from saes.formats.reading import Config
from saes.formats.terms import Terms

KINDS = {"res": "resid_post", "mlp": "mlp_out"}


def _gemma_site(place: Place) -> str:
    named = re.findall(r"gemma-scope-[^/]*?-(res|mlp|att|transcoders)(?![a-z])", place.label)
    if not named or named[-1] not in KINDS:
        what = f"the kind {named[-1]!r}, which reads no site of ours" if named else "no kind"
        raise ValueError(
            f"{place.label} names {what}: the folder must be called as published, "
            "such as gemma-scope-2b-pt-res or gemma-scope-2b-pt-mlp"
        )
    return f"{KINDS[named[-1]]}.{{layer}}"


def _gemma(path: Path) -> Terms:
    return Terms(
        axes={"W_enc": "dm", "W_dec": "md", "b_enc": "m", "b_dec": "d", "threshold": "m"},
        architecture="jumprelu",
        k=int(path.parent.name.removeprefix("average_l0_")) or None,
    )


def _gemma_2_sites(config: Config, _: str) -> tuple[Site, Site]:
    config.check(architecture={None: "it is not there", "jump_relu": ""})
    source = config.site("hf_hook_point_in")
    transcodes = config.field("hf_hook_point_out", str, None) is not None
    return source, config.site("hf_hook_point_out") if transcodes else source


def _gemma_2(config: Config, tensors: Mapping[str, Tensor], path: Path) -> Terms:
    return Terms(
        axes={"w_enc": "sm", "w_dec": "mt", "b_enc": "m", "b_dec": "t", "threshold": "m"},
        optional={"affine_skip_connection": "st"},
        architecture="jumprelu",
        k=config.field("l0", int, None),
    )


def _qwen(path: Path) -> Terms:
    named = re.findall(r"L0_(\d{1,6})", str(path.absolute()))
    if not named:
        raise ValueError(
            f"{path} does not say how many features it keeps: its folder must be called as "
            "published, such as SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
        )
    axes = {"W_enc": "md", "W_dec": "dm", "b_enc": "m", "b_dec": "d"}
    return Terms(axes=axes, k=int(named[-1]), signed=True)


QWEN_SCOPE = layout_of_files(
    "qwen-scope",
    files="**/layer{layer}.sae.pt",
    site=lambda place: "resid_post.{layer}",
    terms=_qwen,
)
GEMMA_SCOPE = layout_of_files(
    "gemma-scope",
    files="**/layer_{layer}/width_*/average_l0_{k}/params.npz",
    site=_gemma_site,
    terms=_gemma,
)
GEMMA_SCOPE_2 = layout_of_folders(
    "gemma-scope-2",
    weights="params.safetensors",
    config="config.json",
    sites=_gemma_2_sites,
    terms=_gemma_2,
)
