"""How the persistent kernel is laid over a GPU, computed in plain Python.

A block owns a few samples for all time steps and keeps the recurrent weights in its registers and shared memory (see
`cuda/persistent.cu`).  The plan says how many samples, how many threads, how many hidden units a group of lanes shares,
and how many of a lane's weights lie in registers.  It is the cheapest, by a rough count of cycles, of those that fit;
where none fits (a large hidden size, a small device), there is no plan and another kernel must run the layer.

Limits by compute capability: NVIDIA, CUDA C++ Programming Guide, "Technical specifications per compute capability".
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from lstm_np.arrays import Namespace

WARP = 32
GATES = 4
REGISTERS_PER_THREAD = 255
ITEM_SIZES = {"float32": 4, "float64": 8}


@dataclass(frozen=True)
class Device:
    """What a plan must know of a GPU.

    capability      ten times the major, plus the minor compute capability, e.g. 90
    multiprocessors how many; one block of the persistent kernel runs on each at a time
    shared_memory   bytes that one block may have when it asks for them
    registers       32-bit registers that one block may have
    threads         threads that one block may have
    """

    capability: int
    multiprocessors: int
    shared_memory: int
    registers: int = 65536
    threads: int = 1024


# One device of each architecture, with its number of multiprocessors and shared memory per block.
DEVICES = {
    75: Device(75, 40, 64 * 1024),  # T4
    80: Device(80, 108, 163 * 1024),  # A100
    86: Device(86, 82, 99 * 1024),  # RTX 3090
    89: Device(89, 128, 99 * 1024),  # RTX 4090
    90: Device(90, 132, 227 * 1024),  # H100, H200
    100: Device(100, 148, 227 * 1024),  # B200
    120: Device(120, 170, 99 * 1024),  # RTX 5090
}


def describe_device(xp: Namespace) -> Device:
    """The current device of CuPy (the module `xp`)."""
    device = xp.cuda.Device()
    limits = device.attributes
    return Device(
        capability=int(device.compute_capability),
        multiprocessors=limits["MultiProcessorCount"],
        shared_memory=limits["MaxSharedMemoryPerBlockOptin"],
        registers=limits["MaxRegistersPerBlock"],
        threads=limits["MaxThreadsPerBlock"],
    )


@dataclass(frozen=True)
class Tiling:
    """One direction of the persistent kernel: sums = M v for a matrix of `values` rows per unit and `columns` columns.

    lanes    neighbouring threads that share the rows of `units` units
    kept     quads (four neighbouring weights of a row) of a lane that lie in registers; the others in shared memory
    samples  per block
    """

    hidden_size: int
    values: int
    columns: int
    item_size: int
    lanes: int
    units: int
    kept: int
    samples: int

    @property
    def threads(self) -> int:
        """Threads per block."""
        groups = -(-self.hidden_size // self.units)
        return -(-groups * self.lanes // WARP) * WARP

    @property
    def chunks(self) -> int:
        """Chunks of four columns that each lane has."""
        return -(-self.columns // (4 * self.lanes))

    @property
    def rows(self) -> int:
        """Rows of M that a lane group has."""
        return self.units * self.values

    @property
    def register_limit(self) -> int:
        """Registers a thread may have when a block has the multiprocessor, with its four quarters, for itself."""
        whole = -(-self.threads // (4 * WARP)) * 4 * WARP
        return min(REGISTERS_PER_THREAD, 65536 // whole // 8 * 8)

    @property
    def registers(self) -> int:
        """Estimate of the registers a thread needs: weights, sums, parts of v, prefetched values, addresses.

        Backward reads and writes more arrays; lanes without a unit take predicates and branches, and loads of weights
        from shared memory are under way together.  What the compiler makes of it is held by
        `tests/gpu/test_machine_code.py`.
        """
        words = self.item_size // 4
        items = self.units * self.samples
        mine = max(1, items // self.lanes)
        values = words * (self.kept * 4 + items * self.values + 4 * self.samples + 13 * mine)
        whole = self.threads * self.units == self.hidden_size * self.lanes
        mostly_shared = 2 * self.kept <= self.chunks * self.rows
        forward, backward = 36 if mostly_shared else 28 if whole else 32, 32 if whole else 48
        return values + 8 * mine + (forward if self.values == GATES else backward)

    @property
    def shared_bytes(self) -> int:
        """Shared memory per block: weights that are not in registers, and two buffers of v."""
        weights = (self.chunks * self.rows - self.kept) * 4 * self.threads
        vector = self.samples * self.chunks * 4 * self.lanes
        return (weights + 2 * vector) * self.item_size

    @property
    def cycles(self) -> int:
        """A rough count for one time step: multiply-adds or shared-memory traffic, whichever is more, and latency."""
        warps, words = self.threads // WARP, self.item_size // 4
        multiply_adds = warps * self.rows * self.chunks * 4 * self.samples * words // 4
        weights = warps * (self.chunks * self.rows - self.kept) * 4 * words
        vector = warps * self.chunks * self.samples * 2 * words
        shuffles = warps * self.rows * self.samples * words
        return max(multiply_adds, weights + vector + shuffles) + 250

    def grid(self, batch: int) -> int:
        """Blocks for a batch."""
        return -(-batch // self.samples)

    def fits(self, device: Device) -> bool:
        """Whether a block of this tiling can run on the device."""
        return (
            self.kept >= 1
            and self.threads <= device.threads
            and self.registers <= self.register_limit
            and self.threads * self.register_limit <= device.registers
            and self.shared_bytes <= device.shared_memory
        )

    def macros(self, prefix: str) -> dict[str, int]:
        """The macros of `cuda/persistent.cu` for this direction; prefix is FORWARD or BACKWARD."""
        values = {
            "LANES": self.lanes,
            "UNITS": self.units,
            "KEPT": self.kept,
            "THREADS": self.threads,
            "SAMPLES": self.samples,
        }
        return {f"{prefix}_{name}": value for name, value in values.items()}


@dataclass(frozen=True)
class PersistentPlan:
    """Both directions of a layer."""

    forward: Tiling
    backward: Tiling

    def macros(self) -> dict[str, int]:
        """All macros of `cuda/persistent.cu` but REAL."""
        sizes = {"LSTM_H": self.forward.hidden_size}
        return {**sizes, **self.forward.macros("FORWARD"), **self.backward.macros("BACKWARD")}


def tilings(device: Device, H: int, values: int, item_size: int, batch: int) -> list[Tiling]:
    """All tilings of one direction that fit, the cheapest for the batch first.

    values  4 for forward, 1 for backward
    """
    columns, found = H * GATES // values, []
    for samples in (1, 2, 4):
        for lanes in (4, 8, 16):
            for units in (1, 2, 4, 8):
                # cost falls with every quad moved to registers: as many as fit there are the best of this shape
                tiling = Tiling(H, values, columns, item_size, lanes, units, 0, samples)
                for _ in range(2):  # once more, since fewer registers are needed where most weights lie in them
                    more = (tiling.register_limit - tiling.registers) // item_size
                    tiling = replace(tiling, kept=min(tiling.chunks * tiling.rows, max(0, tiling.kept + more)))
                found += [tiling] if tiling.fits(device) else []
    return sorted(found, key=lambda tiling: -(-tiling.grid(batch) // device.multiprocessors) * tiling.cycles)


@lru_cache(maxsize=256)
def plan_persistent(device: Device, hidden_size: int, dtype: str, batch: int) -> PersistentPlan | None:
    """The plan for a batch of this size, or None when the weights do not fit on the chip.

    Raises ValueError when a size is below 1 or the dtype has no kernels.
    """
    if hidden_size < 1 or batch < 1:
        raise ValueError(f"sizes must be at least 1, found hidden size {hidden_size}, batch {batch}")
    if dtype not in ITEM_SIZES:
        raise ValueError(f"the GPU kernels compute in {' or '.join(ITEM_SIZES)}, found {dtype}")
    size, H = ITEM_SIZES[dtype], hidden_size
    forward = tilings(device, H, GATES, size, batch)
    backward = tilings(device, H, 1, size, batch)
    return PersistentPlan(forward[0], backward[0]) if forward and backward else None


def refuse_oversize(T: int, B: int, H: int) -> None:
    """Raises ValueError where the kernels' 32-bit integers cannot count one step's gates or all steps' samples."""
    if B * GATES * H >= 2**31 or T * B >= 2**31:
        raise ValueError(
            f"a batch on a GPU has fewer than {2**31 // (GATES * H):,} samples with {H} hidden units, and "
            f"fewer than {2**31:,} samples times steps; found {B:,} samples of {T:,} steps: make it smaller"
        )


def product_grid(rows: int, columns: int) -> tuple[int, int]:
    """The blocks of a product (rows, columns) in `cuda/products.cu`; the rows come first, of which there may be many:
    CUDA allows 2^31 - 1 blocks in the first direction and 65535 in the second."""
    return -(-rows // 64), -(-columns // 32)


def parts_of_sum(device: Device, rows: int, output_rows: int, output_columns: int) -> tuple[int, int]:
    """(parts, rows per part): into how many sums the weight gradient's sum over `rows` is cut, to fill the device.

    The gradient is (output_rows, output_columns), in tiles of 128 x 64, one per block; see `cuda/products.cu`.
    """
    tiles = -(-output_rows // 128) * -(-output_columns // 64)
    wanted = max(1, min(device.multiprocessors // tiles, -(-rows // 64)))
    per_part = -(-rows // wanted)
    return -(-rows // per_part), per_part
