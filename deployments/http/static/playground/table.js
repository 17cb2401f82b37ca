// A whole CSV through POST /classify: a few requests at a time, and little of it in memory.
import { Refused, ask, wait } from "./api.js";
import { readRows, written } from "./csv.js";
import { $, el } from "./dom.js";
import { score } from "./results.js";
import { number, percent, t } from "./words.js";

const BATCH_TEXTS = 64;
const BATCH_CHARS = 100_000;
const AT_ONCE = 3;
const TRIES = 8;
const SHOWN = 50;
const PART_CHARS = 250_000; // kept as text before it becomes a Blob, which the browser may put on disk

/** The names in the first row. Raises RangeError. */
export async function columnsOf(file) {
  for await (const { rows } of readRows(file)) if (rows.length) return rows[0];
  return [];
}

/**
 * Labels a column of a file, and shows how it goes. options: of the request. settings: {limits,
 * multi}. Raises Refused where the service won't take any of it, AbortError where it was stopped.
 */
export async function label(file, column, options, settings, signal, say) {
  const screen = new Screen(file, Boolean(options.raw_scores));
  const most = Math.min(BATCH_TEXTS, settings.limits?.max_batch_texts ?? BATCH_TEXTS);
  const output = new Output();
  const underWay = [];
  let batch = [];
  let chars = 0;
  let bytes = 0;
  let header = null;

  const take = async () => {
    const { rows, at, answers } = await underWay.shift();
    const given = await answers;
    rows.forEach((row, i) => output.add(row, given[i], header.length));
    screen.add(rows.map((row) => row[column] ?? ""), given, at);
  };
  const send = async () => {
    if (!batch.length) return;
    const answers = classify(batch.map((row) => row[column] ?? ""), options, signal);
    answers.catch(() => {}); // it is looked at in its turn
    underWay.push({ rows: batch, at: bytes, answers });
    batch = [];
    chars = 0;
    if (underWay.length >= AT_ONCE) await take();
  };

  try {
    for await (const piece of readRows(file)) {
      bytes = piece.bytes;
      for (const row of piece.rows) {
        signal.throwIfAborted();
        if (header === null) {
          header = row;
          output.write([...row, "label", "score", "error"]);
          continue;
        }
        batch.push(row);
        chars += (row[column] ?? "").length;
        if (batch.length >= most || chars >= BATCH_CHARS) await send();
      }
    }
    await send();
    while (underWay.length) await take();
    say(screen.done ? t("csv-done", screen.counts()) : t("csv-empty"));
  } catch (error) {
    if (error.name !== "AbortError") throw error;
    say(t("csv-stopped", screen.counts()));
  } finally {
    if (screen.done) screen.offer(output.blob(), file.name);
  }
}

/** An answer or an error for each text; what the service can't take as a whole is halved. */
async function classify(texts, options, signal, tries = TRIES) {
  for (let tried = 1; ; tried += 1) {
    try {
      return (await ask("classify", { body: { ...options, text: texts, priority: "bulk" }, signal })).value;
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      if (error.status === 413 && texts.length > 1) {
        const half = texts.length >> 1;
        const first = await classify(texts.slice(0, half), options, signal);
        return [...first, ...(await classify(texts.slice(half), options, signal))];
      }
      const passes = [0, 408, 429, 500, 502, 503, 504].includes(error.status);
      if (!passes && error.status !== 413) throw error;
      if (!passes || tried >= tries) {
        if (error.status === 0) throw error;
        return texts.map(() => ({ error: { message: error.message || String(error.status) } }));
      }
      await wait(1000 * (error.retryAfterS ?? Math.min(2 ** (tried - 1), 15)), signal);
    }
  }
}

class Output {
  #parts = ["\ufeff"]; // Excel takes it for UTF-8 then
  #blobs = [];
  #chars = 0;

  add(row, answer, width) {
    const cells = Array.from({ length: Math.max(width, row.length) }, (_, i) => row[i] ?? "");
    this.write(
      answer.error
        ? [...cells, "", "", answer.error.message]
        : [...cells, (answer.labels ?? [answer.label]).join("|"), String(answer.score), ""],
    );
  }

  write(fields) {
    const line = written(fields);
    this.#parts.push(line);
    this.#chars += line.length;
    if (this.#chars < PART_CHARS) return;
    this.#blobs.push(new Blob(this.#parts));
    this.#parts = [];
    this.#chars = 0;
  }

  blob() {
    return new Blob([...this.#blobs, ...this.#parts], { type: "text/csv;charset=utf-8" });
  }
}

class Screen {
  done = 0;
  bad = 0;
  #file;
  #raw;
  #body = el("tbody");
  #progress = el("progress", { max: 1, value: 0, "aria-labelledby": "csv-progress" });
  #said = el("p", { className: "small", id: "csv-progress" });

  constructor(file, raw) {
    this.#file = file;
    this.#raw = raw;
    const head = el("tr", {}, ...["row", "text", "label", "score"].map((name) => el("th", { textContent: t(name), scope: "col" })));
    const table = el("table", {}, el("caption", { className: "small", textContent: t("csv-shown", { n: SHOWN }) }), el("thead", {}, head), this.#body);
    const scroll = el("div", { className: "scroll", tabIndex: 0, role: "region", "aria-label": t("csv-shown", { n: SHOWN }) }, table);
    $("results").replaceChildren(this.#progress, this.#said, scroll);
  }

  counts() {
    return { done: number(this.done), bad: number(this.bad) };
  }

  add(texts, answers, bytes) {
    answers.forEach((answer, i) => {
      this.done += 1;
      if (answer.error) this.bad += 1;
      if (this.done > SHOWN) return;
      const said = answer.error
        ? [el("td", { className: "why", colSpan: 2, textContent: answer.error.message })]
        : [
            el("td", { className: "label", textContent: (answer.labels ?? [answer.label]).join(", ") }),
            el("td", { className: "figure", textContent: score(answer.score, this.#raw) }),
          ];
      this.#body.append(el("tr", {}, el("td", { className: "figure", textContent: number(this.done) }), el("td", { textContent: texts[i].slice(0, 160) }), ...said));
    });
    const share = this.#file.size ? bytes / this.#file.size : 1;
    this.#progress.value = share;
    this.#said.textContent = `${t("rows", this.counts())} · ${t("rows-left", { percent: percent(share) })}`;
  }

  offer(blob, name) {
    const link = el("a", { className: "button main", textContent: t("download"), download: name.replace(/(\.\w+)?$/, "-labelled.csv") });
    link.href = URL.createObjectURL(blob);
    link.id = "download";
    this.#said.after(link);
  }
}
