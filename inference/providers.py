"""Where a model runs: CUDA when it is there and works, else the CPU; never a silent in-between.

ONNX Runtime's GPU build falls back to the CPU by itself when a CUDA library is missing, and writes its reasons to
stdout and stderr. Here the provider is chosen beforehand, and the answer is one line of the log.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import logging
import platform
import re
import sys
from typing import Final, Literal

import onnxruntime as ort
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from schemas.errors import BadSetting

log = logging.getLogger(__name__)

Choice = Literal["auto", "cuda", "cpu"]
CPU: Final = "CPUExecutionProvider"
CUDA: Final = "CUDAExecutionProvider"
SHORT: Final = {CPU: "CPU", CUDA: "CUDA"}

_FATAL: Final = 4
# TF32 keeps ten bits of a product; the graphs were checked against torch to 1e-4
_CUDA_OPTIONS: Final = {"use_tf32": "0", "cudnn_conv_algo_search": "DEFAULT"}

# ONNX Runtime's errors have no root of their own but Exception
OPEN_ERRORS: Final = (
    ort_errors.Fail,
    ort_errors.InvalidArgument,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.NoModel,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
    RuntimeError,
)


_CODE: Final = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_PLACE: Final = re.compile(r"\S+\.(?:cc|cpp|cu|cuh|h|hpp):\d+ .*?\) (?=[A-Z])", re.DOTALL)
_NEWER: Final = re.compile(r"IR version|opset|No Op registered", re.IGNORECASE)


def reason(error: Exception) -> str:
    """Say what ONNX Runtime says, without its place in the C++ code.

    >>> reason(RuntimeError("[ONNXRuntimeError] : 1 : FAIL : /src/model.cc:9 a::B(const c&&) Unsupported IR: 99"))
    'Unsupported IR: 99'
    """
    return " ".join(_PLACE.sub("", _CODE.sub("", str(error))).split())


def remedy(error: Exception) -> str:
    """Say what helps where a graph whose bytes are those that were written cannot be opened."""
    if _NEWER.search(str(error)):
        return (
            "it was made for a newer ONNX Runtime: update onnxruntime (onnxruntime-gpu on Linux, x86_64), or train the "
            "bundle anew on this machine"
        )
    return "train the bundle anew with `skutrend train`"


def quiet() -> None:
    """Let ONNX Runtime's own log say nothing: what matters comes back as an exception or from `choose`."""
    ort.set_default_logger_severity(_FATAL)


def no_gpu() -> str | None:
    """Say why CUDA cannot be used on this machine; None when nothing stands against it. Creates no CUDA context."""
    if CUDA not in ort.get_available_providers():
        if (sys.platform, platform.machine()) != ("linux", "x86_64"):
            return f"there is no onnxruntime with CUDA for {platform.system()} on {platform.machine()}"
        return "this build of onnxruntime has no CUDA; install onnxruntime-gpu in its place"
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver is installed"
    status = driver.cuInit(0)
    if status:
        return f"the NVIDIA driver does not start (cuInit: {status})"
    count = ctypes.c_int(0)
    status = driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        return "the NVIDIA driver sees no device"
    return None


def open_session(graph: bytes, options: ort.SessionOptions, *, wanted: Choice) -> ort.InferenceSession:
    """Open `graph` where it is wanted; "auto" takes CUDA when it works.

    The session's first provider is the asserted one. Raises BadSetting when CUDA is asked for by name and cannot be
    had, with the reason; "auto" logs the reason and goes on with the CPU. An invalid graph raises one of OPEN_ERRORS.
    """
    quiet()
    if wanted == "cpu":
        return ort.InferenceSession(graph, options, providers=[CPU])
    reason = no_gpu()
    if reason is None:
        session, reason = _try_cuda(graph, options)
        if session is not None:
            return session
    if wanted == "cuda":
        message = f"provider is cuda, but it cannot be used: {reason}; set provider to auto or cpu, or mend that"
        raise BadSetting(message)
    log.info("inference runs on the CPU: %s", reason)
    return ort.InferenceSession(graph, options, providers=[CPU])


def _try_cuda(graph: bytes, options: ort.SessionOptions) -> tuple[ort.InferenceSession | None, str]:
    """Open `graph` on CUDA, or say why that did not work."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        ort.preload_dlls()
    hint = " ".join(said.getvalue().split()) or "ONNX Runtime could not load its CUDA provider"
    try:
        session = ort.InferenceSession(graph, options, providers=[(CUDA, _CUDA_OPTIONS), CPU])
    except OPEN_ERRORS as error:
        return None, f"{hint}: {reason(error)}"
    if session.get_providers()[0] == CUDA:
        return session, ""
    return None, f"{hint}; install skutrend[gpu]"
