// Where the time of one request went, from the answer's headers and the browser's own clock.
import { $, el } from "./dom.js";
import { number, t } from "./words.js";

const STAGES = ["network", "http", "tokenize", "queue", "model"];

export function showTimes(answer) {
  const header = (name) => Number(answer.headers.get(name) ?? 0);
  const total = header("x-total-time");
  const took = { tokenize: header("x-tokenization-time"), queue: header("x-queue-time"), model: header("x-inference-time") };
  took.http = Math.max(0, total - took.tokenize - took.queue - took.model);
  took.network = Math.max(0, answer.tookMs - total);
  const sum = STAGES.reduce((ms, stage) => ms + took[stage], 0) || 1;
  $("stages").replaceChildren(
    ...STAGES.map((stage) => {
      const part = el("span", { className: stage });
      part.style.flexGrow = String(took[stage] / sum);
      return part;
    }),
  );
  $("stage-list").replaceChildren(
    ...STAGES.map((stage) =>
      el(
        "div",
        { className: stage },
        el("dt", { textContent: t(stage) }),
        el("dd", { textContent: took[stage] < 0.5 ? t("under") : t("ms", { n: number(took[stage]) }) }),
      ),
    ),
  );
  $("times").hidden = false;
}
