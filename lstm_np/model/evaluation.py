"""Models measured: metrics and predictions over data of any size, batch by batch, and streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any

import numpy as np

from lstm_np import options
from lstm_np.arrays import Array
from lstm_np.backends import as_array
from lstm_np.data import Batches
from lstm_np.device.inference import DeviceInference
from lstm_np.device.memory import fits
from lstm_np.device.steps import rows_on_device
from lstm_np.holds import Hold
from lstm_np.layers.stream import OutputStream
from lstm_np.metrics import AnyMetrics, mean_of
from lstm_np.model.inputs import DataSet, parts_of, without_missing
from lstm_np.model.storage import StoredNetwork
from lstm_np.options import check_count
from lstm_np.other_names import with_hints_of_method
from lstm_np.packing import Real

LENGTHS_KEPT = 4  # of sequences, for which buffers on a device are kept

# options that `lstm_np.device` knows, or that change nothing in its steps; any other must be at its default
DEVICE_OPTIONS = {"input_size", "hidden_size", "num_classes", "dtype", "seed", "dropout", "dropout_outputs",
                  "dropout_mask", "initializer", "forget_bias", "input_projection_initializer", "input_projection_bias",
                  "readout_initializer", "readout_bias", "read_out"}  # fmt: skip
READ_ON_DEVICE = ("final_state", "last_output")  # of `read_out`, which are the same in one direction

# one batch: x (B, T, D), which steps are real, what is held, and which sequences begin anew
Given = tuple[Array, Real | None, Sequence[Hold], Array | None]


class EvaluatedNetwork(StoredNetwork):
    """A model that evaluates, predicts and streams."""

    def logits(self, x: Array, *, lengths: Any = None, mask: Any = None, hold: Any = None) -> Array:
        """(B, K), an array of the backend, from x (B, T, D): the outputs as the loss takes them.

        Of a classifier they are the log-probabilities, up to a constant of each sample.  A model that reads each step
        gives (B, T, K), NaN at steps that a sequence does not have.

        >>> lstm_np.SequenceClassifier(3, 8, 2).logits(np.ones((4, 5, 3))).shape
        (4, 2)

        `lengths`, `mask` and `hold` as for `loss_and_gradients`.  Raises ValueError for a bad x, lengths or hold.
        """
        xp = self.backend.xp
        x, packing = self._enter(x, lengths, mask)
        outputs = self.run_on(x, None, packing=packing, save=False, holds=self.read_holds(hold))[0]
        if self.head.per_step and packing is not None:
            outputs = xp.where(self.backend.from_host(packing.real[None]), outputs, np.nan)
        return outputs.T if outputs.ndim == 2 else outputs.transpose(2, 1, 0)

    def _predicted(
        self,
        x: Any,
        lengths: Any,
        mask: Any,
        batch_size: Any,
        resets: Any,
        made: Callable[[Any, Array], Array],
        decide: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Any:
        """What `made(xp, outputs)` and then `decide` give, (N, K), or (N, T, K) or a list of arrays (T_i, K)."""
        batch_size, of_list = check_count("batch_size", batch_size, 1), isinstance(x, (list, tuple))
        x, real = self._read(x, lengths, mask)
        ranges, resets = self._batches_of(len(x), batch_size), self._enter_resets(resets, len(x))
        on_device = self._on_device(x) if real is None else None
        if on_device is not None:
            x = self._check_data(x, None).x
            found = on_device.measure(on_device.data(rows_on_device(x, self.dtype))).predict_proba()
            return found if decide is None else decide(found)
        xp, to_host = self.backend.xp, self.backend.to_host
        batches = (
            (x[a:b], None if real is None else real[a:b], (), None if resets is None else resets[a:b])
            for a, b in ranges
        )
        parts = [to_host(made(xp, outputs)) for outputs in self._outputs_of(batches)]
        found = np.concatenate([part.transpose(*reversed(range(part.ndim))) for part in parts])
        T = x.shape[1]
        found = without_missing(found, real, T) if self.head.per_step else found
        found = found if decide is None else decide(found)
        return parts_of(found, real, T) if self.head.per_step and of_list else found

    def _batches_of(self, N: int, batch_size: int) -> list[tuple[int, int]]:
        """First and last + 1 sequence of each batch.  Raises ValueError where a stateful model cannot take them."""
        if self.stateful and batch_size < N and N % batch_size:
            raise ValueError(
                f"a stateful model goes on sequence by sequence, so batches must be of one size: {N} sequences are no "
                f"multiple of batch_size {batch_size}"
            )
        return [(start, min(start + batch_size, N)) for start in range(0, N, batch_size)]

    def _outputs_of(self, batches: Iterable[Given]) -> Iterator[Array]:
        """The outputs (K, B) or (K, T, B) of each batch.  A stateful model goes on from batch to batch."""
        state: Sequence[tuple[Array, ...]] | None = None
        for x, real, holds, resets in batches:
            entered, packing = self._enter_real(x, real)
            self._check_carried(state, len(x))
            resets = self.recurrent.enter_resets(resets, len(x))
            outputs, _, _, final = self.run_on(entered, state, packing=packing, save=False, holds=holds, resets=resets)
            state = final if self.stateful else None
            yield outputs

    def _enter_resets(self, resets: Any, N: int) -> np.ndarray | None:
        """Booleans (N,), checked.  Raises ValueError for anything else, and for a model that is not stateful."""
        if resets is None:
            return None
        if not self.stateful:
            raise ValueError("resets are those of a model with stateful=True; every sequence of others begins anew")
        found = self.backend.to_host(as_array(resets, "resets"))
        if found.shape != (N,) or found.dtype.kind != "b":
            raise ValueError(f"resets must be booleans ({N},), found {found.dtype} {found.shape}")
        return found

    def _check_carried(self, state: Sequence[tuple[Array, ...]] | None, B: int) -> None:
        """Raises ValueError where the state of a batch before is not of as many sequences."""
        if state is not None and state[0][0].shape[1] != B:
            raise ValueError(
                f"a stateful model goes on sequence by sequence: this batch has {B} of them, the one before "
                f"{state[0][0].shape[1]}; batches must be of one size"
            )

    @with_hints_of_method
    def evaluate(
        self,
        x: Array,
        y: Array,
        *,
        lengths: Any = None,
        mask: Any = None,
        sample_weight: Any = None,
        batch_size: int = 512,
        hold: Any = None,
        resets: Array | None = None,
    ) -> Any:
        """The metrics over x (N, T, D) or a list of arrays (T_i, D), and targets y as `fit` takes them.

        `lstm_np.Metrics` of a classifier, `lstm_np.RegressionMetrics` of a regressor.

        lengths, mask  (N,) or (N, T): the steps that the sequences have, as for `LSTM.forward`
        sample_weight  (N,): what each sequence counts in all of the means; of a model that reads each step (N, T) too
        hold    values of the cell to be held, {"f": 1.0} or a list of `lstm_np.Hold`; their samples are counted over
                all of x
        resets  of a stateful model, as for `fit`

        >>> metrics = lstm_np.SequenceClassifier(3, 8, 2).evaluate(np.ones((4, 5, 3)), [0, 1, 1, 0])
        >>> metrics.count, metrics.accuracy
        (4, 0.5)

        Raises ValueError for x, y, lengths, weights, resets or a hold that do not fit, a batch_size below 1, and for a
        stateful model one that does not divide N.
        """
        batch_size, (x, real) = check_count("batch_size", batch_size, 1), self._read(x, lengths, mask)
        self._batches_of(len(x), batch_size)
        resets, holds = self._enter_resets(resets, len(x)), self.read_holds(hold)
        N, T, _ = x.shape
        targets, weights = self.head.read(y, N, T, real), self.head.read_weights(sample_weight, N, T)
        return self._evaluate_read(DataSet(x, targets, real, weights), batch_size, holds, resets)

    def _evaluate_read(
        self, data: DataSet, batch_size: int = 512, holds: Sequence[Hold] = (), resets: Array | None = None
    ) -> Any:
        """`evaluate`, of what has been read and checked."""
        x, targets, real, weights = data
        ranges, sizes = self._batches_of(len(x), batch_size), self.recurrent.hidden_sizes
        plain = real is None and weights is None and targets.dtype.kind == "i"
        on_device = None if holds or not plain else self._on_device(x)
        if on_device is not None:
            x = self._check_data(x, None).x
            return mean_of(*on_device.measure(on_device.data(rows_on_device(x, self.dtype), targets)).sums())
        return self._measure(
            (
                (
                    x[a:b],
                    targets[a:b],
                    None if real is None else real[a:b],
                    None if weights is None else weights[a:b],
                ),
                # each batch its own samples' holds
                [hold.part(a, b, (*x.shape[:2], sizes[-1 if hold.layer is None else hold.layer])) for hold in holds],
                None if resets is None else resets[a:b],
            )
            for a, b in ranges
        )

    def evaluate_data(self, data: Batches, *, stop: Callable[[], bool] | None = None) -> Any:
        """The metrics over all sequences of `data`, each once.

        stop  asked before each batch; True ends it with what has been measured

        On a GPU that can classify there by itself (as in `training_steps`) they stay there from call to call, for as
        long as `data` is kept; otherwise as `evaluate_batches`.

        >>> data = lstm_np.data.Batches(np.ones((4, 5, 3)), np.array([0, 1, 1, 0]), batch_size=2)
        >>> lstm_np.SequenceClassifier(3, 8, 2).evaluate_data(data).count
        4

        Raises ValueError where the data do not fit the model.
        """
        on_device = self._on_device(data.sequences) if data.plain else None
        if on_device is None:
            batches = data.epoch(0)
            return self.evaluate_batches(batches if stop is None else takewhile(lambda _: not stop(), batches))
        if data not in self._kept_on_device:
            rows = rows_on_device(data.sequences, self.dtype)
            self._kept_on_device[data] = on_device.data(rows, data.labels, float(data.scale))
        return mean_of(*on_device.measure(self._kept_on_device[data]).sums())

    def evaluate_batches(self, batches: Iterable[tuple[Array, ...]]) -> Any:
        """The metrics over batches of x (B, T, D) and targets of B sequences, as `fit` takes them; nan for none.

        A batch may have a third part: lengths (B,), or a mask (B, T), or None; and a fourth, sample weights (B,), or
        (B, T) of a model that reads each step.  Floating-point targets of classes are probabilities (soft labels) in
        all batches, also in one in which all are one-hot; pass classes as integers.

        >>> batches = [(np.ones((4, 5, 3)), [0, 1, 1, 0]), (np.ones((2, 7, 3)), [1, 0])]
        >>> lstm_np.SequenceClassifier(3, 8, 2).evaluate_batches(batches).count
        6

        Raises ValueError for x, targets, lengths or weights of a batch that do not fit.
        """
        return self._measure((batch, (), None) for batch in batches)

    def _measure(self, batches: Iterable[tuple[tuple[Array, ...], Sequence[Hold], Array | None]]) -> AnyMetrics:
        """`evaluate_batches`, each batch with what is held in it and which of its sequences begin anew."""
        sums, entered = self.head.sums(), []

        def inputs() -> Iterator[Given]:
            for batch, holds, resets in batches:
                x, y, real, weights = self._parts(batch)
                x = as_array(x, "x")
                self._check_shape(x)
                entered.append(self._enter_targets(y, x.shape[0], x.shape[1], real, weights))
                yield x, real, holds, resets

        with np.errstate(over="ignore", invalid="ignore"):  # a model that has diverged shows it in its loss
            for outputs in self._outputs_of(inputs()):
                loss, _, correct, of = self.head.loss(self.backend.xp, outputs, entered.pop())
                sums.add(loss, correct, outputs.shape[-1], of)
        found: AnyMetrics = sums.read()
        return found

    def _stream_settings(self) -> dict[str, Any]:
        """What a stream through this model is made with.  Raises ValueError where it reads over all steps."""
        if self.read_out in ("mean", "max"):
            raise ValueError(
                f"a stream gives outputs after each step, and this model reads the {self.read_out} over all steps "
                "(read_out); collect the steps and pass the whole sequence"
            )
        projection = None if self.config["input_projection"] is None else self.params.section("input_projection")
        return {"readout": self.params.section("readout"), "projection": projection}

    def stream(self, batch_size: int | None = None, state: Any = None) -> OutputStream:
        """What takes sequences whose time steps arrive one by one: the outputs after each step.

        batch_size  how many sequences advance together; None: one, whose arrays have no batch axis
        state       where they begin, as `OutputStream.save` gives it; None: the initial state

        >>> model = lstm_np.SequenceRegressor(3, 8)
        >>> stream = model.stream()
        >>> for x_t in np.ones((5, 3)):
        ...     y = stream.step(x_t)
        >>> np.allclose(y, model.predict(np.ones((1, 5, 3)))[0], atol=1e-6)
        True

        Raises ValueError for a bidirectional model, one that reads a mean or maximum over the steps, or a state whose
        shape does not fit; OptionError for a batch_size below 1.
        """
        return OutputStream(self.recurrent, batch_size, state, **self._stream_settings())

    # ---- on a device

    def _device_can(self, sequences: Array) -> bool:
        """Whether the layer runs in `lstm_np.device`, and sequences (N, T, D) of the host have room there."""
        return (
            self.backend.device_steps
            and self.head.on_device
            and self.read_out in READ_ON_DEVICE
            # one layer, of the cell that is read
            and [single.kernel.computes is not None for single in self.recurrent.singles] == [True]
            and options.changed(self.config).keys() <= DEVICE_OPTIONS
            and isinstance(sequences, np.ndarray)
            and sequences.dtype.kind in "buif"
            and fits(
                self.backend.xp, sequences.size * (1 if sequences.dtype == np.uint8 else self.params.flat.itemsize)
            )
        )

    def _on_device(self, x: Array) -> DeviceInference | None:
        """What classifies x (N, T, D) on the device by itself; None where that cannot be."""
        if not self._device_can(x) or x.ndim != 3 or 0 in x.shape or x.shape[2] != self.input_size:
            return None
        T, H = x.shape[1], self.recurrent.hidden_size
        found = self._inference.get(T)
        if found is None:
            if len(self._inference) >= LENGTHS_KEPT:
                self._inference.pop(next(iter(self._inference)))
            found = DeviceInference(self.backend, self.params.flat, (T, self.input_size, H, self.head.size))
            self._inference[T] = found
        return found
