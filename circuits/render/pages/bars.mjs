/* Where the steps of a histogram of activations stand. Pure: no document.

   A histogram is `{first, per_doubling, counts}`: counts[i] tokens have an activation from
   2^((first + i) / per_doubling) up to the next such number. */

export const valueAt = ({ first, per_doubling }, step) => 2 ** ((first + step) / per_doubling);

/* How many steps from the left an activation stands. */
export const stepOf = ({ first, per_doubling }, value) => Math.log2(value) * per_doubling - first;

/* A bar for each step: the tallest is as high as the room. */
export function barsOf({ counts }, { width, height }, gap = 1) {
  const each = width / counts.length;
  const tallest = Math.max(...counts);
  return counts.map((n, i) => ({
    x: i * each + gap / 2,
    width: Math.max(each - gap, gap),
    y: height * (1 - n / tallest),
    height: (height * n) / tallest,
  }));
}

/* The outline of all bars as one path, for a picture of a few pixels. */
export function outline({ counts }, { width, height }) {
  const bars = barsOf({ counts }, { width, height }, 0);
  const top = bars.map((bar) => `V${round(bar.y)}H${round(bar.x + bar.width)}`).join("");
  return `M0 ${height}${top}V${height}Z`;
}

const round = (value) => Math.round(value * 10) / 10;

/* What is left of counts over a longer scale: without zeros at either end; null for zeros alone. */
export function trimmed({ first, per_doubling }, counts) {
  const from = counts.findIndex((n) => n > 0);
  if (from === -1) return null;
  const to = counts.findLastIndex((n) => n > 0) + 1;
  return { first: first + from, per_doubling, counts: Array.from(counts.slice(from, to)) };
}
