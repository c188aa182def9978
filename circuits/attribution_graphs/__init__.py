"""Attribution graphs of circuit-tracer and Neuronpedia, read back as graphs of ours.

    graph = read_attribution_graph(Path("austin.json"))

What we exported is read as it was. Of other files the nodes are named by what their type says
(`names`), edges stay as they are (`read`), and effects, which no file has, are made of the edges
(`effects`). What is pinned and grouped there is a saved state of ours (`view`).
"""

from circuits.attribution_graphs.read import read_attribution_graph as read_attribution_graph
from circuits.attribution_graphs.view import read_view as read_view
