"""Write the loader of a baked model: readable torch and transformers, only what the edit needs.

Each part of the text below is there if an operation asks for it. A folder's loader is a file to
read, not a package to install: it imports nothing of ours.
"""

from hooked_qwen.nodes import EVERY
from hooked_qwen.sites import Site
from saes.dictionary import SparseDictionary
from saes.edit_file import Edit
from saes.edit_words import in_words
from saes.operations import kind_of
from saes.suite import Suite

LOADER = "load_edited.py"
MODULES = {
    "attn_out": "layers[{layer}].self_attn",
    "mlp_out": "layers[{layer}].mlp",
    "resid_post": "layers[{layer}]",
}
HEAD = '''"""A model with an edit: load() gives what from_pretrained would, edited in every run.

{words}

    from load_edited import load
    model = load()

Plain torch, safetensors and transformers; edit.json says what is done, dictionaries/ to what.{note}
"""

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

FOLDER = Path(__file__).parent
EDIT = json.loads((FOLDER / "edit.json").read_text(encoding="utf-8"))
'''
CACHE = """
Texts are generated with a cache, which is the default: a pass without one begins a new text."""
ON = "ON = {}  # by dictionary, the features that arrive\n"
NOW = "NOW = {}  # where in its text each token of the pass stands, and where its prompt ends\n"
MEAN = '''

def mean(node):
    """What a node's mean is: a number, or a vector."""
    found = EDIT["means"].get(node, EDIT["means"].get(node.split("@")[0]))
    if not isinstance(found, dict):
        return torch.tensor(found)
    every = torch.zeros(found["features"])
    for i in found.keys() - {"features"}:
        every[int(i)] = found[i]
    return every
'''
FOLLOW = '''

def follow(model, args, kwargs):
    """Before each pass: number its tokens."""
    tokens = args[0] if args else kwargs.get("input_ids", kwargs.get("inputs_embeds"))
    cache = kwargs.get("past_key_values")
    past = 0 if cache is None else cache.get_seq_length()
    mask = kwargs.get("attention_mask")
    mask = torch.ones(len(tokens), past + tokens.shape[1]) if mask is None else mask
    mask = mask.to(tokens.device)[:, : past + tokens.shape[1]]
    NOW["at"] = (mask.cumsum(-1) - 1).masked_fill(mask == 0, -1)[:, past:]
    if not past:
        NOW["prompt"] = mask.sum(-1, keepdim=True)
'''
WHERE = '''

def where(op):
    """The tokens at which an operation is done."""
    at, prompt = NOW["at"], NOW["prompt"]
    found = at >= 0
    if "@" in op["node"]:
        found = at == int(op["node"].split("@")[1])
    asked = op["positions"]
    if isinstance(asked, list):
        return found & torch.isin(at, torch.tensor(asked, device=at.device))
    limits = {"all": at >= 0, "prompt": at < prompt, "generated": at >= prompt}
    return found & limits.get(asked, at >= prompt - 1)
'''
NORMS = '''

def usual(op, args, x):
    """The tokens that are no norm outliers, at what a module reads and gives."""
    found = torch.ones_like(x[..., 0], dtype=torch.bool)
    for site, limit in op.get("norm_below", {}).items():
        tensor = args[0] if site.startswith("mlp_in") else x
        found = found & (tensor.float().norm(dim=-1) <= limit)
    return found
'''
ENCODERS = {
    "topk": """        value, index = pre.topk({k})
        return torch.zeros_like(pre).scatter(-1, index, value{relu})
""",
    "threshold": """        return pre.relu() * (pre > d["threshold"])
""",
    "relu": """        return pre.relu()
""",
}


class CannotWrite(ValueError):
    """Why there is no loader for an edit."""


def loader_text(suite: Suite, edit: Edit) -> str:
    """The loader of an edit; raises `CannotWrite` with the reason where there is none."""
    names = needed(suite, edit)
    for op in edit.operations:
        if op.needs == "patch":
            raise CannotWrite(f"{op.node} goes to the patch's value, which no other text has")
        if kind_of(op.do).formula is None:
            raise CannotWrite(f"{op.do} of {op.node} has no formula in its row of operations")
        for site, _ in op.norm_below:
            own = Site.parse(op.node.site)
            if site != own and (site, own.kind) != (Site("mlp_in", own.layer), "mlp_out"):
                raise CannotWrite(
                    f"{op.node} is edited by the norm at {site}: the loader knows that of what its "
                    "own module reads and gives"
                )
    placed = any(op.positions != "all" or op.node.position is not None for op in edit.operations)
    placed = placed or any(n.position is not None for op in edit.operations for n in op.besides)
    means = any(op.needs == "mean" for op in edit.operations)
    conditions = any(op.when for op in edit.operations)
    norms = any(op.norm_below for op in edit.operations)
    used = dict.fromkeys(op.do for op in edit.operations)
    words = "\n".join(f"    {line}" for line in in_words(edit)[:-1])
    parts = [HEAD.format(words=words, note=CACHE if placed else "")]
    parts += [ON] * conditions + [NOW] * placed
    lines = "\n".join(f'    "{do}": lambda f, op: {kind_of(do).formula},' for do in used)
    parts += [f"BECOMES = {{\n{lines}\n}}\n"]
    parts += [MEAN] * means + [FOLLOW + WHERE] * placed + [NORMS] * norms
    parts += [_load(suite, names, placed), _edit_function(suite, edit, names, placed)]
    return "".join(parts)


def needed(suite: Suite, edit: Edit) -> list[str]:
    """The dictionaries that an edit cannot do without; raises `CannotWrite`."""
    names = []
    for op in edit.operations:
        for node in (op.node, *([op.when.node] if op.when else [])):
            writing = suite.writing(Site.parse(node.site)) if node.kind == "error" else [node.site]
            names += writing
    found = sorted(set(names), key=list(suite).index)
    for name in found:
        reads, writes = suite.reads_of(name), suite.writes_of(name)
        (site, *more), (read, *also) = writes, reads
        elsewhere = read != site and (read.kind, site.kind) != ("mlp_in", "mlp_out")
        if more or also or elsewhere or read.layer != site.layer or site.kind not in MODULES:
            raise CannotWrite(
                f"{name} reads {', '.join(map(str, reads))} and writes "
                f"{', '.join(map(str, writes))}: the loader knows dictionaries of one module"
            )
    return found


def _load(suite: Suite, names: list[str], placed: bool) -> str:
    hooks = []
    for name in names:
        (site,) = suite.writes_of(name)
        module = MODULES[site.kind].format(layer=site.layer)
        folder = suite[name].spec.name
        hooks.append(f'    {module}.register_forward_hook(edit("{name}", "{folder}"))')
    watch = "    model.register_forward_pre_hook(follow, with_kwargs=True)\n" if placed else ""
    return f'''

def load(**options):
    """The model, edited; `options` are those of from_pretrained."""
    model = AutoModelForCausalLM.from_pretrained(FOLDER, **options)
    layers = model.model.layers
{watch}{chr(10).join(hooks)}
    return model
'''


def _edit_function(suite: Suite, edit: Edit, names: list[str], placed: bool) -> str:
    dictionaries = [suite[name] for name in names]
    errors = any(op.node.kind == "error" for op in edit.operations)
    features = any(op.node.kind == "feature" for op in edit.operations)
    conditions = any(op.when for op in edit.operations)
    every = any(op.node.feature == EVERY for op in edit.operations)
    reads = "args[0]" if all(d.source != d.target for d in dictionaries) else "x"
    if reads == "x" and any(d.source != d.target for d in dictionaries):
        reads = 'args[0] if "-" in folder else x'
    body = [
        f"        f = encode(({reads}).float())"
        if " " in reads
        else f"        f = encode({reads}.float())"
    ]
    body += ["        ON[name] = f"] * conditions
    if errors:
        body += _error_lines(edit, placed)
    else:
        body += ["        new = x.float()"]
    if features:
        body += ["        g = f.clone()", *_feature_lines(edit, placed, every)]
        body += ['        new = (new + (g - f) @ d["W_dec"]).to(x.dtype)']
    else:
        body += ["        new = new.to(x.dtype)"]
    return f'''

def edit(name, folder):
    """The hook that edits what a module gives, by one dictionary."""
    d = load_file(FOLDER / "dictionaries" / folder / "dictionary.safetensors")
    operations = [op for op in EDIT["operations"] if op["node"].startswith(name + "/")]

    def encode(x):
        pre = x @ d["W_enc"].T + d["b_enc"]
{_encoder(dictionaries)}
    def hook(module, args, output):
        x = output[0] if isinstance(output, tuple) else output
        d.update({{tensor: value.to(x.device) for tensor, value in d.items()}})
{chr(10).join(body)}
        return (new, *output[1:]) if isinstance(output, tuple) else new

    return hook
'''


def _encoder(dictionaries: list[SparseDictionary]) -> str:
    """What the dictionaries' activation function is; one for all, or chosen by name."""
    kinds = {d.name: _kind(d) for d in dictionaries}
    texts = {
        d.name: ENCODERS[kinds[d.name]].format(k=d.spec.k, relu="" if d.spec.signed else ".relu()")
        for d in dictionaries
    }
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    lines = []
    for text in dict.fromkeys(texts.values()):
        names = [name for name, own in texts.items() if own == text]
        listed = ", ".join(f'"{name}"' for name in names)
        body = "".join(f"    {line}\n" for line in text.splitlines())
        lines.append(f"        if name in ({listed},):\n{body}")
    return "".join(lines) + "        raise KeyError(name)\n"


def _kind(dictionary: SparseDictionary) -> str:
    if dictionary.spec.architecture == "topk":
        return "topk"
    return "relu" if dictionary.threshold is None else "threshold"


def _masked(edit: Edit, placed: bool, own: str) -> list[str]:
    """Lines that make `at`, the tokens of an operation; none where that is every one."""
    lines, norms = [], any(op.norm_below for op in edit.operations)
    if placed:
        lines.append(f"            at = where(op){own}")
        lines += [f"            at = at & usual(op, args, x){own}"] * norms
    elif norms:
        lines.append(f"            at = usual(op, args, x){own}")
    elif any(op.when for op in edit.operations):
        lines.append(f"            at = torch.ones_like(f[..., 0], dtype=torch.bool){own}")
    if any(op.when for op in edit.operations):
        lines += [
            '            if "when" in op:',
            '                site, other = op["when"]["node"].split("@")[0].split("/")',
            f'                at = at & (ON[site][..., int(other)] > op["when"]["above"]){own}',
        ]
    return lines


def _feature_lines(edit: Edit, placed: bool, every: bool) -> list[str]:
    ops = '[o for o in operations if "/error" not in o["node"]]'
    mixed = any(op.node.kind == "error" for op in edit.operations)
    lines = [f"        for op in {ops if mixed else 'operations'}:"]
    which = 'op["node"].split("@")[0].split("/")[1]'
    if every:
        lines += [f"            i = {which}"]
        lines += ['            i = slice(None) if i == "*" else [int(i)]']
    else:
        lines += [f"            i = [int({which})]"]
    masked = _masked(edit, placed, "[..., None]")
    lines += masked
    if not (masked or every):
        return [*lines, '            g[..., i] = BECOMES[op["do"]](g[..., i], op)']
    lines += ['            changed = BECOMES[op["do"]](g[..., i], op)']
    if every:
        lines += [
            "            kept = torch.zeros_like(changed, dtype=torch.bool)",
            '            for node in op.get("except", ()):',
            '                feature, _, at_token = node.split("/")[1].partition("@")',
            "                kept[..., int(feature)] |= "
            + ('NOW["at"] == int(at_token) if at_token else True' if placed else "True"),
            "            changed = torch.where(kept, g[..., i], changed)",
        ]
    if masked:
        lines += ["            changed = torch.where(at, changed, g[..., i])"]
    return [*lines, "            g[..., i] = changed"]


def _error_lines(edit: Edit, placed: bool) -> list[str]:
    """The error is what the features do not write; it is changed before they are."""
    masked = _masked(edit, placed, "[..., None]")
    lines = [
        '        written = f @ d["W_dec"] + d["b_dec"]',
        "        error = x.float() - written",
        '        for op in [o for o in operations if "/error" in o["node"]]:',
        *masked,
        '            changed = BECOMES[op["do"]](error, op)',
    ]
    if any(op.node.kind == "error" and op.besides for op in edit.operations):
        lines += [
            '            for node in op.get("except", ()):',
            '                at = at & (NOW["at"] != int(node.split("@")[1]))[..., None]',
        ]
    lines += [
        "            error = torch.where(at, changed, error)"
        if masked
        else "            error = changed",
        "        new = written + error",
    ]
    return lines
