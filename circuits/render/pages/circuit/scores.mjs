/* Scores of a part of a replacement graph, as `circuits.discovery.subgraph` has them. Pure. */

const errorAt = (node) => `${node.site}${/@\d+$/.exec(node.key)?.[0] ?? ""}`;

/* What outputs and kept features read, by source: an id of a token or a feature that is kept, else
   the name of an error, which takes in the features there that are not kept, with their signs. */
function readings(nodes, edges, kept) {
  const isKept = (node) => node.kind === "token" || (node.kind === "feature" && kept.has(node.id));
  const reads = new Map(nodes.filter((n) => n.kind === "logit").map((n) => [n.id, new Map()]));
  for (const edge of edges) {
    const [from, to] = [nodes[edge.from], nodes[edge.to]];
    if (to.kind !== "logit" && !isKept(to)) continue;
    if (!reads.has(to.id)) reads.set(to.id, new Map());
    const row = reads.get(to.id);
    const source = isKept(from) ? from.id : errorAt(from);
    row.set(source, (row.get(source) ?? 0) + edge.support);
  }
  return reads;
}

/* What reads, each after all that it leads to. */
function fromTheTop(reads) {
  const above = new Map();
  for (const [target, row] of reads)
    for (const source of row.keys()) above.set(source, [...(above.get(source) ?? []), target]);
  const order = new Set();
  const seen = new Set();
  const visit = (id) => {
    if (seen.has(id)) return;
    seen.add(id);
    (above.get(id) ?? []).forEach(visit);
    order.add(id);
  };
  [...reads.keys()].forEach(visit);
  return order;
}

/* Replacement and completeness score where of all features those in `kept` (ids) are features, and
   the others errors; null where no output reads anything. */
export function subgraphScores(nodes, edges, kept) {
  const reads = readings(nodes, edges, kept);
  const influence = new Map();
  const add = (id, value) => influence.set(id, (influence.get(id) ?? 0) + value);
  for (const id of fromTheTop(reads)) {
    const row = reads.get(id);
    if (nodes[id].kind === "logit") add(id, nodes[id].influence ?? 0);
    const size = [...row.values()].reduce((sum, value) => sum + Math.abs(value), 0);
    if (!size) continue;
    for (const [source, value] of row)
      add(source, ((influence.get(id) ?? 0) * Math.abs(value)) / size);
  }
  const sum = (picked) =>
    [...influence].reduce((total, [id, value]) => total + (picked(id) ? value : 0), 0);
  const errors = sum((id) => typeof id === "string");
  const tokens = sum((id) => typeof id === "number" && nodes[id].kind === "token");
  if (!(tokens + errors > 0)) return null;
  return { replacement: tokens / (tokens + errors), completeness: 1 - errors / sum(() => true) };
}
