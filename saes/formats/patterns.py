"""Names of files as maps and layouts write them, and the sites that they stand for.

**/layer_{layer}/l0_{k}/*.pt    {layer} and {k} are numbers, the same wherever they stand;
                                * is anything within a name, **/ any folders or none
"""

import re

from hooked_qwen.sites import Site
from saes.formats.names import to_site

PARTS = {"{layer}": r"\d{1,4}", "{k}": r"\d{1,6}", "**/": r"(?:.*/)?", "*": r"[^/]*"}


def pattern(files: str) -> re.Pattern[str]:
    """The names that `files` means; any file of the place itself where it is empty."""
    written = ""
    for part in re.split(r"(\{layer\}|\{k\}|\*\*/|\*)", files or "*"):
        group = part.strip("{}")
        if part == group:
            written += PARTS.get(part, re.escape(part))
        elif f"(?P<{group}>" in written:
            written += f"(?P={group})"
        else:
            written += f"(?P<{group}>{PARTS[part]})"
    return re.compile(written)


def site_at(text: str, match: re.Match[str]) -> Site:
    """A site with the layer of a file's name put in; before the first layer is what it reads."""
    layer = match.groupdict().get("layer")
    if "{layer" in text and layer is None:
        raise ValueError(f"site is {text}, but `files` names no {{layer}}: write it into `files`")
    put = re.sub(r"\{layer([+-]\d+)?\}", lambda m: str(int(layer or 0) + int(m[1] or 0)), text)
    return Site("resid_pre", 0) if put == "resid_post.-1" else to_site(put)


def ends_of(text: str) -> tuple[Site, Site]:
    """What `resid_post.6`, or `mlp_in.6-mlp_out.6`, reads and writes, in any spelling."""
    source, _, target = text.partition("-")
    return to_site(source), to_site(target or source)
