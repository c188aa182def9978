/* Which nodes are drawn as one box, and what edges then run between the boxes. Pure: no document. */

/* A box of nodes with the sum of their supports. A group stands where its strongest member does,
   whose place is free; a cell, which has a place to itself, in the middle. */
export function makeBox(id, name, kind, members, grouped) {
  const strongest = members.reduce((a, b) =>
    Math.abs(b.support ?? 0) > Math.abs(a.support ?? 0) ? b : a,
  );
  const support = members.reduce((sum, each) => sum + (each.support ?? 0), 0);
  return {
    id,
    key: id,
    name,
    kind,
    members,
    support,
    site: strongest.site,
    strongest,
    group: grouped(members, support),
    shape: "box",
    size: 10,
    activation: null,
    exact: members.every((each) => (each.exact ?? null) !== null)
      ? members.reduce((sum, each) => sum + each.exact, 0)
      : null,
    get x() {
      return kind === "cell" ? middle(members.map((each) => each.x)) : strongest.x;
    },
    get y() {
      return kind === "cell" ? middle(members.map((each) => each.y)) : strongest.y;
    },
  };
}

const middle = (values) => (Math.min(...values) + Math.max(...values)) / 2;

/* `shown` nodes with those of each box drawn as that box, and the edges between what is drawn:
   edges of the same two ends are summed with their signs, strongest first. */
export function fold({ nodes, edges, shown, boxes, grouped }) {
  const owner = new Map();
  for (const box of boxes) for (const node of box.members) owner.set(node.id, box);
  const drawn = new Set();
  for (const node of nodes) if (shown.has(node.id)) drawn.add(owner.get(node.id) ?? node);
  const sums = new Map();
  const lines = [];
  for (const edge of edges) {
    if (!shown.has(edge.from) || !shown.has(edge.to)) continue;
    const from = owner.get(edge.from)?.id ?? edge.from;
    const to = owner.get(edge.to)?.id ?? edge.to;
    if (from === to) continue;
    if (from === edge.from && to === edge.to) {
      lines.push(edge);
      continue;
    }
    const id = `${from}>${to}`;
    const line = sums.get(id) ?? { id, from, to, support: 0, parts: [] };
    line.support += edge.support;
    line.parts.push(edge);
    sums.set(id, line);
  }
  for (const line of sums.values())
    lines.push({ ...line, group: grouped(line.parts, line.support) });
  // Both lists are sorted already where nothing was summed.
  if (sums.size) lines.sort((a, b) => Math.abs(b.support) - Math.abs(a.support));
  return { items: [...drawn], lines, owner };
}

/* How many of the graph's edges a line stands for. */
export const edgesOf = (line) => line.parts?.length ?? 1;

/* Cells of more than one node: nodes of the same site and position, except those `apart`. */
export function cellsOf(nodes, apart, at) {
  const cells = new Map();
  for (const node of nodes) {
    if (apart(node)) continue;
    const cell = `${node.site}${at(node)}`;
    cells.set(cell, [...(cells.get(cell) ?? []), node]);
  }
  return [...cells].filter(([, members]) => members.length > 1);
}

/* What some nodes carry: their share of the total |effect|, and of the |weight| of all edges into
   the outputs; null where there is nothing to share. */
export function shares(nodes, edges, chosen) {
  const of = (rows, value, picked) => {
    const total = rows.reduce((sum, row) => sum + value(row), 0);
    const part = rows.filter(picked).reduce((sum, row) => sum + value(row), 0);
    return total > 0 ? part / total : null;
  };
  const output = new Set(nodes.filter((node) => node.kind === "logit").map((node) => node.id));
  return {
    effect: of(
      nodes.filter((node) => !output.has(node.id)),
      (node) => Math.abs(node.support ?? 0),
      (node) => chosen.has(node.id),
    ),
    weight: of(
      edges.filter((edge) => output.has(edge.to)),
      (edge) => Math.abs(edge.support),
      (edge) => chosen.has(edge.from),
    ),
  };
}

/* Factors that make a picture as wide as the canvas is: one side is stretched, never shrunk. */
export function stretch(size, canvas, most = { x: 2.6, y: 1.8 }) {
  if (!size.width || !size.height || !canvas.width || !canvas.height) return { x: 1, y: 1 };
  const excess = canvas.width / canvas.height / (size.width / size.height);
  return { x: Math.min(Math.max(excess, 1), most.x), y: Math.min(Math.max(1 / excess, 1), most.y) };
}

/* Places for a few drawn nodes on their own: rows in the order of their bands, without gaps. */
export function compactPlaces(items, { across = 190, down = 110 } = {}) {
  const rows = [...new Set(items.map((item) => item.y))].sort((a, b) => a - b);
  const places = new Map();
  rows.forEach((y, row) => {
    const members = items.filter((item) => item.y === y).sort((a, b) => a.x - b.x);
    members.forEach((item, i) =>
      places.set(item.key, { x: (i - (members.length - 1) / 2) * across, y: row * down }),
    );
  });
  return places;
}

const span = (values) => (values.length ? Math.max(...values) - Math.min(...values) : 0);
const EMPTY_COLUMN = 30; // px that a token takes where no node is left

/* The layout of the nodes that are `shown`: bands and columns without any shrink, and what is left
   of a cell moves together into the places of its first nodes. All keep their order; with every
   node shown nothing moves. Nodes that are not shown stand in the middle of their cell. */
export function flow({ nodes, bands, columns, shown }) {
  const cells = new Map();
  for (const node of nodes) {
    const cell = `${node.band} ${node.column}`;
    if (!cells.has(cell)) cells.set(cell, []);
    cells.get(cell).push(node);
  }
  const [rows, across] = [bands, columns].map((list) => list.map(() => ({ full: 0, used: null })));
  const offsets = new Map();
  const widen = (room, part, value) => {
    room[part] = Math.max(room[part] ?? 0, value);
  };
  for (const members of cells.values()) {
    const kept = members.filter((node) => shown.has(node.id));
    const [row, column] = [rows[members[0].band], across[members[0].column]];
    const slots = members.slice(0, kept.length).map((node) => node.place);
    const [all, xs, ys] = [members.map((n) => n.place), slots.map((p) => p.x), slots.map((p) => p.y)];
    widen(row, "full", span(all.map((place) => place.y)));
    widen(column, "full", span(all.map((place) => place.x)));
    if (!kept.length) continue;
    widen(row, "used", span(ys));
    widen(column, "used", span(xs));
    kept.forEach((node, i) =>
      offsets.set(node.id, { x: slots[i].x - middle(xs), y: slots[i].y - middle(ys) }),
    );
  }
  const used = (room, length, empty) =>
    room.used === null ? empty(length) : length - (room.full - room.used);
  let [bottom, right] = [0, 0];
  const newBands = bands.map(({ height }, i) => {
    const room = used(rows[i], height, () => 0);
    bottom += room;
    return { y: bottom - room / 2, height: room };
  });
  const newColumns = columns.map(({ width }, i) => {
    const room = used(across[i], width, (all) => Math.min(all, EMPTY_COLUMN));
    right += room;
    return { x: right - room / 2, width: room };
  });
  const places = nodes.map((node) => {
    const { x, y } = offsets.get(node.id) ?? { x: 0, y: 0 };
    return { x: newColumns[node.column].x + x, y: newBands[node.band].y + y };
  });
  return { places, bands: newBands, columns: newColumns, width: right, height: bottom };
}

/* Suggested groups, each with what it was found to do under ablation as `score` (null where it was
   not ablated), those that do most first. A score's members may stand in any order. */
export function scored(suggested, scores) {
  const name = (members) => [...members].sort().join(" ");
  const found = new Map((scores ?? []).map((score) => [name(score.members), score]));
  const size = (group) => Math.abs(group.score?.support ?? 0);
  return suggested
    .map((group) => ({ ...group, score: found.get(name(group.members)) ?? null }))
    .sort((a, b) => size(b) - size(a));
}
