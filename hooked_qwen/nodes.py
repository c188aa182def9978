"""Keys of nodes: what a graph is made of and an edit acts on."""

from typing import NamedTuple

EVERY = "*"
"In place of a feature's number: every feature of the dictionary."
GROUP = "group"
"In place of a site: a node that stands for several, under a name."


class Node(NamedTuple):
    """Key of a node: where it is, which feature it is, and at which token position.

    `feature` is a dictionary's feature index, or `"error"`, or `"token"` (site `embed`), or the
    token's text (site `logit`), or the name of a group of nodes (site `group`). `position` is None
    when positions are summed, for logits and for groups.
    Written `mlp_out.3/812@5`, `mlp_out.3/error@5`, `token@5`, `logit/ are`, `group/plural nouns`;
    edits know `mlp_out.3/*`, every feature of a dictionary, too.

        circuits.Node.parse("mlp_out.3/812@5") == circuits.Node("mlp_out.3", 812, 5)
    """

    site: str
    feature: int | str
    position: int | None = None

    def __str__(self) -> str:
        name = "token" if self.site == "embed" else f"{self.site}/{self.feature}"
        return name if self.position is None else f"{name}@{self.position}"

    @property
    def kind(self) -> str:
        if self.site == "logit":
            return "logit"
        if self.site == "embed":
            return "token"
        if self.site == GROUP:
            return "group"
        return "error" if self.feature == "error" else "feature"

    @classmethod
    def parse(cls, text: str) -> "Node":
        """The key written as `text`; raises `ValueError` naming the accepted forms."""
        if text.startswith("logit/"):
            return cls("logit", text.removeprefix("logit/"))
        if text.startswith(f"{GROUP}/"):
            return cls(GROUP, text.removeprefix(f"{GROUP}/"))
        name, _, position = text.partition("@")
        site, _, feature = name.partition("/")
        try:
            at = _number(position) if "@" in text else None
            if site == "token" and not feature:
                return cls("embed", "token", at)
            if feature in ("error", EVERY):
                return cls(site, feature, at)
            return cls(site, _number(feature), at)
        except ValueError:
            raise ValueError(
                f"no node is called {text!r}: write SITE/FEATURE with an optional @POSITION, both "
                "counted from 0, such as 'mlp_out.3/812@5', 'mlp_out.3/error', 'token@5' or "
                "'logit/ are'"
            ) from None


def _number(text: str) -> int:
    """A number from 0 on, in plain digits: `int` takes '-1', '1_0' and '٣' too."""
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"{text!r} is no number")
    return int(text)
