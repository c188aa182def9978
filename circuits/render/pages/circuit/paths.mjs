/* The paths of edges: through no head, one head, several. Pure: no document. */

/* Every path of an edge that is listed, the largest first: heads are named `3.0`. */
export function pathsIn({ direct, heads, other = 0, rest, factors = {} }) {
  const rows = [
    { kind: "direct", name: "direct", value: direct },
    ...heads.map(([name, value]) => ({ kind: "head", name, value })),
    { kind: "others", name: "other heads", value: other },
    { kind: "rest", name: "rest", value: rest },
  ];
  return rows
    .filter((row) => row.value)
    .map((row) => ({ ...row, factors: factors[row.name] ?? null }))
    .sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
}

/* The influence of some edges by their paths: each edge's by the sizes of its paths, as a share of
   all. [name, share] in turn, the largest first; empty where nothing is known. */
export function carriers(all) {
  const found = new Map();
  let total = 0;
  for (const paths of all) {
    const rows = pathsIn(paths);
    const size = rows.reduce((sum, row) => sum + Math.abs(row.value), 0);
    if (!size || !paths.influence) continue;
    total += paths.influence;
    for (const { name, value } of rows) {
      const part = (paths.influence * Math.abs(value)) / size;
      found.set(name, (found.get(name) ?? 0) + part);
    }
  }
  return [...found]
    .map(([name, value]) => [name, value / total])
    .sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
}

/* Edges by what of their influence runs through a head, the most first: [edge, influence]. */
export function edgesThrough(head, edges, pathsOf) {
  const rows = [];
  for (const edge of edges) {
    const paths = pathsOf(edge);
    const all = paths ? pathsIn(paths) : [];
    const size = all.reduce((sum, row) => sum + Math.abs(row.value), 0);
    const own = all.find((row) => row.name === head);
    if (own && paths.influence)
      rows.push([edge, (paths.influence * Math.abs(own.value)) / size, own.value]);
  }
  return rows.sort((a, b) => b[1] - a[1]);
}

/* The position in a node's key; null where it has none. */
export const positionIn = (key) => {
  const found = /@(\d+)$/.exec(key);
  return found ? Number(found[1]) : null;
};
