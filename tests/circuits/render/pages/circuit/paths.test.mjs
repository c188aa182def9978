/* The paths of edges, and which line a click is nearest to, without a browser. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { curve, nearest } from "../../../../../circuits/render/pages/circuit/layer.mjs";
import { carriers, edgesThrough, pathsIn, positionIn } from "../../../../../circuits/render/pages/circuit/paths.mjs";

const EDGE = {
  direct: 1,
  heads: [["3.0", -4], ["2.1", 2]],
  other: 0,
  rest: 0.5,
  influence: 0.3,
  factors: { "3.0": { prompt: 2, weights: -2 } },
};
const OTHER = { direct: 0, heads: [["2.1", 1]], other: -1, rest: 0, influence: 0.1, factors: {} };

test("paths come by size, those of nothing are left out, and each has its factors", () => {
  const rows = pathsIn(EDGE);
  assert.deepEqual(rows.map((row) => row.name), ["3.0", "2.1", "direct", "rest"]);
  assert.deepEqual(rows.map((row) => row.kind), ["head", "head", "direct", "rest"]);
  assert.deepEqual(rows[0].factors, { prompt: 2, weights: -2 });
  assert.equal(rows[1].factors, null);
  assert.equal(rows.reduce((sum, row) => sum + row.value, 0), -0.5);
});

test("each edge hands its influence to its paths by their sizes, and shares are of all", () => {
  const shares = new Map(carriers([EDGE, OTHER]));
  assert.ok(Math.abs(shares.get("3.0") - (0.3 * 4) / 7.5 / 0.4) < 1e-12);
  assert.ok(Math.abs(shares.get("2.1") - ((0.3 * 2) / 7.5 + 0.1 / 2) / 0.4) < 1e-12);
  assert.ok(Math.abs([...shares.values()].reduce((a, b) => a + b) - 1) < 1e-12);
  const sizes = [...shares.values()];
  assert.deepEqual(sizes, [...sizes].sort((a, b) => b - a));
  assert.deepEqual(carriers([]), []);
});

test("edges of a head come by the influence that runs through it", () => {
  const edges = [{ id: 0 }, { id: 1 }, { id: 2 }];
  const of = (edge) => [EDGE, OTHER, null][edge.id];
  const found = edgesThrough("2.1", edges, of);
  assert.deepEqual(found.map(([edge]) => edge.id), [0, 1]);
  assert.ok(Math.abs(found[0][1] - (0.3 * 2) / 7.5) < 1e-12);
  assert.deepEqual(edgesThrough("3.0", edges, of).map(([edge]) => edge.id), [0]);
});

test("a key's position is the number behind its @", () => {
  assert.deepEqual(["mlp_out.3/7@12", "token@0", "logit/ a@b"].map(positionIn), [12, 0, null]);
});

test("the nearest line is the one whose curve passes by, within reach", () => {
  const places = { a: { x: 0, y: 100 }, b: { x: 0, y: 0 }, c: { x: 80, y: 0 } };
  const lines = [{ from: "a", to: "b" }, { from: "a", to: "c" }];
  const ends = (line) => [places[line.from], places[line.to]];
  const find = (x, y) => nearest(lines, { x, y }, ends, 0.45, 6);
  assert.equal(find(2, 50), lines[0]);
  assert.equal(find(-5, 90), lines[0]);
  assert.equal(find(40, 50), lines[1]); // in the middle of its bend
  assert.equal(find(20, 50), null);
  assert.equal(find(0, 120), null);
  const [x, y] = curve(places.a, places.c, 0.45).slice(-2);
  assert.equal(find(x, y), lines[1]);
});
