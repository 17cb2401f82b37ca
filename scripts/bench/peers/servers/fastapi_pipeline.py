"""A transformers pipeline behind FastAPI, as transformers' page "Web server inference" says.

The web server only receives and sends; one queue leads to one thread that runs the pipeline, off
the event loop ("block the main thread"). No batches: "If you are using CPU, don't batch" (same
site, main_classes/pipelines, "Pipeline batching").
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import torch
from bert import DTYPE, MAX_LENGTH, MODEL_DIR, NUM_THREADS
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline


class Question(BaseModel):
    text: str


class Answer(BaseModel):
    label: str
    score: float


def load() -> Any:
    torch.set_num_threads(NUM_THREADS)
    found = pipeline("text-classification", MODEL_DIR, device="cpu", dtype=getattr(torch, DTYPE))
    return partial(found, truncation=True, max_length=MAX_LENGTH)


async def serve_queue(queue: asyncio.Queue[tuple[str, asyncio.Future[Any]]]) -> None:
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as thread:
        classify = await loop.run_in_executor(thread, load)
        while True:
            text, answer = await queue.get()
            try:
                found = await loop.run_in_executor(thread, classify, text)
            except Exception as error:  # one text's failure must not end the queue
                if not answer.done():
                    answer.set_exception(error)
            else:
                if not answer.done():
                    answer.set_result(found[0])


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    app.state.queue = asyncio.Queue()
    task = asyncio.create_task(serve_queue(app.state.queue))
    yield
    task.cancel()


app = FastAPI(lifespan=lifespan)


@app.post("/classify")
async def classify(question: Question) -> Answer:
    answer = asyncio.get_running_loop().create_future()
    await app.state.queue.put((question.text, answer))
    return Answer(**await answer)
