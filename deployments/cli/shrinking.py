"""What `distill`, `prune` and `trim` share: tables in, errors told, figures and a card out."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from deployments.cli.evaluate import read_table, read_texts
from deployments.cli.finetune import training_bar
from deployments.cli.model_directory import check_free, clear

if TYPE_CHECKING:
    from deployments.optimise.distilling import Distilled, Lesson
    from deployments.optimise.labelled import Labelled
    from deployments.optimise.shrunk import Beside
    from deployments.optimise.training import Recipe
    from deployments.optimise.trimming import Trim

MIN_AGREEMENT = 0.99
"""Share of texts that must keep their label, or a person is told, or refused."""


class Job:
    """One run of one of them. Refuses to write over a model before anything is read."""

    def __init__(
        self,
        out: Path,
        force: bool,
        data: str,
        validation: str | None,
        text_column: str,
        label_column: str,
        separator: str | None,
        kind: str | None,
        encoding: str,
        models: Sequence[str | None],
        unlabelled: str | None = None,
    ) -> None:
        check_free(out, force, (*models, data, validation, unlabelled))
        self._directory, self._force, self._separator = out, force, separator
        self._data, self._validation = data, validation
        self._columns = (text_column, label_column, kind, encoding)
        self.say = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
        self.out = Console(highlight=False, soft_wrap=True, markup=False)

    def clear(self) -> None:
        """With --force: what an earlier run left."""
        if self._force:
            clear(self._directory)

    def errors(self) -> Any:
        from deployments.cli.training_errors import told

        return told(self.say, self._directory)

    def lesson(self, name: str, model: Any, unlabelled: str | None) -> Lesson:
        """The tables. Raises BadTable, BadData."""
        from deployments.optimise.distilling import Lesson, check_separator, labels_of, task_of
        from deployments.optimise.finetuning import held_out
        from deployments.optimise.labelled import check_known, without
        from deployments.pipeline.tasks.text_classification import REGRESSION, SINGLE_LABEL

        task = task_of(model, self._separator)
        check_separator(name, task)
        rows = self._table(self._data, task.problem_type == REGRESSION)
        if self._validation is None:
            learnt, chosen = held_out(rows, 0, task.problem_type == SINGLE_LABEL)
        else:
            chosen = self._table(self._validation, task.problem_type == REGRESSION)
            learnt = without(rows, chosen, self._data, self._validation)
        if task.problem_type != REGRESSION:
            for one in (learnt, chosen):
                check_known(one, name, labels_of(model), self._separator)
        more = [] if unlabelled is None else self.texts(unlabelled)
        known = {" ".join(text.split()) for text in (*learnt.texts, *chosen.texts)}
        fresh = [text for text in more if " ".join(text.split()) not in known]
        for note in (*learnt.notes, *chosen.notes):
            self.say.print(f"warning: {note}")
        self.say.print(
            f"{len(learnt):,} rows to learn from, {len(fresh):,} more texts, "
            f"{len(chosen):,} rows to choose by"
        )
        self.clear()
        return Lesson(learnt, fresh, chosen)

    def texts(self, path: str) -> list[str]:
        """Of a table without labels, each once. Raises BadTable, BadData."""
        from deployments.optimise.labelled import BadData

        column, _, kind, encoding = self._columns
        found = list(dict.fromkeys(read_texts(path, column, kind, encoding)[0]))
        if len(found) < 2:
            raise BadData(f"{path} has {len(found)} texts in the column {column}.")
        return found

    def recipe(
        self, epochs: int, rate: float, batch_tokens: int, max_length: int, seed: int
    ) -> Recipe:
        from deployments.optimise.training import Recipe

        return Recipe(
            epochs=epochs,
            learning_rate=rate,
            batch_tokens=batch_tokens,
            max_length=max_length,
            seed=seed,
        )

    def train(
        self,
        large: Any,
        tokenizer: Any,
        small: Any,
        own_tokenizer: Any,
        lesson: Lesson,
        recipe: Recipe,
        made: str,
    ) -> Distilled:
        from deployments.optimise.distilling import distill

        self.say.print(
            f"{made}: {small.num_parameters():,} of {large.num_parameters():,} weights; asks the "
            "larger model first"
        )
        with training_bar(self.say) as tell:
            return distill(
                large, tokenizer, small, own_tokenizer, lesson, recipe, self._directory,
                self._separator, name=(made,), tell=tell,
            )  # fmt: skip

    def end(
        self,
        original: str,
        found: Distilled,
        lesson: Lesson,
        recipe: Recipe,
        made: str,
        engine: dict[str, Any] | None,
    ) -> None:
        """Both beside each other, on validation, and the card; then nothing is left to go on."""
        from deployments.optimise.distilling import labels_of, load, task_of
        from deployments.optimise.finetuning import targets_of
        from deployments.optimise.shrunk import beside
        from deployments.optimise.unfinished import forget

        model, _ = load(str(self._directory))
        task, labels = task_of(model, self._separator), labels_of(model)
        both = beside(
            original,
            self._directory,
            (found.teacher, found.student),
            targets_of(lesson.validation, labels, task),
            task,
            lesson.validation.texts,
            engine,
        )
        self.out.print(table_of(both))
        write_card(
            self._directory,
            original,
            [("to learn from", lesson.labelled), ("to choose by", lesson.validation)],
            labels,
            [
                *((name, str(value)) for name, value in asdict(recipe).items()),
                ("made", made),
                ("more texts, without labels", f"{len(lesson.more):,}"),
                ("seconds", f"{found.outcome.seconds:.0f}"),
            ],
            both,
        )
        forget(self._directory)
        self.out.print(f"{self._directory} written.")

    def end_of_trim(self, original: str, found: Trim, texts: Sequence[str]) -> None:
        """What was cut, and the card."""
        from deployments.optimise.card import Card
        from deployments.optimise.labelled import Labelled

        for name, value in found.figures():
            self.out.print(f"{name}: {value}")
        if found.agreement is not None and found.agreement < MIN_AGREEMENT:
            self.say.print(
                f"warning: of {found.n_held_out:,} texts that a cut did not know, "
                f"{found.agreement:.1%} keep their label. Give --data many more texts, as the "
                "service will meet them: what it lacks is spelt in smaller pieces."
            )
        Card(
            title="A model with fewer tokens",
            base=original,
            command="rayclassify " + shlex.join(sys.argv[1:]),
            data=[("texts, without labels", Labelled(list(texts), [""] * len(texts)))],
            labels=found.labels,
            recipe=[],
            figures=found.figures(),
            notes=[
                "Texts of other tokens are spelt in smaller pieces, and may get other answers.",
                "The original's limits and licence hold for it too.",
            ],
        ).write(self._directory)
        self.out.print(f"{self._directory} written.")

    def _table(self, path: str, numbers: bool) -> Labelled:
        text, label, kind, encoding = self._columns
        return read_table(path, text, label, kind, encoding, self._separator, None, numbers)


def table_of(
    both: Beside, heads: tuple[str, str, str] = ("on validation", "original", "smaller")
) -> Table:
    """Original and smaller one, side by side."""
    table = Table(*heads, box=None)
    for row in both.rows():
        table.add_row(*row)
    table.add_row("share of the original's figure", "", f"{both.kept:.2%}")
    table.add_row("agreement", "", f"{both.agreement:.2%}")
    if both.faster is not None:
        table.add_row("times as many texts/s", "", f"{both.faster:.2f}")
    return table


def write_card(
    directory: Path,
    original: str,
    data: Sequence[tuple[str, Labelled]],
    labels: Sequence[str],
    recipe: Sequence[tuple[str, str]],
    both: Beside,
) -> None:
    """README.md beside the weights."""
    from deployments.optimise.card import Card

    Card(
        title="A smaller model",
        base=original,
        command="rayclassify " + shlex.join(sys.argv[1:]),
        data=data,
        labels=labels,
        recipe=recipe,
        figures=both.figures(),
        notes=[
            "The rows to choose by chose the epoch, so their figures flatter both a little; "
            "`rayclassify evaluate` with other rows does not.",
            "Speeds are of one process on the machine named above, without a service around it.",
            "The original's limits and licence hold for it too.",
        ],
    ).write(directory)
