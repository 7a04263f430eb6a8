"""``elysium export``: export the vision encoder as ONNX graphs or a TensorRT engine."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elysium_core.cli.options import DEFAULT_MODEL, JsonOption, PickleOption
from elysium_core.cli.output import Progress, emit, say
from elysium_core.errors import ConfigError

if TYPE_CHECKING:
    import torch

BACKENDS = ("onnx", "tensorrt")
_ModelOption = Annotated[str, typer.Option("--model", "-m", help="real, nano, a folder, or a hub id that was pulled.")]
_PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        help="Arithmetic precision: float32, float16 or bfloat16. auto = float32 for onnx, float16 for tensorrt.",
    ),
]
_DtypeOption = Annotated[
    str,
    typer.Option(
        "--dtype",
        help="The --dtype that the model will be loaded with later; the exported file is used only with this one. "
        "float32, float16 or bfloat16. auto = as stored for onnx, bfloat16 for tensorrt.",
    ),
]


def command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the graphs or the engine.")],
    model: _ModelOption = DEFAULT_MODEL,
    backend: Annotated[str, typer.Option("--vision-backend", "--backend", help="onnx or tensorrt.")] = "onnx",
    precision: _PrecisionOption = "auto",
    dtype: _DtypeOption = "auto",
    allow_pickle_weights: PickleOption = False,
    max_batch: Annotated[
        int, typer.Option("--max-batch", min=1, max=64, help="Largest batch of a TensorRT engine, in frames.")
    ] = 8,
    json: JsonOption = False,
) -> None:
    """Export the vision encoder, token adapter and projector to ONNX or TensorRT.

    Of a model that follows in crops, the graphs for crops are exported too, to ONNX only; with TensorRT, crops run on
    torch. Files in the folder that are up to date are kept. The model finds the files if they are written into its
    own folder.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"--backend {backend!r} is not one of {', '.join(BACKENDS)}")
    if model == "identity":
        raise ConfigError("--model identity has no vision encoder to export; name a model with weights")
    if precision == "auto":
        precision = "float32" if backend == "onnx" else "float16"
    load_options = {"dtype": _load_dtype(dtype, backend), "allow_pickle_weights": allow_pickle_weights}
    files = _export(model, load_options, backend, out, precision, max_batch)
    report = {"backend": backend, "precision": precision, **files}
    if json:
        emit(report)
    else:
        say(_summary(report))


def _load_dtype(dtype: str, backend: str) -> torch.dtype | None:
    from elysium_core.device import DTYPES

    if dtype == "auto":
        return None if backend == "onnx" else DTYPES["bfloat16"]
    if dtype not in DTYPES:
        raise ConfigError(f"--dtype {dtype!r} is not one of auto, {', '.join(DTYPES)}")
    return DTYPES[dtype]


def _export(
    model: str, load_options: dict[str, Any], backend: str, out: Path, precision: str, max_batch: int
) -> dict[str, Any]:
    from elysium_core.checkpoint.checkpoint import load_checkpoint
    from elysium_core.vision.crop_export import export_crop_graphs
    from elysium_core.vision.onnx_export import export_onnx
    from elysium_core.vision.onnx_writer import check_export
    from elysium_core.vision.tensorrt_engine import build_engine, gpu_kind, import_tensorrt

    # Checked before the weights are loaded, so that bad options fail at once.
    check_export(precision)
    if backend == "tensorrt":
        import_tensorrt()
    network = load_checkpoint(model, **load_options).network
    # The engine's graph may have another precision than the graph for ONNX Runtime in the same folder.
    with Progress("export", None) as bar, tempfile.TemporaryDirectory(prefix="elysium-export-") as passing:
        bar.advance("writing the ONNX graph")
        file = export_onnx(network, Path(passing) if backend == "tensorrt" else out, precision)
        crops = [] if backend == "tensorrt" else export_crop_graphs(network, out, precision)
        if backend == "tensorrt":
            bar.advance("building the TensorRT engine")
            file = build_engine(
                file,
                out,
                gpu_kind(),
                max_batch,
                lambda part, done, total: bar.advance(f"{part}: {done}/{total}"),
            )
    return {**_facts(file), "crops": [_facts(each) for each in crops]}


def _facts(file: Path) -> dict[str, Any]:
    from elysium_core.checkpoint.integrity import read_description

    return {"file": str(file), "bytes": file.stat().st_size, "made_from": read_description(file)}


def _summary(report: dict[str, Any]) -> str:
    lines = [_line(report, "frame"), *(_line(each, "crop") for each in report["crops"])]
    return "\n".join(lines)


def _line(facts: dict[str, Any], of: str) -> str:
    source = facts["made_from"]
    return (
        f"{facts['file']}: {facts['bytes'] / 1e6:.1f} MB, {source['precision']}, "
        f"{source['tokens']} tokens of width {source['width']} per {of}"
    )
