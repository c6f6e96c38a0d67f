"""The GPUs that a job sees on its node: NVIDIA's by NVML, AMD's by what the kernel shows of them.

Each has ``uuid``, ``name``, ``memory`` in bytes, and ``look()``: how busy it is from 0 to 1, bytes of memory in use,
watts, degrees Celsius, and joules by its own meter; None for what it doesn't tell. Runs on Python 3.6.
"""

import ctypes
import glob
import os

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself is never loaded
    from typing import Any, Mapping, Sequence


class Nvidia:
    """A GPU of NVIDIA's, or an instance of one (MIG), of which less is known."""

    def __init__(self, nvml: "ctypes.CDLL", handle: "ctypes.c_void_p") -> None:
        self._nvml, self._handle = nvml, handle
        self.uuid, self.name = self._text("UUID"), self._text("Name")
        memory = self._numbers("MemoryInfo", ctypes.c_ulonglong, 3)
        self.memory = memory[0] if memory else None

    def look(self) -> "list[float | None]":
        """Return the five numbers."""
        memory = self._numbers("MemoryInfo", ctypes.c_ulonglong, 3)
        busy = self._numbers("UtilizationRates", ctypes.c_uint, 2)
        milliwatts = self._numbers("PowerUsage", ctypes.c_uint, 1)
        celsius = self._numbers("Temperature", ctypes.c_uint, 1, ctypes.c_uint(0))
        millijoules = self._numbers("TotalEnergyConsumption", ctypes.c_ulonglong, 1)
        return [
            busy[0] / 100 if busy else None,
            memory[2] if memory else None,
            milliwatts[0] / 1000 if milliwatts else None,
            celsius[0] if celsius else None,
            millijoules[0] / 1000 if millijoules else None,
        ]

    def _numbers(self, what: str, kind: "Any", count: int, *options: object) -> "list[int]":
        """Return what the driver says of it; nothing where it has no such function, or doesn't know."""
        function = getattr(self._nvml, "nvmlDeviceGet" + what, None)
        found = (kind * count)()
        return list(found) if function and not function(self._handle, *options, found) else []

    def _text(self, what: str) -> str:
        function = getattr(self._nvml, "nvmlDeviceGet" + what, None)
        found = ctypes.create_string_buffer(96)
        if not function or function(self._handle, found, ctypes.c_uint(96)):
            return ""
        return found.value.decode("ascii", "replace")


def nvidia(visible: "str | None", library: str = "libnvidia-ml.so.1") -> "list[Nvidia]":
    """Return the GPUs that CUDA_VISIBLE_DEVICES names: numbers, or UUIDs; like CUDA, up to the first that is none."""
    try:
        nvml = ctypes.CDLL(library)
        if nvml.nvmlInit_v2():
            return []
        count = ctypes.c_uint(0)
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        words = visible.split(",") if visible is not None else map(str, range(count.value))
        found = []
        for word in map(str.strip, words):
            handle = ctypes.c_void_p()
            if word.isdigit():
                failed = nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(int(word)), ctypes.byref(handle))
            else:
                failed = nvml.nvmlDeviceGetHandleByUUID(word.encode(), ctypes.byref(handle))
            if failed:
                break
            found.append(Nvidia(nvml, handle))
    except (OSError, AttributeError):  # no driver, or one that is too old for these functions
        return []
    return found


class Amd:
    """A GPU of AMD's; ``card`` is its folder below ``/sys``."""

    def __init__(self, card: str) -> None:
        self._card = card
        self.uuid = "GPU-" + self._read("unique_id").replace("0x", "")
        self.name = self._read("product_name") or "AMD GPU"
        total = self._number("mem_info_vram_total")
        self.memory = None if total is None else int(total)

    def look(self) -> "list[float | None]":
        """Return the five numbers."""
        power = self._number("hwmon/hwmon*/power1_average", 1e-6)
        if power is None:
            power = self._number("hwmon/hwmon*/power1_input", 1e-6)
        used = self._number("mem_info_vram_used")
        return [
            self._number("gpu_busy_percent", 0.01),
            None if used is None else int(used),
            power,
            self._number("hwmon/hwmon*/temp1_input", 0.001),
            self._number("hwmon/hwmon*/energy1_input", 1e-6),
        ]

    def _read(self, name: str) -> str:
        for path in glob.glob(os.path.join(glob.escape(self._card), name)):
            try:
                with open(path) as file:
                    return file.read().strip()
            except OSError:
                continue
        return ""

    def _number(self, name: str, unit: float = 1) -> "float | None":
        text = self._read(name)
        return int(text) * unit if text.isdigit() else None


def amd(visible: "str | None", root: str = "/") -> "list[Amd]":
    """Return the GPUs that ROCR_VISIBLE_DEVICES names, of those whose device may be opened: others see theirs."""
    cards = []
    for busy in glob.glob(root + "sys/class/drm/card*/device/gpu_busy_percent"):
        card = os.path.realpath(os.path.dirname(busy))
        nodes = [root + "dev/dri/" + os.path.basename(node) for node in glob.glob(card + "/drm/renderD*")]
        if any(_opens(node) for node in nodes):
            cards.append(card)
    found = [Amd(card) for card in sorted(cards)]
    if visible is None:
        return found
    by_name = {**{str(at): gpu for at, gpu in enumerate(found)}, **{gpu.uuid: gpu for gpu in found}}
    return [by_name[word] for word in map(str.strip, visible.split(",")) if word in by_name]


def _opens(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDWR))
    except OSError:
        return False
    return True


def find(env: "Mapping[str, str]") -> "Sequence[Nvidia | Amd]":
    """Return the GPUs that a job with these variables sees."""
    return nvidia(env.get("CUDA_VISIBLE_DEVICES")) or amd(env.get("ROCR_VISIBLE_DEVICES"))
