// A text that was read in windows, and the window that says most of its label.
import { el } from "./dom.js";
import { number, t } from "./words.js";

const AROUND = 400; // code points shown on either side of the window

/** What is said of an answer's windows; none where the text was read at once. */
export function windows(text, answer) {
  const { windows: read } = answer;
  if (!read) return [];
  const { index, start, end } = read.deciding;
  const said = t("windows", { n: number(read.count), i: number(index + 1), from: number(start + 1), to: number(end) });
  const note = el("p", { className: "small", textContent: said });
  // Offsets are into what was read, which with redaction is not what stands in the field.
  if (answer.redacted) return [el("div", { className: "windows" }, note)];
  const points = [...text];
  const part = (from, to) => points.slice(from, to).join("");
  const before = part(Math.max(0, start - AROUND), start);
  const after = part(end, end + AROUND);
  const shown = el(
    "p",
    { className: "window", tabIndex: 0, role: "region", "aria-label": t("deciding") },
    start > AROUND ? `…${before}` : before,
    el("mark", { textContent: part(start, end) }),
    end + AROUND < points.length ? `${after}…` : after,
  );
  return [el("div", { className: "windows" }, note, shown)];
}

/** Scrolls the window into sight, once it is on the page. */
export function showWindow(where) {
  const mark = where.querySelector(".window mark");
  if (!mark) return;
  const box = mark.parentElement;
  box.scrollTop = mark.offsetTop - box.offsetTop - box.clientHeight / 4;
}
