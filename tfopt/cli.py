"""The command line: the same functions as the Python API, with their results written to a folder."""

from __future__ import annotations

import signal
import sys
import warnings
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from tfopt.errors import BenchmarkError, ConfigError, TfoptError
from tfopt.tensorflow_start import start_tensorflow

if TYPE_CHECKING:
    from tfopt.export.task_metadata import ModelMetadata

__all__ = ["app", "main"]

app = typer.Typer(
    name="tfopt",
    help="From a Keras 3 model to a small, fast, verified model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console()

Out = Annotated[Path, typer.Option("--out", help="Folder to write to.")]
Data = Annotated[Path, typer.Option("--data", help="NPZ file with x_train, y_train, x_test, y_test.")]
ZEROS_TARGET = "Also whether zeros make it faster there: tflite, edge_tpu, ethos_u, …"
RULE_BROKEN = NOT_REACHED = 3
EXPORT_FORMATS = ("tflite", "edge-tpu", "ethos-u", "onnx", "serving")
OptionalData = Annotated[Path | None, typer.Option("--data", help="NPZ file with x_train, y_train, x_test, y_test.")]


@app.command()
def demo(
    out: Out = Path("tfopt_demo"),
    data: Annotated[
        str, typer.Option("--data", help="digits (nothing is downloaded), fashion_mnist, or an NPZ file.")
    ] = "digits",
) -> None:
    """Train a small CNN, prune, quantize, export, serve and measure it: the whole way in about a minute."""
    start_tensorflow()
    from tfopt.demo import load_data, run_demo

    result = run_demo(load_data(data), out, console, title=f"tfopt demo: {Path(data).stem}")
    result.report.print_table(console)
    console.print(f"float model:     {result.model_path}", soft_wrap=True)
    console.print(f"int8 model:      {result.tflite.path}", soft_wrap=True)
    console.print(f"serving folder:  {out / 'serving'}", soft_wrap=True)
    console.print(f"report:          {result.report_page}", soft_wrap=True)


@app.command()
def optimize(
    model: Annotated[Path, typer.Argument(help="A trained model: .keras, .h5 or .hdf5.")],
    data: Data,
    out: Out,
    target: Annotated[
        str, typer.Option(help="Where the model is to run: tflite, edge_tpu, onnx or serving.")
    ] = "tflite",
    max_drop: Annotated[float, typer.Option(help="Score that may be lost, as a fraction: 0.01 is 1 point.")] = 0.01,
    budget: Annotated[
        str | None,
        typer.Option(
            help='What it may cost: "latency: 40%", "latency: 2 ms", "size: 1 MB", "flops: 50%", "cost: 0.05 $".'
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(help="Of the training after channels were removed; 0 trains nothing.")] = 6,
    batch_size: Annotated[int, typer.Option(help="Samples in a training step.")] = 64,
    learning_rate: Annotated[float, typer.Option(help="Adam's peak rate in the training.")] = 1e-3,
    price_per_hour: Annotated[
        float | None, typer.Option(help="What the machine costs in dollars, for a budget in dollars.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the training.")] = 0,
    recipe: Annotated[Path | None, typer.Option(help="Do just what this recipe.yaml says.")] = None,
) -> None:
    """Make a trained model small and fast: what costs seconds first, training and fewer channels where needed.

    Half of the test samples are what candidates are chosen by; the chosen one is scored on the other half. Run it again
    with the same --out to go on where it was interrupted. Exit code 3: what was asked for was not reached; the closest
    candidate is written, and the output says what prevents more.
    """
    start_tensorflow()
    import tfopt
    from tfopt.data import load_npz
    from tfopt.recipe import Recipe

    arrays = load_npz(data)
    result = tfopt.optimize(
        model,
        (arrays.x_train, arrays.y_train),
        (arrays.x_test, arrays.y_test),
        target=target,
        max_drop=max_drop,
        budget=budget,
        out=out,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        recipe=None if recipe is None else Recipe.load(recipe),
        price_per_hour=price_per_hour,
        seed=seed,
        verbose=1 if console.is_terminal else 2,
    )
    result.report.print_table(console)
    console.print(str(result), soft_wrap=True, highlight=False)
    console.print(f"Report: {out / 'report.html'}", soft_wrap=True)
    if not result.is_reached:
        raise typer.Exit(NOT_REACHED)


def _list_presets(asked: bool) -> None:
    if asked:
        from tfopt.export.presets import presets_table

        console.print(presets_table(), soft_wrap=True, highlight=False)
        raise typer.Exit


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="A model: .keras, .h5 or .hdf5, quantize-aware or not.")],
    out: Out,
    format: Annotated[str, typer.Option(help="tflite, edge-tpu, ethos-u, onnx or serving.")] = "tflite",
    quantization: Annotated[
        str | None,
        typer.Option(
            help="For tflite: a preset; by default what the model was made quantize-aware for, else int8. "
            "For onnx: none (the default), float16 or int8."
        ),
    ] = None,
    data: OptionalData = None,
    engine: Annotated[
        str, typer.Option(help="For tflite and edge-tpu: converter, ai-edge-quantizer or best.")
    ] = "converter",
    labels: Annotated[
        Path | None, typer.Option(help="For tflite: a text file with a class label in each line, put into the file.")
    ] = None,
    mean: Annotated[
        float | None, typer.Option(help="For tflite: images are fed as (pixel - mean) / standard deviation.")
    ] = None,
    standard_deviation: Annotated[float | None, typer.Option(help="For tflite: see --mean.")] = None,
    target: Annotated[str, typer.Option(help="For ethos-u: the accelerator.")] = "ethos-u55-128",
    name: Annotated[str | None, typer.Option(help="For serving: the model's name in requests.")] = None,
    version: Annotated[int, typer.Option(help="For serving: the version to write.")] = 1,
    list_presets: Annotated[
        bool, typer.Option("--list-presets", help="Show the presets of tflite.", callback=_list_presets, is_eager=True)
    ] = False,
) -> None:
    """Write a model as a verified .tflite or .onnx file or TF Serving folder."""
    start_tensorflow()
    import tfopt
    from tfopt.data import load_npz
    from tfopt.model_file import load_model

    if format not in EXPORT_FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(EXPORT_FORMATS)}. Received: {format}.")
    if quantization is not None and format not in {"tflite", "onnx"}:
        raise ConfigError(f"--quantization is for tflite and onnx. Received: {quantization}, for {format}.")
    if format != "tflite" and (labels, mean, standard_deviation) != (None, None, None):
        raise ConfigError(f"--labels, --mean and --standard-deviation are for tflite. Received: {format}.")
    metadata = _metadata(labels, mean, standard_deviation) if format == "tflite" else None
    samples = None if data is None else load_npz(data).x_train
    loaded, file = load_model(model), out / f"{model.stem}.tflite"
    told: object = None
    if format == "tflite":
        artifact = tfopt.export_tflite(
            loaded, file, quantization, calibration=samples, engine=engine, metadata=metadata
        )
    elif format == "edge-tpu":
        from tfopt.export.edge_tpu import predict

        artifact = tfopt.export_edge_tpu(loaded, file, calibration=samples, engine=engine)
        told = predict(artifact) if artifact.verification["edge_tpu"]["source"] == "predicted" else None
    elif format == "ethos-u":
        from tfopt.export.ethos_u_estimate import EthosUEstimate

        artifact = tfopt.export_ethos_u(loaded, file, target=target, calibration=samples)
        told = EthosUEstimate.of(artifact)
    elif format == "onnx":
        artifact = tfopt.export_onnx(loaded, file.with_suffix(".onnx"), quantization or "none", calibration=samples)
    else:
        artifact = tfopt.export_serving(loaded, out, name=name or model.stem, version=version, data=samples)
    console.print(str(artifact), soft_wrap=True, highlight=False)
    if told is not None:
        console.print(str(told), soft_wrap=True, highlight=False)


def _metadata(labels: Path | None, mean: float | None, standard_deviation: float | None) -> ModelMetadata | None:
    from tfopt.export.task_metadata import ModelMetadata

    if (labels, mean, standard_deviation) == (None, None, None):
        return None
    try:
        texts = [] if labels is None else labels.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--labels must be a text file with a class label in each line. Received: {labels} ({error})."
        ) from None
    return ModelMetadata(labels=texts, mean=mean, standard_deviation=standard_deviation)


@app.command()
def benchmark(
    artifacts: Annotated[
        list[str],
        typer.Argument(
            help=".tflite and .onnx files and SavedModel folders; the first is the baseline. With --target serving: "
            "the address of a served model, http://HOST:8501/v1/models/NAME or grpc://HOST:8500/NAME, or a folder to "
            "serve."
        ),
    ],
    data: OptionalData = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for report.json and report.html.")] = None,
    estimate: Annotated[str | None, typer.Option(help="An Arm Ethos-U configuration, such as ethos-u55-128.")] = None,
    threads: Annotated[
        list[int] | None, typer.Option(help="Threads that a .tflite or .onnx is timed at, repeatable. [default: 1, 2]")
    ] = None,
    xnnpack: Annotated[
        str, typer.Option(help="on; off: TFLite's own kernels; both: every .tflite in both ways.")
    ] = "on",
    markdown: Annotated[Path | None, typer.Option(help="A file for the table of a pull request.")] = None,
    fail_if: Annotated[
        list[str] | None,
        typer.Option(help='A rule such as "p50_ms > 1.1x baseline", repeatable: exit code 3 where a file breaks one.'),
    ] = None,
    compare: Annotated[Path | None, typer.Option(help="An earlier report.json, to be shown beside this one.")] = None,
    price_per_hour: Annotated[
        float | None, typer.Option(help="Of the machine, in dollars: $ per 1M inferences.")
    ] = None,
    watts: Annotated[float | None, typer.Option(help="That the device draws: energy per inference.")] = None,
    target: Annotated[str | None, typer.Option(help=f"serving: a load test. {ZEROS_TARGET}")] = None,
    clients: Annotated[
        list[int] | None, typer.Option(help="For a load test: clients at once, repeatable. [default: 1, 16, 64]")
    ] = None,
    rate: Annotated[
        list[float] | None,
        typer.Option(
            help="For a load test: requests a second that arrive at random, repeatable. [default: half of "
            "the highest throughput]"
        ),
    ] = None,
    seconds: Annotated[float, typer.Option(help="For a load test: of each load.")] = 10.0,
    slo_ms: Annotated[float | None, typer.Option(help="For a load test: the latency that goodput counts.")] = None,
    protocol: Annotated[str, typer.Option(help="For a load test of a folder: rest or grpc.")] = "rest",
    model: Annotated[str | None, typer.Option(help="For a load test of a folder of several models.")] = None,
) -> None:
    """Measure accuracy, size, latency and memory of files beside each other, or load a model server."""
    is_address = any("://" in artifact for artifact in artifacts)
    if is_address or (target == "serving" and any(Path(artifact).is_dir() for artifact in artifacts)):
        if len(artifacts) > 1:
            raise ConfigError(f"A load test is of one address or folder. Received: {', '.join(artifacts)}.")
        for option, value in {
            "--estimate": estimate,
            "--threads": threads,
            "--xnnpack": xnnpack if xnnpack != "on" else None,
            "--markdown": markdown,
            "--fail-if": fail_if,
            "--compare": compare,
            "--price-per-hour": price_per_hour,
            "--watts": watts,
        }.items():
            if value:
                raise ConfigError(f"A load test does not take {option}, which is for files. Received: {value}.")
        _benchmark_serving(
            artifacts[0],
            data,
            out,
            clients=tuple(clients or (() if rate else (1, 16, 64))),
            rates_per_second=rate or None,
            seconds=seconds,
            slo_ms=slo_ms,
            protocol=protocol,
            model=model,
        )
        return
    start_tensorflow()
    import tfopt
    from tfopt.artifact import write_whole
    from tfopt.benchmark.fail_check import check_rules, require_previous
    from tfopt.benchmark.fail_rules import Rule
    from tfopt.benchmark.report import Report
    from tfopt.data import load_npz

    rules = [Rule.parse(text) for text in fail_if or []]
    earlier = None if compare is None else Report.load(compare)
    require_previous(rules, earlier)
    arrays = None if data is None else load_npz(data)
    report = tfopt.benchmark(
        artifacts,
        None if arrays is None else (arrays.x_test, arrays.y_test),
        threads=threads or (1, 2),
        estimate=estimate,
        target=target,  # type: ignore[arg-type]
        xnnpack=xnnpack,
        price_per_hour=price_per_hour,
        watts=watts,
    )
    report.print_table(console)
    if earlier is not None:
        report.print_beside(earlier, console)
    if out is not None:
        console.print(f"Report: {report.save(out, earlier=earlier)}", soft_wrap=True)
    if markdown is not None:
        with write_whole(markdown) as temporary:
            temporary.write_text(report.to_markdown(earlier=earlier), encoding="utf-8")
    findings = check_rules(report, rules, previous=earlier)
    for finding in findings:
        console.print(str(finding), soft_wrap=True, highlight=False, markup=False)
    if failed := [entry.name for entry in report.entries if entry.error]:
        raise BenchmarkError(
            f"{len(failed)} of {len(report.entries)} files could not be measured: {', '.join(failed)}. The table says "
            "why."
        )
    if broken := [finding for finding in findings if finding.outcome == "failed"]:
        told = "; ".join(f"{finding.entry}: {finding.rule.text} ({finding.detail})" for finding in broken)
        _print_error(f"[bold red]Failed:[/bold red] {escape(told)}")
        raise typer.Exit(RULE_BROKEN)


def _benchmark_serving(address: str, data: Path | None, out: Path | None, **options: Any) -> None:
    start_tensorflow()
    from tfopt.benchmark.serving import benchmark_serving
    from tfopt.data import load_npz

    report = benchmark_serving(address, None if data is None else load_npz(data).x_test, **options)
    console.print(str(report), soft_wrap=True, highlight=False)
    if out is not None:
        console.print(f"Report: {report.save(out)}", soft_wrap=True)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A .keras, .h5, .tflite or .onnx file, or a SavedModel folder.")],
    target: Annotated[str | None, typer.Option(help=ZEROS_TARGET)] = None,
) -> None:
    """Show what is in a file: layers or operators, FLOPs, weights, zeros, and bytes raw, zipped and coded."""
    start_tensorflow()
    import tfopt

    console.print(tfopt.inspect(file, target=target).table(console.width))  # type: ignore[arg-type]


@app.command()
def migrate(
    file: Annotated[
        Path, typer.Argument(help="A model that tf_keras saved: .h5, .hdf5, .keras, or a SavedModel folder.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="The .keras file to write; by default beside it, as NAME_keras_3.keras."),
    ] = None,
) -> None:
    """Write a tf_keras model, pruned, clustered or quantize-aware by tfmot too, as a .keras file of Keras 3."""
    start_tensorflow()
    from tfopt.interop.migration_file import migrate_file

    out = out or file.with_name(f"{file.stem}_keras_3.keras")
    console.print(str(migrate_file(file, out)), soft_wrap=True, highlight=False, markup=False)
    console.print(f"Keras 3 model: {out}", soft_wrap=True, highlight=False, markup=False)


@app.command()
def serve(
    path: Annotated[Path, typer.Argument(help="A folder of models, as export writes it, or a models.config.")],
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    rest_port: Annotated[int, typer.Option(help="0 for a free one, -1 for no REST.")] = 8501,
    grpc_port: Annotated[int, typer.Option(help="0 for a free one, -1 for no gRPC.")] = 8500,
    batching: Annotated[bool, typer.Option(help="Whether requests wait a moment and run together.")] = True,
    batching_parameters: Annotated[
        Path | None, typer.Option(help="By default batching_parameters.txt in the folder, if it is there.")
    ] = None,
    deadline_seconds: Annotated[float | None, typer.Option(help="That a request may take.")] = None,
    cache_bytes: Annotated[int, typer.Option(help="Memory for answers that may be asked for again.")] = 0,
    cache_url: Annotated[str | None, typer.Option(help="A Redis for answers: redis://HOST:PORT.")] = None,
    cache_ttl_seconds: Annotated[float | None, typer.Option(help="That an answer is kept.")] = None,
    trusted_callers: Annotated[
        bool, typer.Option(help="Whether no caller would make up a request that the cache takes for another's.")
    ] = True,
    max_request_bytes: Annotated[int, typer.Option(help="The longest request that is taken.")] = 64 * 1024**2,
    poll_seconds: Annotated[float, typer.Option(help="Between looks at the folder, for new versions.")] = 1.0,
    drain_seconds: Annotated[float, typer.Option(help="That requests are waited for at the end.")] = 10.0,
) -> None:
    """Serve models over REST and gRPC as TF Serving does, for development and tests."""
    import tfopt

    if batching_parameters is not None and not batching:
        raise ConfigError("--batching-parameters is for a server that batches. Received: --no-batching too.")
    tfopt.serve(
        path,
        host=host,
        rest_port=None if rest_port == -1 else rest_port,
        grpc_port=None if grpc_port == -1 else grpc_port,
        batching=batching_parameters or batching,
        deadline_seconds=deadline_seconds,
        cache_bytes=cache_bytes,
        cache_url=cache_url,
        cache_ttl_seconds=cache_ttl_seconds,
        trusted_callers=trusted_callers,
        max_request_bytes=max_request_bytes,
        poll_seconds=poll_seconds,
        drain_seconds=drain_seconds,
    )


@app.command()
def tune_batching(
    directory: Annotated[Path, typer.Argument(help="A folder of models, as export writes it, or one of its models.")],
    data: OptionalData = None,
    model: Annotated[str | None, typer.Option(help="Which one, where the folder holds several.")] = None,
    clients: Annotated[int | None, typer.Option(help="Who wait for an answer before they ask again; 64.")] = None,
    rate: Annotated[float | None, typer.Option(help="Or requests a second that arrive at random.")] = None,
    slo_ms: Annotated[float | None, typer.Option(help="The latency within which answers count.")] = None,
    max_batch_size: Annotated[int, typer.Option(help="The largest batch to try.")] = 64,
    seconds: Annotated[float, typer.Option(help="Of each measurement of the last round.")] = 2.0,
    write: Annotated[bool, typer.Option(help="Whether to give the version its choice.")] = True,
) -> None:
    """Measure which batching parameters a model is served best with, and whether batching pays."""
    start_tensorflow()
    import tfopt
    from tfopt.data import load_npz

    report = tfopt.tune_batching(
        directory,
        None if data is None else load_npz(data).x_test,
        model=model,
        clients=clients,
        rate_per_second=rate,
        slo_ms=slo_ms,
        max_batch_size=max_batch_size,
        seconds=seconds,
        write=write,
    )
    console.print(str(report), soft_wrap=True, highlight=False)


def main() -> NoReturn:
    """Runs the command line; an error of tfopt's becomes one message and exit code 1."""
    warnings.filterwarnings("ignore", message=".*__array__ implementation doesn't accept a copy keyword.*")
    # As an exception, an end from outside lets every open block remove what is half-written.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _end)
    try:
        app()
    except TfoptError as error:
        _print_error(f"[bold red]Error:[/bold red] {escape(str(error))}")
        sys.exit(1)
    sys.exit(0)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    _print_error("Interrupted: nothing half-written is left.")
    sys.exit(128 + number)  # the shell's convention


def _print_error(text: str) -> None:
    Console(stderr=True).print(text, soft_wrap=True, highlight=False)
