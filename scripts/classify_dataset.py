"""Label Parquet files with Ray Data: `ray job submit -- python scripts/classify_dataset.py …`.

deployments/bulk/dataset.py does the work; this is a job to run as it is, or to copy.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def main(
    source: Annotated[
        str, typer.Argument(metavar="IN_DIR", help="Parquet files: a full path or a URI.")
    ],
    target: Annotated[str, typer.Argument(metavar="OUT_DIR", help="Where Parquet files go.")],
    text_column: Annotated[str, typer.Option(help="The column of the texts.")],
    pair_column: Annotated[
        str | None, typer.Option(help="The second halves, for models that read pairs.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="A Serve config, such as serve_config.yaml: its `args`.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="A hub id or directory, in the place of the config's.")
    ] = None,
    add: Annotated[
        str, typer.Option(help="Columns to add: label,score,scores,labels,tokens,truncated.")
    ] = "label,score",
    prefix: Annotated[str, typer.Option(help="Of the added columns.")] = "",
    actors: Annotated[
        str,
        typer.Option(help="Each holds a model: a number; or 2: or 2:8, the least and the most."),
    ] = "1:",
    num_cpus: Annotated[float, typer.Option(help="CPUs, and so threads, of an actor.")] = 1,
    num_gpus: Annotated[float, typer.Option(help="GPUs of an actor; 0.5: two share one.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Rows that an actor gets at once.")] = 512,
    max_batch_tokens: Annotated[
        int, typer.Option(help="Tokens of a forward pass; 32768 suits a GPU.")
    ] = 4_096,
    force: Annotated[bool, typer.Option("--force", help="Empty OUT_DIR first.")] = False,
) -> None:
    """Label the texts of all Parquet files in IN_DIR, and write them to OUT_DIR.

    All nodes must reach both; a job's own directory is a copy that goes with it. Rows keep all
    columns; `error` says why a row has no label.

    Exit code 1: some rows have no label; 2: an option, a column, the model or a path is wrong, and
    nothing was started; 3: the job failed, and OUT_DIR holds a part: run it again with --force.

    Examples:

    - `ray job submit --working-dir . -- python scripts/classify_dataset.py /data/reviews
    /data/labelled --text-column review`

    - `python scripts/classify_dataset.py s3://shop/in s3://shop/out --text-column text
    --config serve_config.gpu.yaml --actors 4: --num-gpus 1 --max-batch-tokens 32768`
    """
    import ray
    from ray.data import SaveMode
    from ray.data.expressions import col

    from deployments.bulk import classify_dataset
    from deployments.bulk.batches import ERROR
    from deployments.bulk.tables import BadTable
    from deployments.engines.loaded import REFUSALS
    from deployments.pipeline.errors import ServiceError

    try:
        for path in (source, target):
            if "://" not in path and not Path(path).is_absolute():
                raise BadTable(f"{path} is a relative path. Write it in full, or as a URI.")
        if target.rstrip("/") == source.rstrip("/"):
            raise BadTable("OUT_DIR is IN_DIR. Name another: the input is read to the end.")
        if not force and _is_there(target):
            raise BadTable(f"{target} is there already. Name another, or say --force.")
        pool, args = _pool(actors), _args(config, model)
        ray.init(ignore_reinit_error=True)
        rows = ray.data.read_parquet(source)
        if rows.count() == 0:
            raise BadTable(f"{source} holds no rows.")
        labelled = classify_dataset(
            rows,
            text_column=text_column,
            pair_column=pair_column,
            args=args,
            add=[name.strip() for name in add.split(",") if name.strip()],
            prefix=prefix,
            concurrency=pool,
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            batch_size=batch_size,
            max_batch_tokens=max_batch_tokens,
        )
    except (BadTable, ServiceError, OSError, ValueError, *REFUSALS) as exc:
        typer.echo(f"error: {exc}", err=True)
        raise typer.Exit(2) from None
    try:
        labelled.write_parquet(target, mode=SaveMode.OVERWRITE if force else SaveMode.CREATE)
        reasons = ray.data.read_parquet(target, columns=[f"{prefix}{ERROR}"])
        n_rows = reasons.count()
        n_bad = reasons.filter(expr=col(f"{prefix}{ERROR}").is_not_null()).count()
    except (ray.exceptions.RayError, OSError, ValueError) as exc:
        # The last line is the cause; all of it stands in the job's log above.
        typer.echo(f"error: the job failed: {str(exc).strip().splitlines()[-1]}", err=True)
        raise typer.Exit(3) from None
    typer.echo(f"{n_rows:,} rows: {target}")
    if n_bad:
        typer.echo(f"{n_bad:,} rows have no label: see their column {prefix}{ERROR}.")
        raise typer.Exit(1)


def _is_there(target: str) -> bool:
    from pyarrow.fs import FileSystem, FileType

    filesystem, path = FileSystem.from_uri(target)
    return bool(filesystem.get_file_info(path).type != FileType.NotFound)


def _args(config: Path | None, model: str | None) -> dict[str, Any]:
    args: dict[str, Any] = {}
    if config is not None:
        document = yaml.safe_load(config.read_text(encoding="utf-8"))
        try:
            args = document["applications"][0].get("args") or {}
        except (AttributeError, LookupError, TypeError):
            raise ValueError(f"{config} is no Serve config: it lists no applications.") from None
    if model is not None:
        args["model"] = {**args.get("model", {}), "id": model, "revision": None}
    return args


def _pool(actors: str) -> int | tuple[int, int | None]:
    """`4` → 4; `2:8` → (2, 8); `2:` → (2, None): as many as there is room for."""
    if not re.fullmatch(r"\d+(:\d*)?", actors):
        raise ValueError(f"--actors {actors}: write 4, 2: or 2:8.")
    least, colon, most = actors.partition(":")
    if not colon:
        return int(least)
    return int(least), int(most) if most else None


if __name__ == "__main__":
    app()
