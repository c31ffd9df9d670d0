"""The device and threads of a process, and kernels that give the same numbers twice."""

import torch

from metasynth.errors import UsageError


def configure_torch(device: str, threads: int | None) -> tuple[str, int]:
    """Set threads, denormals and deterministic kernels for the process; return the device and threads in use.

    Raises:
        UsageError: there is no such device, or ``threads`` is below 1.

    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UsageError(f"--device {device}: torch sees no CUDA device here; choose cpu or auto")
    if threads is not None and threads < 1:
        raise UsageError(f"--threads: expected at least 1, got {threads}")
    if threads is not None:
        torch.set_num_threads(threads)
    torch.set_flush_denormal(True)  # the tails of Gaussian kernels hold denormals, which slow CPUs tenfold
    if device.startswith("cuda"):
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
    return device, torch.get_num_threads()
