// What an answer says of itself beside its label: who gave it, and how sure he is.
import { el } from "./dom.js";
import { percent, t } from "./words.js";

/** [{said, doubt}]. doubt: not to be relied on. info: of the service, for its threshold. */
export function marksOf(answer, info) {
  const marks = [];
  const { cascade } = answer;
  if (cascade) marks.push({ said: t(cascade.unsure ? "by-unsure" : `by-${cascade.stage}`), doubt: cascade.unsure });
  if (answer.abstained) {
    // Of the small model of a cascade nobody tells the threshold.
    const at = cascade?.stage === "first" ? null : (info?.postprocessing?.abstain_below ?? info?.calibration?.abstain_below);
    marks.push({ said: at ? t("abstains-at", { threshold: percent(at) }) : t("abstains"), doubt: true });
  }
  if (answer.label_set) {
    const labels = answer.label_set.join(", ") || t("none");
    marks.push({ said: t("label-set", { labels }), doubt: answer.label_set.length !== 1 });
  }
  return marks;
}

/** The same as elements: none where there is nothing to say. */
export function marks(answer, info) {
  const all = marksOf(answer, info);
  if (!all.length) return [];
  const each = all.map(({ said, doubt }) => el("span", { className: doubt ? "doubt" : "", textContent: said }));
  return [el("p", { className: "marks" }, ...each)];
}
