"""Addresses from one page to another of the same folder, relative, so that the folder can move."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote


@dataclass(frozen=True, kw_only=True)
class Links:
    """Where the page of a graph leads to."""

    before: str | None = None
    "the page of the graph before an ablation"
    suite: str | None = None
    "the page of all features"
    features: Mapping[str, str] = field(default_factory=dict)
    "pages of single features, by SITE/FEATURE"
    left: Mapping[str, str] = field(default_factory=dict)
    "pages of what ablations leave, by their names"

    @property
    def head(self) -> list[tuple[str, str]]:
        """The text and address of what the head of the page leads to."""
        found = (("Graph before the ablation", self.before), ("All features", self.suite))
        return [(text, place) for text, place in found if place]


@dataclass(frozen=True, kw_only=True)
class RunLinks:
    """Where pages of features lead to."""

    graph: str
    "the page of a run's graph"
    nodes: Mapping[str, list[str]]
    "nodes of that graph, strongest first, by SITE/FEATURE"
    suite: str | None
    "the page of all features"


def address(page: Path, folder: Path) -> str:
    """What a page in `folder` writes to lead to `page`."""
    relative = os.path.relpath(page.resolve(), folder.resolve())
    return quote(Path(relative).as_posix())
