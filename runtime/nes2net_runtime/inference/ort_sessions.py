"""One ONNX Runtime session: its options, and the proof that the provider asked for really runs it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from nes2net_runtime.errors import ProviderError
from nes2net_runtime.inference.plugins import PLUGINS, plugin_device
from nes2net_runtime.inference.providers import (
    EXECUTION_PROVIDERS,
    import_onnxruntime,
    installed,
    is_built_in,
    load_cuda,
    missing_library,
    our_name,
)

# float32 means float32 (TF32 rounds it to 10 bits). Algorithms are not tried out for each new length, and
# memory grows by what is asked for: the lengths of files and streams vary.
CUDA_OPTIONS = {
    "device_id": "0",
    "use_tf32": "0",
    "cudnn_conv_algo_search": "HEURISTIC",
    "cudnn_conv1d_pad_to_nc1d": "1",
    "arena_extend_strategy": "kSameAsRequested",
}

SPIN = 50  # microseconds that a thread waits awake
SPIN_TIMED = (1, 26)  # the first ONNX Runtime that can be told how long


def openvino_settings(precision: str, threads: int) -> dict[str, str]:
    """OpenVINO's settings of the processor, by its own names; the same with ONNX Runtime and without."""
    return {
        "PERFORMANCE_HINT": "LATENCY",  # all threads for one window
        "INFERENCE_NUM_THREADS": str(threads),
        # float32 means float32: it would take bfloat16 of its own accord where the processor has it.
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
        # It compiles kernels for each new length of audio and would keep those of 5,000: 4 MB each with the
        # demo detector.
        "CPU_RUNTIME_CACHE_CAPACITY": "32",
    }


def openvino_options(precision: str, threads: int) -> dict[str, str]:
    """The same as options of ONNX Runtime's provider, which passes them on."""
    return {"load_config": json.dumps({"CPU": openvino_settings(precision, threads)})}


def cpu_session(model: Path, threads: int) -> Any:
    """A session on the CPU for a graph that needs no proof, and no receipt."""
    runtime = import_onnxruntime()
    return runtime.InferenceSession(
        model, session_options(runtime, threads), providers=[EXECUTION_PROVIDERS["cpu"]]
    )


def session_options(runtime: ModuleType, threads: int) -> Any:
    """Options that all sessions share."""
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # a fall-back is found and said in our own words
    # A thread that sleeps between two operators is late for the next; one that spins for long, as they do by
    # default, takes its core from the next stage and from everybody.
    spins = _release(runtime) >= SPIN_TIMED
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spins else "0")
    if spins:
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN))
    # Streams bring inputs of ever new lengths, and a plan for each is kept. The arena stays: it grows to the
    # longest, and without it each layer's buffer is mapped and faulted in anew, half of a stream's CPU time.
    options.enable_mem_pattern = False
    return options


def _release(runtime: ModuleType) -> tuple[int, int]:
    """Of "1.32.0", 1 and 32."""
    major, minor = re.findall(r"\d+", runtime.__version__)[:2]
    return int(major), int(minor)


def open_session(
    runtime: ModuleType,
    model: Path,
    provider: str,
    threads: int,
    options: Mapping[str, str] | None = None,
    config: Mapping[str, str] | None = None,
) -> Any:
    """A session of `model` that really runs on `provider` (our name), with options of the provider's own.

    `config`: entries of the session itself. Raises ProviderError, also where ONNX Runtime took another
    provider in silence or left it without a node.
    """
    settings = session_options(runtime, threads)
    for key, value in {"session.record_ep_graph_assignment_info": "1", **(config or {})}.items():
        settings.add_session_config_entry(key, value)
    name = EXECUTION_PROVIDERS[provider]
    providers: list[Any] = [(name, dict(options)) if options else name]
    if provider in PLUGINS and not is_built_in(runtime, provider):
        settings.add_provider_for_devices([plugin_device(runtime, provider)], dict(options or {}))
        providers = []
    elif provider in ("cuda", "tensorrt"):
        load_cuda(runtime)
        if provider == "tensorrt":  # what TensorRT can't take stays on the card
            providers.append((EXECUTION_PROVIDERS["cuda"], CUDA_OPTIONS))
    try:
        session = runtime.InferenceSession(model, settings, providers=providers)
    except Exception as error:  # ONNX Runtime raises a dozen unrelated types
        raise ProviderError(f"provider {provider} can't load {model.name} ({first_line(error)})") from error
    taken = session.get_providers()[0]
    if taken != name:
        missing = missing_library(runtime, provider)
        raise ProviderError(
            f"provider {provider} does not work here: ONNX Runtime replaced it by {our_name(taken)}"
            f"{f' ({missing})' if missing else ''}; check its driver and libraries, or ask for --provider cpu"
        )
    nodes = nodes_by_provider(session)
    if nodes and provider not in nodes:
        raise ProviderError(
            f"provider {provider} runs no node of {model.name}: ONNX Runtime gave them to "
            f"{', '.join(nodes)}; ask for --provider {next(iter(nodes))}"
        )
    return session


def nodes_by_provider(session: Any) -> dict[str, int]:
    """Our name of each provider -> nodes of the optimised graph it runs; ONNX Runtime before 1.24: none."""
    nodes: dict[str, int] = {}
    tell = getattr(session, "get_provider_graph_assignment_info", list)
    for subgraph in tell():
        name = our_name(subgraph.ep_name)
        nodes[name] = nodes.get(name, 0) + len(subgraph.get_nodes())
    return nodes


def library_of(session: Any) -> str:
    """What runs a session, with versions: "onnxruntime 1.32.0 and onnxruntime-ep-openvino 1.8.1"."""
    runtime, provider = import_onnxruntime(), our_name(session.get_providers()[0])
    plugins = [] if is_built_in(runtime, provider) else [PLUGINS[provider].replace("_", "-")]
    return " and ".join([f"onnxruntime {runtime.__version__}", *installed(plugins)])


def device_of(session: Any) -> str:
    """The device of a session's input, in words: "cpu AuthenticAMD"."""
    devices: list[Any] = getattr(session, "get_input_epdevices", list)()
    if devices and devices[0] is not None:
        device = devices[0].device
        return f"{str(device.type).rsplit('.', 1)[-1].lower()} {device.vendor}".strip()
    return "cpu" if our_name(session.get_providers()[0]) in ("cpu", "openvino") else "accelerator"


def first_line(error: BaseException) -> str:
    """The first line of an error of a library, which may have many."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
