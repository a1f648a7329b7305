"""What a machine does: CPU, memory, disk, network, GPUs, under MLflow's names and in its units."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

logger = logging.getLogger("runstream")
PREFIX = "system/"
_MB = 1e6


class Sampler:
    """Reads the machine's counters. One look costs a few milliseconds, GPUs a millisecond more each."""

    def __init__(self) -> None:
        self._sources: list[Callable[[], dict[str, float]]] = []
        try:
            import psutil
        except ModuleNotFoundError:
            logger.info("system metrics need psutil: pip install psutil")
            return
        self._psutil: Any = psutil
        psutil.cpu_percent()  # percentages count from the call before
        self._network = psutil.net_io_counters()
        self._sources = [self._machine, self._disk, self._traffic]
        if gpus := _gpus():
            self._sources.append(gpus)

    def sample(self) -> dict[str, float]:
        """Return values by name without the prefix; network traffic counts from the making of this object."""
        found: dict[str, float] = {}
        for source in self._sources:
            try:
                found |= source()
            except Exception as error:  # a counter that this machine does not have
                logger.debug("a system metric cannot be read: %s", error)
        return found

    def _machine(self) -> dict[str, float]:
        memory = self._psutil.virtual_memory()
        return {
            "cpu_utilization_percentage": self._psutil.cpu_percent(),
            "system_memory_usage_megabytes": memory.used / _MB,
            "system_memory_usage_percentage": memory.used / memory.total * 100,
        }

    def _disk(self) -> dict[str, float]:
        usage = self._psutil.disk_usage(os.sep)
        return {
            "disk_usage_percentage": usage.percent,
            "disk_usage_megabytes": usage.used / _MB,
            "disk_available_megabytes": usage.free / _MB,
        }

    def _traffic(self) -> dict[str, float]:
        now = self._psutil.net_io_counters()
        return {
            "network_receive_megabytes": (now.bytes_recv - self._network.bytes_recv) / _MB,
            "network_transmit_megabytes": (now.bytes_sent - self._network.bytes_sent) / _MB,
        }


def _gpus() -> Callable[[], dict[str, float]] | None:
    """Return what reads NVIDIA's GPUs; None where there are none, or no pynvml (package nvidia-ml-py)."""
    try:
        import pynvml as nvml  # type: ignore[import-not-found]  # pyright: ignore[reportMissingImports]

        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]
    except Exception:
        return None

    def read() -> dict[str, float]:
        found: dict[str, float] = {}
        for i, handle in enumerate(handles):
            memory = nvml.nvmlDeviceGetMemoryInfo(handle)
            power, limit = nvml.nvmlDeviceGetPowerUsage(handle), nvml.nvmlDeviceGetEnforcedPowerLimit(handle)
            found |= {
                f"gpu_{i}_memory_usage_percentage": memory.used / memory.total * 100,
                f"gpu_{i}_memory_usage_megabytes": memory.used / _MB,
                f"gpu_{i}_utilization_percentage": nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
                f"gpu_{i}_power_usage_watts": power / 1000,
                f"gpu_{i}_power_usage_percentage": power / limit * 100,
            }
        return found

    return read if handles else None
