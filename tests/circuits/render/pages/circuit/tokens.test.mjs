/* Labels of columns in a row, without a browser. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { inRow } from "../../../../../circuits/render/pages/circuit/tokens.mjs";

test("labels with room stand over their columns", () => {
  assert.deepEqual(inRow([50, 150], [40, 60], 200), [30, 120]);
});

test("labels that touch are moved apart, each as far", () => {
  assert.deepEqual(inRow([100, 120], [40, 40], 300), [68, 112]);
});

test("a label at the edge stays inside, and moves the next", () => {
  assert.deepEqual(inRow([12, 50], [40, 20], 300), [0, 44]);
  assert.deepEqual(inRow([288, 250], [40, 20], 300), null, "columns stand from left to right");
});

test("where a label would leave its column's centre they are in no row", () => {
  assert.equal(inRow([10, 14, 18], [40, 40, 40], 300), null);
  assert.equal(inRow([50], [400], 300), null);
});
