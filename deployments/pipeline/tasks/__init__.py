"""Kinds of models, by what their head means. Nothing else in pipeline/ knows what a label is.

- base: The seam that a kind of model hangs on: how inputs become sequences, and logits an answer
- text_classification: Logits → labels and scores

pipeline/parts.py and postprocessor.py import it. A new task is one new file here and one line in
`TASKS`.
"""

from __future__ import annotations

from deployments.pipeline.tasks.base import Decoder, Encoder, Task
from deployments.pipeline.tasks.text_classification import TextClassification
from deployments.pipeline.types import ModelInfo

TASKS: dict[str, Task] = {task.name: task for task in (TextClassification(),)}
"""All that the service can do, by name."""


def task_of(info: ModelInfo) -> Task:
    """Raises KeyError where nothing here knows that task."""
    return TASKS[info.task]


__all__ = ["TASKS", "Decoder", "Encoder", "Task", "task_of"]
