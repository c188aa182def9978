/* The page's store and scene without a browser: `node --test tests/circuits/render/pages/circuit/`. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { cellsOf, compactPlaces, flow, fold, makeBox, scored, shares, stretch } from "../../../../../circuits/render/pages/circuit/scene.mjs";
import {
  EMPTY,
  createStore,
  fromAddress,
  fromFile,
  steps,
  toAddress,
  toFile,
} from "../../../../../circuits/render/pages/circuit/store.mjs";

const [A, B, C, D] = ["mlp_out.1/1@0", "mlp_out.1/2@0", "mlp_out.2/3@1", "resid_post.2/4@1"];
const known = new Set([A, B, C, D]);

/* Every step that a person can take, in some order. */
const WALK = [
  steps.pin([A, B]),
  steps.pin([C]),
  steps.group("nouns", [A, B]),
  steps.fold("nouns"),
  steps.label([C], "verbs"),
  steps.note(C, "seen twice"),
  steps.group("other", [B, C]),
  steps.rename("other", "verbs"),
  steps.move({ [A]: [1, 2] }),
  steps.unpin([A]),
  steps.ungroup("verbs"),
  steps.label([C], ""),
];

test("undo goes back through every state and redo forth again", () => {
  const store = createStore();
  const seen = [store.state];
  for (const step of WALK) {
    store.change(step);
    seen.push(store.state);
  }
  const length = new Set(seen).size;
  const back = [store.state];
  while (store.undo()) back.push(store.state);
  assert.deepEqual(back.reverse(), [...new Set(seen)]);
  const forth = [store.state];
  while (store.redo()) forth.push(store.state);
  assert.equal(forth.length, length);
  assert.deepEqual(forth, [...new Set(seen)]);
});

test("a change that changes nothing is not a step, and a new one ends redo", () => {
  const store = createStore();
  store.change(steps.pin([A]));
  assert.equal(store.change(steps.pin([A])), false);
  store.undo();
  store.change(steps.pin([B]));
  assert.equal(store.canRedo, false);
  assert.deepEqual(store.state.pinned, [B]);
});

test("steps leave the state that they were given as it was", () => {
  let state = EMPTY;
  for (const step of WALK) {
    const before = JSON.stringify(state);
    const next = step(state);
    assert.equal(JSON.stringify(state), before);
    state = next;
  }
});

test("a node lies in one group at most, and an empty group is gone", () => {
  const store = createStore();
  store.change(steps.group("one", [A, B]));
  store.change(steps.group("two", [B]));
  assert.deepEqual(store.state.groups, { one: [A], two: [B] });
  store.change(steps.unpin([A]));
  assert.deepEqual(store.state.groups, { two: [B] });
  assert.deepEqual(store.state.collapsed, ["two"]);
});

test("names that objects have of their own are names like others", () => {
  const store = createStore();
  for (const name of ["__proto__", "constructor"]) store.change(steps.group(name, [A]));
  store.change(steps.group("__proto__", [B]));
  const back = fromFile(JSON.stringify(toFile(store.state)), known).state;
  assert.deepEqual(Object.entries(back.groups), [["constructor", [A]], ["__proto__", [B]]]);
});

test("the place of a group's box follows its name and goes with the group", () => {
  let state = steps.group("nouns", [A, B])(EMPTY);
  assert.ok(!("places" in toFile(state)));
  state = steps.move({ "group/nouns": [3, -4], [C]: [0, 0] })(state);
  state = steps.rename("nouns", "subjects")(state);
  assert.deepEqual(toFile(state).places, { "group/subjects": [3, -4], [C]: [0, 0] });
  assert.deepEqual(toFile(steps.ungroup("subjects")(state)).places, { [C]: [0, 0] });
});

test("what is written is read back", () => {
  let state = EMPTY;
  for (const step of WALK.slice(0, 8)) {
    state = step(state);
    const { state: back, unknown } = fromFile(JSON.stringify(toFile(state)), known);
    assert.deepEqual(toFile({ ...EMPTY, ...back }), toFile(state));
    assert.deepEqual(unknown, []);
  }
});

test("keys that the graph does not have are left out and told", () => {
  const text = JSON.stringify({
    schema: "circuits-state/1",
    pinned: [A, "mlp_out.9/9"],
    groups: { x: ["mlp_out.9/8"], y: [B] },
    places: { [A]: [1, 2], "mlp_out.9/7": [3, 4], "group/x": [5, 6], "group/y": [7, 8] },
  });
  const { state, unknown } = fromFile(text, known);
  assert.deepEqual(unknown, ["mlp_out.9/9", "mlp_out.9/8", "mlp_out.9/7"]);
  assert.deepEqual(state.places, { [A]: [1, 2], "group/y": [7, 8] });
  assert.deepEqual(state.pinned, [A, B]);
  assert.deepEqual(state.groups, { y: [B] });
});

for (const [text, message] of [
  ["no json", /not JSON/],
  ["[]", /schema circuits-state\/1, got null/],
  ['{"schema": "circuits-state/2"}', /got "circuits-state\/2"/],
  ['{"schema": "circuits-state/1", "pinned": 3}', /“pinned” must be a list/],
  ['{"schema": "circuits-state/1", "labels": {"a": 1}}', /“labels” must map names to texts/],
  ['{"schema": "circuits-state/1", "places": {"a": [1]}}', /“places” must map names to \[x, y\]/],
  [`{"schema": "circuits-state/1", "groups": {"a": ["${A}"], "b": ["${A}"]}}`, /in two groups, a and b/],
])
  test(`a file of another shape is refused: ${text}`, () => {
    assert.throws(() => fromFile(text, known), message);
  });

test("an address holds any text", () => {
  for (const record of [{}, { a: "中文 ✓ \u2028 <b>" }, { list: [1, "x".repeat(999)] }]) {
    assert.match(toAddress(record), /^[A-Za-z0-9_-]*$/);
    assert.deepEqual(JSON.parse(fromAddress(toAddress(record))), record);
  }
});

const node = (id, site, support, kind = "feature") => ({ id, key: `k${id}`, site, support, kind, x: 10 * id, y: 0, exact: null });
const graph = {
  nodes: [node(0, "logit", null, "logit"), node(1, "a", 3), node(2, "a", -1), node(3, "b", 2)],
  edges: [
    { id: 0, from: 1, to: 0, support: 4 },
    { id: 1, from: 3, to: 1, support: -3 },
    { id: 2, from: 2, to: 0, support: -1 },
    { id: 3, from: 3, to: 2, support: 1 },
    { id: 4, from: 1, to: 2, support: 0.5 },
  ],
};
const grouped = () => "supports";
const everything = new Set([0, 1, 2, 3]);

test("edges of a box are summed with their signs, and none runs inside it", () => {
  const box = makeBox("group/g", "g", "group", graph.nodes.slice(1, 3), grouped);
  const { items, lines } = fold({ ...graph, shown: everything, boxes: [box], grouped });
  assert.deepEqual(new Set(items.map((item) => item.key)), new Set(["k0", "group/g", "k3"]));
  assert.deepEqual(
    lines.map(({ from, to, support }) => [from, to, support]),
    [["group/g", 0, 3], [3, "group/g", -2]],
  );
  assert.equal(box.support, 2);
  assert.equal(box.x, graph.nodes[1].x);
});

test("without boxes the scene is the graph in view", () => {
  const { items, lines } = fold({ ...graph, shown: new Set([0, 1, 3]), boxes: [], grouped });
  assert.deepEqual(items.map((item) => item.id), [0, 1, 3]);
  assert.deepEqual(lines.map((line) => line.id), [0, 1]);
});

test("shares of all nodes are one, of none nothing, and add up", () => {
  const some = (...ids) => shares(graph.nodes, graph.edges, new Set(ids));
  assert.deepEqual(some(1, 2, 3), { effect: 1, weight: 1 });
  assert.deepEqual(some(), { effect: 0, weight: 0 });
  assert.equal(some(1).effect + some(2, 3).effect, 1);
  assert.equal(some(1).weight, 4 / 5);
  assert.deepEqual(shares([], [], new Set()), { effect: null, weight: null });
});

test("cells hold every node once, except those apart", () => {
  const cells = cellsOf(graph.nodes, (each) => each.kind === "logit", () => "@0");
  assert.deepEqual(cells.map(([name, members]) => [name, members.map((m) => m.id)]), [["a@0", [1, 2]]]);
});

test("a stretched picture is as wide as its canvas, and nothing is shrunk", () => {
  for (const [width, height] of [[800, 600], [600, 800], [500, 500]]) {
    const { x, y } = stretch({ width: 500, height: 500 }, { width, height });
    assert.ok(x >= 1 && y >= 1);
    assert.equal((500 * x) / (500 * y), width / height);
  }
});

test("compact places keep the order of rows and of nodes in a row, and none coincide", () => {
  const items = [node(1, "a", 1), node(2, "a", 1), { ...node(3, "b", 1), y: 50 }];
  const places = compactPlaces(items);
  assert.ok(places.get("k1").x < places.get("k2").x);
  assert.ok(places.get("k1").y < places.get("k3").y);
  assert.equal(new Set([...places.values()].map((p) => `${p.x},${p.y}`)).size, 3);
});

/* Two bands of two columns; three nodes in one cell, one each in two others. */
const placed = [
  [0, 0, 0], [1, 0, 40], [2, 0, 80], [3, 1, 200], [4, 0, 40],
].map(([id, column, x]) => ({ id, column, band: id === 4 ? 1 : 0, place: { x: x + 30, y: id === 4 ? 60 : 20 } }));
const frame = { nodes: placed, bands: [{ y: 20, height: 40 }, { y: 60, height: 40 }], columns: [{ x: 70, width: 140 }, { x: 230, width: 180 }] };

test("with every node shown the layout is as it was", () => {
  const { places, width, height } = flow({ ...frame, shown: new Set([0, 1, 2, 3, 4]) });
  assert.deepEqual(places, placed.map((each) => each.place));
  assert.deepEqual([width, height], [320, 80]);
});

test("without some nodes bands and columns shrink and the order stays", () => {
  const { places, bands, columns, width, height } = flow({ ...frame, shown: new Set([1, 2, 3]) });
  assert.equal(bands[1].height, 0);
  assert.equal(columns[0].width, 140 - 40);
  assert.ok(places[1].x < places[2].x && places[2].x < places[3].x);
  assert.equal(places[2].x - places[1].x, 40);
  assert.deepEqual([width, height], [280, 40]);
});

test("suggested groups are in the order of what they do, those not ablated last", () => {
  const groups = [{ members: [A, B] }, { members: [C] }, { members: [D, A] }];
  const scores = [
    { members: [B, A], support: -1 },
    { members: [A, D], support: 0.5 },
    { members: [A], support: 9 },
  ];
  const found = scored(groups, scores);
  assert.deepEqual(found.map((group) => group.members), [[A, B], [D, A], [C]]);
  assert.deepEqual(found.map((group) => group.score?.support ?? null), [-1, 0.5, null]);
  assert.deepEqual(scored(groups, undefined).map((group) => group.score), [null, null, null]);
});
