/* Numbers as people read them. Pure: no document. */

/* Three significant digits, a true minus sign; `signed` shows the plus as well. */
export function number(value, signed = false) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  const text =
    size >= 1000
      ? Math.round(size).toLocaleString("en")
      : size < 1e-4
        ? size.toExponential(1).replace("-", "−")
        : String(Number(size.toPrecision(3)));
  return (value < 0 ? "−" : signed ? "+" : "") + text;
}

/* Whole from 10 % on, two significant digits below, halves away from zero: the rule of
   `hooked_qwen.percents`, which says why numbers are cut to twelve digits first. */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  const size = Number((100 * Math.abs(share)).toPrecision(12));
  const exponent = Number(size.toExponential(11).split("e")[1]);
  const digits = size >= 10 ? 0 : 1 - exponent;
  const scaled = Number((size * 10 ** digits).toPrecision(12));
  const whole = (Math.floor(scaled + 0.5) / 10 ** digits).toFixed(digits);
  const text = digits ? whole.replace(/\.?0+$/, "") : whole;
  return `${share < 0 && text !== "0" ? "−" : ""}${text} %`;
}

export const count = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

/* A scale from numbers to places. */
export const linear = (low, high, from, to) => (value) =>
  from + ((value - low) / (high - low || 1)) * (to - from);

/* Round numbers from `low` to `high`, about as many as wanted. */
export function ticks(low, high, wanted = 5) {
  const rough = (high - low || 1) / wanted;
  const base = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((m) => m * base).find((s) => s >= rough);
  const first = Math.ceil(low / step - 1e-9) * step;
  return Array.from({ length: Math.floor((high - first) / step + 1e-9) + 1 }, (_, i) =>
    Number((first + i * step).toPrecision(10)),
  );
}
