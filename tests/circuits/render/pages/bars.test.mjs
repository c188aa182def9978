/* The geometry of histograms, and rounding for people, without a browser. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { barsOf, outline, stepOf, trimmed, valueAt } from "../../../../circuits/render/pages/bars.mjs";
import { count, number, percent } from "../../../../circuits/render/pages/numbers.mjs";

const SOME = { first: -4, per_doubling: 3, counts: [2, 0, 8, 4] };
const ROOM = { width: 40, height: 10 };

test("a value stands where its step begins", () => {
  assert.equal(valueAt(SOME, 4), 1);
  for (const step of [0, 1.5, 4]) assert.ok(Math.abs(stepOf(SOME, valueAt(SOME, step)) - step) < 1e-9);
});

test("bars share the width, stand on the ground, and the tallest takes the height", () => {
  const bars = barsOf(SOME, ROOM);
  assert.equal(bars.length, 4);
  bars.forEach((bar, i) => {
    assert.ok(Math.abs(bar.y + bar.height - 10) < 1e-9);
    assert.ok(bar.x >= i * 10 && bar.x + bar.width <= (i + 1) * 10);
    assert.ok(Math.abs(bar.height / 10 - SOME.counts[i] / 8) < 1e-9);
  });
});

test("an outline goes once along all bars and closes on the ground", () => {
  assert.equal(outline(SOME, ROOM), "M0 10V7.5H10V10H20V0H30V5H40V10Z");
});

test("counts over a longer scale lose their zeros at either end and keep their values", () => {
  const whole = Uint32Array.from([0, 0, ...SOME.counts, 0]);
  assert.deepEqual(trimmed({ first: -6, per_doubling: 3 }, whole), SOME);
  assert.equal(trimmed({ first: -6, per_doubling: 3 }, new Uint32Array(5)), null);
});

test("numbers are written for people", () => {
  assert.deepEqual([0.12345, -1234.5, 0, null].map((v) => number(v)), ["0.123", "−1,235", "0", "–"]);
  assert.equal(number(0.5, true), "+0.5");
  assert.equal(number(-0.0000012), "−1.2e−6");
  assert.deepEqual([0.625, 0.0525, 0, null].map(percent), ["63 %", "5.3 %", "0 %", "–"]);
  assert.deepEqual([count(1, "node"), count(1200, "node")], ["1 node", "1,200 nodes"]);
});
