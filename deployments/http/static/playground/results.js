// Answers as bars, rows, and the place where a text was cut.
import { ask } from "./api.js";
import { el } from "./dom.js";
import { marks } from "./marks.js";
import { windows } from "./windows.js";
import { number, percent, t } from "./words.js";

const MOST_CUTS = 5; // each takes two requests more
const AROUND = 90; // characters shown on either side of a cut

export const score = (value, raw) => (raw ? number(value, 3) : percent(value));

function bars(answer, raw) {
  const entries = Object.entries(answer.scores ?? { [answer.label]: answer.score });
  const most = raw ? Math.max(...entries.map(([, one]) => Math.abs(one)), 1e-9) : 1;
  const chosen = new Set([...(answer.labels ?? [answer.label]), ...(answer.label_set ?? [])]);
  return el(
    "ol",
    { className: "bars" },
    ...entries.map(([name, one]) => {
      const fill = el("span", { className: one < 0 ? "fill below" : "fill" });
      fill.style.width = `${Math.min(100, (100 * Math.abs(one)) / most)}%`;
      return el(
        "li",
        { className: chosen.has(name) ? "chosen" : "" },
        el("span", { className: "name", textContent: name }),
        el("span", { className: "track", "aria-hidden": "true" }, fill),
        el("span", { className: "figure", textContent: score(one, raw) }),
      );
    }),
  );
}

function remarks(answer, body) {
  const said = [];
  if (answer.labels) {
    const threshold = number(body.threshold ?? 0.5, 2);
    said.push(t("at-threshold", { threshold, labels: answer.labels.join(", ") || t("none") }));
  }
  said.push(t("tokens", { n: number(answer.tokens) }));
  if (answer.redacted) said.push(t("redacted", { n: answer.redacted }));
  return el("p", { className: "small remarks", textContent: said.join(" · ") });
}

const cutNote = (answer) =>
  el("div", { className: "cut" }, el("p", { className: "small", textContent: t("was-cut", { n: number(answer.tokens) }) }));

/** One answer, large. info: of the service. */
export function single(answer, body, info) {
  const raw = Boolean(body.raw_scores);
  const parts = [
    el(
      "p",
      { className: answer.abstained ? "verdict abstained" : "verdict" },
      el("span", { className: "label", textContent: answer.label }),
      " ",
      el("span", { className: "figure", textContent: score(answer.score, raw) }),
    ),
    ...marks(answer, info),
    bars(answer, raw),
    remarks(answer, body),
    ...windows(body.text, answer),
  ];
  if (answer.truncated) parts.push(cutNote(answer));
  return el("div", { className: "single" }, ...parts);
}

/** Many answers, a row each; `{"error": …}` in the place of a bad one. */
export function several(texts, answers, body, info) {
  const raw = Boolean(body.raw_scores);
  return el(
    "ol",
    { className: "rows" },
    ...answers.map((answer, i) => {
      const text = el("p", { className: "of", textContent: texts[i].slice(0, 240) });
      if (answer.error) {
        return el("li", { className: "bad" }, text, el("p", { className: "why", textContent: answer.error.message }));
      }
      const fill = el("span", { className: answer.score < 0 ? "fill below" : "fill" });
      fill.style.width = `${Math.min(100, 100 * Math.abs(answer.score))}%`;
      const row = el(
        "li",
        {},
        text,
        el(
          "p",
          { className: answer.abstained ? "verdict abstained" : "verdict" },
          el("span", { className: "label", textContent: (answer.labels ?? [answer.label]).join(", ") || t("none") }),
          el("span", { className: "track", "aria-hidden": "true" }, ...(raw ? [] : [fill])),
          el("span", { className: "figure", textContent: score(answer.score, raw) }),
        ),
      );
      row.append(...marks(answer, info), ...windows(texts[i], answer));
      if (answer.truncated) row.append(cutNote(answer));
      return row;
    }),
  );
}

/** Shows in `shown` where each truncated text was cut, as far as that can be proven. */
export async function showCuts(shown, texts, answers, body, signal) {
  const notes = shown.querySelectorAll(".cut");
  const cut = answers.map((answer, i) => ({ answer, text: texts[i] })).filter(({ answer }) => answer.truncated);
  for (const [i, { answer, text }] of cut.slice(0, MOST_CUTS).entries()) {
    const at = answer.redacted ? null : await placeOfCut(text, answer, body, signal);
    if (at === null) continue;
    const said = t("cut-at", {
      at: number([...text.slice(0, at)].length), of: number([...text].length), n: number(answer.tokens),
    });
    const kept = text.slice(Math.max(0, at - AROUND), at);
    const lost = text.slice(at, at + AROUND);
    notes[i].replaceChildren(
      el("p", { className: "small", textContent: said }),
      el(
        "p",
        { className: "around" },
        el("span", { textContent: `…${kept}` }),
        el("del", { textContent: at + AROUND < text.length ? `${lost}…` : lost }),
      ),
    );
  }
}

/**
 * Where the model stopped reading: its tokenizer says which token stands where, and what lies before
 * the cut must give the same answer by itself. So a tokenizer that cuts the other end shows nothing.
 */
async function placeOfCut(text, answer, body, signal) {
  try {
    const [tokens] = (await ask("tokenize", { body: { inputs: text }, signal })).value;
    const own = tokens.filter((token) => !token.special);
    const last = own[answer.tokens - (tokens.length - own.length) - 1];
    if (!last) return null;
    const head = new TextDecoder().decode(new TextEncoder().encode(text).slice(0, last.stop));
    const again = (await ask("classify", { body: { ...body, text: head }, signal })).value;
    const near = Math.abs(again.score - answer.score) <= 0.02 * Math.max(1, Math.abs(answer.score));
    return again.tokens === answer.tokens && near ? head.length : null;
  } catch (error) {
    if (error.name === "AbortError") throw error;
    return null; // the dialect that tells tokens may be off
  }
}
