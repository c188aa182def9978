/* What is written before and after, with the tokens marked whose odds the edit changes. */

import { el } from "../dom.mjs";
import { count, number } from "../numbers.mjs";
import { column, fixed, note, right, table, title, word } from "./parts.mjs";
import { probabilities } from "./text.mjs";

const SIGNS = { raised: "▲", lowered: "▼" };

function tokenTold(token) {
  return `${fixed(token.before, 3)} before, ${fixed(token.after, 3)} after`;
}

function writtenToken(token) {
  if (token.mark === null) return el("span", { title: tokenTold(token) }, token.token);
  return el(
    "span",
    {
      class: `marked ${token.mark}`,
      tabindex: "0",
      "data-told": `${SIGNS[token.mark]} ${tokenTold(token)}`,
      "aria-label": `${token.token}, ${token.mark}: ${tokenTold(token)}`,
    },
    token.token,
    el("i", { "aria-hidden": "true" }, SIGNS[token.mark]),
  );
}

function side(name, row, when) {
  const tokens = row[`tokens_${when}`];
  const marks = (kind) => tokens.filter((token) => token.mark === kind).length;
  return el(
    "div",
    { class: "side" },
    el(
      "h3",
      {},
      name,
      el("span", { class: "soft" }, ` ▲ ${marks("raised")}  ▼ ${marks("lowered")}`),
    ),
    el(
      "p",
      { class: "written", dir: "auto" },
      el("span", { class: "given" }, row.prompt),
      tokens.map(writtenToken),
    ),
    el(
      "details",
      {},
      el("summary", {}, "Every token and its probability"),
      table(
        `${name}: every token`,
        [
          column("token"),
          column("probability"),
          column("before", right),
          column("after", right),
          column(""),
        ],
        tokens.map((token) =>
          el(
            "tr",
            { class: token.mark },
            el("td", {}, word(token.token)),
            el("td", {}, probabilities(token.before, token.after)),
            el("td", { class: "number" }, fixed(token.before, 3)),
            el("td", { class: "number" }, fixed(token.after, 3)),
            el("td", { class: "sign" }, token.mark ? `${SIGNS[token.mark]} ${token.mark}` : ""),
          ),
        ),
      ),
    ),
  );
}

export function generatePart(found) {
  return [
    title("generate", "Generation"),
    note(
      `A token is marked where the edit changes its odds ${number(found.mark)} times or more and its `,
      "probability by 0.01 or more: ",
      el("span", { class: "marked raised" }, "raised", el("i", {}, "▲")),
      " or ",
      el("span", { class: "marked lowered" }, "lowered", el("i", {}, "▼")),
      ". Both texts are held against both models, so marks stand in what either wrote. ",
      found.temperature
        ? `Drawn at temperature ${number(found.temperature)}, seed ${found.seed}.`
        : "The likeliest token each time.",
    ),
    found.prompts.map((row) =>
      el(
        "article",
        { class: "writing", "aria-label": row.prompt },
        side("As the model is", row, "before"),
        side("Under the edit", row, "after"),
        el(
          "p",
          { class: "soft" },
          row.same_tokens === row.tokens_before.length &&
            row.same_tokens === row.tokens_after.length
            ? "Both write the same."
            : row.same_tokens
              ? `${count(row.same_tokens, "token")} the same at first.`
              : "They differ from the first token on.",
        ),
      ),
    ),
  ];
}
