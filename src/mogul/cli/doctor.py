"""`mogul doctor`: what is installed, what this machine offers, and what is missing."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import time
import webbrowser
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

import mogul
from mogul.cli import options
from mogul.cli.console import err, escaped, out, show

if TYPE_CHECKING:
    import torch

# What is imported, by the name that pip knows it by.
_NEEDED = {
    "torch": "torch", "numpy": "numpy", "scipy": "scipy", "scikit-learn": "sklearn",
    "safetensors": "safetensors", "joblib": "joblib", "pillow": "PIL", "matplotlib": "matplotlib",
    "jinja2": "jinja2",
}  # fmt: skip
# What is for some uses only: the module, what it is for, and the extra it comes with.
_OPTIONAL = {
    "pyarrow": ("pyarrow", "Parquet and Arrow files", "arrow"),
    "huggingface-hub": ("huggingface_hub", "the Hugging Face Hub", "hub"),
    "tensorboard": ("tensorboard", "TensorBoard", "tensorboard"),
    "fastapi": ("fastapi", "the explorer in the browser", "app"),
    "uvicorn": ("uvicorn", "the explorer in the browser", "app"),
}
_REPAIR = "install mogul anew: pip install --force-reinstall mogul"
_GIGA = 1e9
_SIDE = 1024  # of the matrices whose product is timed
_TIMED = 0.4  # seconds, for each type
_LITTLE = 1.0  # GB of free memory, below which fits of images end early


def doctor(json_: options.Json = False) -> None:
    """Tell versions, threads, device, speed and data, what is missing, and how to get it.

    Raises:
        Exit: with code 1, if something that is needed is missing or broken.
    """
    broken = {name: told for name, module in _NEEDED.items() if (told := _trouble(module))}
    found: dict[str, Any] = {"versions": _versions(broken), "missing": _missing()}
    warnings = [f"{name} does not work ({told}); {_REPAIR}" for name, told in broken.items()]
    if not broken:
        for name, look in _LOOKS.items():
            found[name], told = look()
            warnings += told
    found |= {"warnings": warnings, "ok": not broken}
    if json_:
        print(json.dumps(found))
    else:
        _print(found)
    if broken:
        raise typer.Exit(1)


def _trouble(module: str) -> str | None:
    """Return why a module cannot be imported, or None."""
    try:
        import_module(module)
    except Exception as error:  # what a broken installation raises is anyone's guess
        return f"{type(error).__name__}: {error}"
    return None


def _versions(broken: dict[str, str]) -> dict[str, str]:
    versions = {"mogul": mogul.__version__, "Python": platform.python_version()}
    versions |= {n: "broken" if n in broken else _version(n) for n in _NEEDED}
    there = [name for name, (module, *_) in _OPTIONAL.items() if find_spec(module)]
    return versions | {name: _version(name) for name in there}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:  # installed by other means than pip
        return "unknown"


def _missing() -> dict[str, str]:
    """Return how to get what is for some uses only and not installed, and what for."""
    return {
        name: f"pip install 'mogul[{extra}]' for {use}"
        for name, (module, use, extra) in _OPTIONAL.items()
        if not find_spec(module)
    }


Look = tuple[dict[str, Any], list[str]]  # what was found, and warnings


def _threads() -> Look:
    import torch

    from mogul.compute.threads import usable_cores

    asked, cores = os.environ.get("OMP_NUM_THREADS"), usable_cores()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    found = {
        "threads": torch.get_num_threads(), "cores_of_this_process": cores,
        "cores_of_the_machine": os.cpu_count(), "OMP_NUM_THREADS": asked, "load": load,
    }  # fmt: skip
    told = []
    if asked is not None and not (asked.isdecimal() and 1 <= int(asked) <= cores):
        told.append(
            f"OMP_NUM_THREADS is {asked}, and this process may use {cores} core(s); mogul uses no "
            "more than these: set it to a number from 1 to that, or unset it."
        )
    if load is not None and load > 1.5 * (os.cpu_count() or 1):
        told.append(
            f"The machine is busy (load {load:.1f} on {os.cpu_count()} cores), so that fits take "
            "longer than they need; wait for other jobs, or take fewer threads."
        )
    return found, told


def _device() -> Look:
    import torch

    from mogul.compute.backend import resolve_device

    device = resolve_device("auto")
    found: dict[str, Any] = {"device": str(device), "name": _processor()}
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        found["name"] = torch.cuda.get_device_name(device)
        found |= {"memory_gb": total / _GIGA, "free_memory_gb": free / _GIGA}
    found["mps"] = torch.backends.mps.is_available()
    if device.type == "cpu" and shutil.which("nvidia-smi"):
        return found, [
            "There seems to be a GPU (nvidia-smi is here), but this build of torch cannot use it; "
            "install one with CUDA: see pytorch.org."
        ]
    return found, []


def _blas() -> Look:
    import torch

    from mogul.compute.backend import resolve_device

    library = re.search(r"BLAS_INFO=(\w+)", torch.__config__.show())
    found: dict[str, Any] = {"library": library[1] if library else None}
    for device in dict.fromkeys((torch.device("cpu"), resolve_device("auto"))):
        suffix = "" if device.type == "cpu" else f"_{device.type}"
        for dtype in (torch.float32, torch.float64):
            name = f"{str(dtype).removeprefix('torch.')}_gflops{suffix}"
            found[name] = _product_speed(device, dtype)
    return found, []


def _product_speed(device: torch.device, dtype: torch.dtype) -> float:
    """Return the speed of products of matrices in GFLOP/s, the best of some."""
    import torch

    from mogul.compute.backend import make_generator

    a = torch.randn(_SIDE, _SIDE, dtype=dtype, device=device, generator=make_generator(0, device))
    out_, best, until = torch.empty_like(a), float("inf"), time.perf_counter() + _TIMED
    while best == float("inf") or time.perf_counter() < until:
        since = time.perf_counter()
        torch.mm(a, a, out=out_)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - since)
    return 2 * _SIDE**3 / best / _GIGA


def _data() -> Look:
    from mogul.data.known import whereabouts

    folder = os.environ.get("MOGUL_DATA")
    found = {"MOGUL_DATA": folder, **whereabouts()}
    if folder and not Path(folder).is_dir():
        return found, [
            f"MOGUL_DATA names {folder}, which is not a folder; set it to the folder that holds "
            "mnist/, fashion_mnist/ or celeba_10k/, or unset it."
        ]
    return found, []


def _system() -> Look:
    free = _free_memory()
    found = {"system": platform.platform(), "free_memory_gb": free, "browser": _browser()}
    if free is not None and free < _LITTLE:
        return found, [
            f"{free:.2f} GB of memory are free; end other programs, or fit with --limit and fewer "
            "components."
        ]
    return found, []


def _free_memory() -> float | None:
    """Return GB that new work may take, within the limit of the process's group; None unknown."""
    told = re.search(r"MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"))
    if told is None:
        return None
    free = 1024 * int(told[1])
    most, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    if most.isdecimal() and used.isdecimal():
        free = min(free, int(most) - int(used))
    return free / _GIGA


def _processor() -> str | None:
    told = re.search(r"model name\s*: (.+)", _read("/proc/cpuinfo"))
    return told[1] if told else platform.processor() or None


def _read(path: str) -> str:
    """Return what a file of the system says; nothing where there is none."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def _browser() -> str | None:
    try:
        return getattr(webbrowser.get(), "name", "default")
    except webbrowser.Error:
        return None


_LOOKS = {
    "threads": _threads, "device": _device, "blas": _blas, "data": _data, "system": _system,
}  # fmt: skip


def _print(found: dict[str, Any]) -> None:
    for name in ("versions", "missing", *_LOOKS):
        if found.get(name):
            told = {
                k.replace("_gflops", " GFLOP/s").replace("_gb", " GB"): value
                for k, value in found[name].items()
            }
            show("BLAS" if name == "blas" else name.capitalize(), told, as_json=False)
    for warning in found["warnings"]:
        err.print(f"[yellow]Warning:[/yellow] {escaped(warning)}", soft_wrap=True)
    if found["ok"]:
        out.print("All that mogul needs works.")
