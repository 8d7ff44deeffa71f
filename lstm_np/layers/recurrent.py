"""Recurrent layers: a stack of sequence kernels, one per layer and direction.

In the public API arrays are batch-first, (B, T, D) in and (B, T, H) out; inside, a column is a sample, (D, T, B).
They are turned once, where they enter (as a view: the kernel's own copy does the turning).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Self

from lstm_np import initializers, options, other_names
from lstm_np.arrays import Array
from lstm_np.backends import Backend, as_numbers, get_backend
from lstm_np.cells import get_cell
from lstm_np.display.tables import html_table
from lstm_np.holds import Hold, check_held_names, edits_of, read_holds
from lstm_np.kernels import Cut, KernelStack, LayerSpec, make_stack
from lstm_np.kernels.reference import StepBack
from lstm_np.layers import dropout as dropout_masks
from lstm_np.layers.single import Single
from lstm_np.layers.stream import Stream, refuse_reverse
from lstm_np.layers.truncation import check_truncation, refuse_lengths, segments_of, windows_of
from lstm_np.options import Dtype
from lstm_np.packing import Packing, is_list_of_sequences, read
from lstm_np.parameters import Parameters, merge
from lstm_np.trace import Trace, largest_difference

# what a constructor makes of the options: all other attributes are the user's own, which copies and pickles keep
MADE = {"config", "backend", "cell", "input_size", "hidden_size", "hidden_sizes", "num_layers", "directions", "dtype",
        "dropout", "seed", "learned", "_params", "singles", "_together"}  # fmt: skip


@options.documented
class Recurrent:
    """A stack of recurrent layers of one cell type, of any cell: `LSTM`, `GRU` and `RNN` are such stacks.

    singles  the layers, each direction by itself, in the order of params (`lstm_np.layers.single`)
    params   `Parameters`: "layer0.W" (4H, D), "layer0.U" (4H, H), "layer0.b" (4H,), "layer1.W" (4H, directions*H) ...,
             with "layer0_reverse.W" ... for the second direction; with bias="double" also "layer0.b_h" (4H,); with
             initial_state="learned" also "layer0.h_0" (H,) and, for an LSTM, "layer0.c_0" (H,); writable arrays of the
             backend
    config   the options that it was made with, but for the backend, as plain values
    hidden_sizes   (L,) the units of each layer; `hidden_size` are those of the top layer

    With hidden_size=[16, 8] layers have different sizes; a part of the state is then a list with an array (B, H) for
    each layer and direction, in the order of `singles`.

    A cell of your own is known by the name that was given to `lstm_np.register_cell`.  A layer can be copied and
    pickled: its options, parameters and attributes of your own go along.  Where it is unpickled, a cell of your own has
    to be registered first.

    >>> gru = lstm_np.Recurrent(3, 5, cell="gru")
    >>> y, h = gru(np.ones((2, 4, 3)))
    >>> y.shape, h.shape
    ((2, 4, 5), (1, 2, 5))

    Raises ValueError for a cell that nobody registered, HoldError for a value that it does not have, and as `LSTM`.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        *,
        cell: str = "lstm",
        num_layers: int = 1,
        bias: bool | str = True,
        bidirectional: bool = False,
        reverse: bool = False,
        merge: str = "concat",
        batch_first: bool = True,
        dropout: float = 0.0,
        dropout_outputs: str = "between",
        dropout_mask: str = "step",
        masked_outputs: str = "zero",
        initializer: str = "keras",
        forget_bias: float | None = None,
        forget_bias_at: str = "init",
        cell_clip: float | None = None,
        initial_state: str = "zeros",
        hold: Mapping[str, float] | None = None,
        dtype: Dtype = "float32",
        seed: int = 0,
        kernel: str = "auto",
        backend: str | Backend = "numpy",
    ) -> None:
        self._make(cell, options.given(locals()))

    def _make(self, cell: str, settings: Mapping[str, Any]) -> None:
        """What all constructors do; `settings` are the options that each of them spells out."""
        values = options.check(settings)
        options.warn_if_nothing_is_dropped(values)
        backend, bias = values.pop("backend"), values["bias"]
        self.config: dict[str, Any] = values
        self.backend = get_backend(backend)
        self.cell = get_cell(values.get("cell", cell))
        check_held_names(self.cell, values["hold"] or ())
        self.num_layers, self.directions = values["num_layers"], 2 if values["bidirectional"] else 1
        sizes = values["hidden_size"]
        self.hidden_sizes = (sizes,) * self.num_layers if isinstance(sizes, int) else tuple(sizes)
        self.input_size, self.hidden_size = values["input_size"], self.hidden_sizes[-1]
        self.dtype, self.dropout, self.seed = values["dtype"], values["dropout"], values["seed"]
        self.learned: bool = values["initial_state"] == "learned"
        drawn, singles = {}, []
        for layer, H in enumerate(self.hidden_sizes):
            width = self.input_size if layer == 0 else self._width(layer - 1)
            spec = LayerSpec(self.cell, width, H, bool(bias), self.dtype, options.of_kernel(values))
            for reverse in (True,) if values["reverse"] else (False, True)[: self.directions]:
                name = f"layer{layer}" + ("_reverse" if reverse else "")
                drawn[name] = initializers.recurrent(
                    values["initializer"],
                    self.cell,
                    width,
                    H,
                    bias=bias,
                    forget_bias=values.get("forget_bias"),
                    forget_bias_at=values.get("forget_bias_at", "init"),
                    seed=self.seed,
                    purpose=name,
                )
                if self.learned:
                    drawn[name] |= initializers.initial_state(self.cell, H, drawn[name])
                singles.append((name, spec, reverse))
        at_run = values.get("forget_bias_at") == "run"
        self._params = Parameters.from_host(self.backend, merge(drawn), self.dtype)
        self.singles = tuple(
            Single(
                name,
                spec,
                self.backend,
                self._params.section(name),
                reverse=reverse,
                kernel=values["kernel"],
                added=self._run_time_bias(spec.hidden_size) if at_run else None,
                learned=self.learned,
            )
            for name, spec, reverse in singles
        )
        # the next layer reads what directions give only where nothing is computed of it first
        joined = self.directions == 1 or values["merge"] in ("concat", "none")
        kernels, ways = [single.kernel for single in self.singles], self.singles[: self.directions]
        self._together = make_stack(kernels, [single.reverse for single in ways]) if joined else None

    @property
    def params(self) -> Parameters:
        """The parameters by name; the same names over another vector may be put in their place."""
        return self._params

    @params.setter
    def params(self, params: Parameters) -> None:
        """Raises ValueError for anything that is not the same names and shapes over one vector."""
        if not isinstance(params, Parameters) or params.shapes != self._params.shapes:
            raise ValueError("a layer's params are one vector with fixed names; set values by params.update(values)")
        self._params = params
        for single in self.singles:
            single.params = params.section(single.name)

    @property
    def kernel_names(self) -> tuple[str, ...]:
        """The kernel that each layer and direction runs on, e.g. ("fused",)."""
        return tuple(single.kernel.name for single in self.singles)

    def cuts(self, T: int, B: int, *, save: bool = True) -> dict[str, Cut]:
        """How each layer and direction cuts a batch of B sequences of T steps over the cores, by its name.

        `save`: a backward pass will follow.  Where all of these are the same, so are the bits on one machine.
        """
        return {single.name: single.kernel.cut(T, B, save) for single in self.singles}

    def singles_of(self, layer: int) -> tuple[Single, ...]:
        """The directions of one layer, counted from 0."""
        return self.singles[layer * self.directions : (layer + 1) * self.directions]

    @property
    def output_size(self) -> int:
        """Features of y: H, or 2H when bidirectional and concatenated."""
        return self._width(self.num_layers - 1)

    def _width(self, layer: int) -> int:
        """Features of a layer's outputs."""
        return self.hidden_sizes[layer] * (self.directions if self.config["merge"] == "concat" else 1)

    def copy(self, **changes: Any) -> Self:
        """A layer with the same parameter values and other settings (dtype, kernel, backend ...).

        >>> layer = lstm_np.LSTM(3, 5)
        >>> layer.copy(dtype="float64")
        LSTM(3, 5, dtype='float64')
        """
        make: Callable[..., Self] = type(self)
        with options.silent():
            other = make(**{"backend": self.backend, **self.config, **changes})
        for name, array in self.params.items():
            other.params[name] = other.backend.from_host(self.backend.to_host(array).astype(other.dtype))
        return other

    def __getstate__(self) -> dict[str, Any]:
        own = {name: value for name, value in vars(self).items() if name not in MADE}
        made = {"cell": self.cell.name, "config": self.config, "backend": self.backend, "params": self.params}
        return {**made, "own": own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        with options.silent():
            self._make(state["cell"], {**state["config"], "backend": state["backend"]})
        self.params = state["params"]
        vars(self).update(state["own"])

    def __copy__(self) -> Self:
        return deepcopy(self)  # parameters that two models shared would train both

    if not TYPE_CHECKING:  # a type checker finds what is not there by itself

        def __getattr__(self, name: str) -> Any:
            raise other_names.no_attribute(self, name)

    def __repr__(self) -> str:
        return options.as_call(type(self).__name__, {**self.config, "backend": self.backend.name})

    def _repr_html_(self) -> str:
        rows = [
            (f"{single.name}.{name}", f"{tuple(array.shape)}", f"{array.size:,}", single.kernel.name)
            for single in self.singles
            for name, array in single.params.items()
        ]
        return html_table(repr(self), ("parameter", "shape", "values", "kernel"), rows)

    # ---- the public API

    def __call__(
        self, x: Array, state: Any = None, *, lengths: Any = None, mask: Any = None, hold: Any = None
    ) -> tuple[Any, Any]:
        """(y, final state) of a batch of sequences, where no backward follows: `forward` without its cache.

        >>> lstm = lstm_np.LSTM(3, 5)
        >>> y, (h_n, c_n) = lstm(np.ones((2, 4, 3)))
        >>> (y[:, -1] == h_n[0]).all()
        np.True_

        Arguments and errors as for `forward`.
        """
        y, final, _ = self.forward(x, state, lengths=lengths, mask=mask, hold=hold, save=False)
        return y, final

    def forward(
        self,
        x: Array,
        state: Any = None,
        *,
        lengths: Any = None,
        mask: Any = None,
        hold: Any = None,
        trace: bool = False,
        save: bool = True,
        dropout_key: Sequence[int | str] | None = None,
        resets: Any = None,
        truncation: tuple[int, int] | None = None,
    ) -> tuple[Any, Any, Any]:
        """(y, final state, cache) of a batch of sequences.

        x            (B, T, D), an array of NumPy or of the backend, or nested lists; converted to the layer's dtype.
                     Or a list of B arrays (T_i, D): T is then the longest of them.  Or one sequence (T, D): then all
                     that goes in and comes out has no axis B
        state        initial state, parts (L * directions, B, H): (h_0, c_0) for an LSTM, h_0 alone for cells without
                     a cell state; None, for all or a part of it, means the initial state: zeros, or what was trained
        lengths      (B,) whole numbers 0 ... T in any order: sequence b is its first lengths[b] steps; None: all T
        mask         (B, T) booleans in the place of lengths: which steps a sequence has; it may begin late and have
                     holes.  What x holds elsewhere is not read, the second direction begins at a sequence's own last
                     step, a final state is that after the last step it reads, and y is 0 where there is no step (or
                     what it was before, by the option masked_outputs)
        hold         values of the cell to be held, {"f": 1.0} or a list of `lstm_np.Hold`; backward goes through the
                     pass as it then is
        trace        record every value: cache["trace"] is a `lstm_np.Trace`, to which `backward` adds the gradients
        save         False: no backward will follow, so nothing is kept for it and cache is None
        dropout_key  what makes this call's dropout masks its own, e.g. (step,); None: no dropout (inference)
        resets       (B,) booleans: sequences that begin from the initial state, whatever `state` says; None: none does
        truncation   (k1, k2): `backward` follows the outputs of every k1 steps back through the last k2 steps and no
                     further (`lstm_np.layers.truncation` has the definition), once; None: to the first step.  Dropout
                     masks are then drawn for each stretch of steps between two cuts by itself

        y is (B, T, directions * H), the final state has the initial state's form, cache goes to `backward`.  By the
        options batch_first and merge x, mask and y are (T, B, ...), and y is (B, T, H) or a pair of such.  With
        `hold` or `trace` the reference kernel runs.

        >>> lstm = lstm_np.LSTM(3, 5, num_layers=2, bidirectional=True)
        >>> y, (h_n, c_n), cache = lstm.forward(np.ones((2, 4, 3)))
        >>> y.shape, h_n.shape, c_n.shape
        ((2, 4, 10), (4, 2, 5), (4, 2, 5))
        >>> y_next, _, _ = lstm.forward(np.ones((2, 7, 3)), (h_n, c_n))  # goes on where the last call ended
        >>> gru = lstm_np.GRU(3, 5)
        >>> y, _, _ = gru.forward([np.ones((4, 3)), np.ones((6, 3))])  # or np.ones((2, 6, 3)), lengths=[4, 6]
        >>> y.shape, bool((y[0, 4:] == 0).all())
        ((2, 6, 5), True)

        Raises ValueError when a shape does not fit, for what are no numbers, and for a truncation where a direction is
        reverse, or together with lengths, `hold` or `trace`; OptionError for another truncation than 1 <= k1 <= k2;
        HoldError for a hold that names nothing here.
        """
        truncation = check_truncation(truncation)
        x, real, unbatched = self._enter_x(x, lengths, mask)
        B, save = x.shape[2], options.check_bool("save", save)
        given = self.enter_state(state, B, missing=None, unbatched=unbatched)
        trace = options.check_bool("trace", trace)
        if trace and not save:
            raise ValueError("a trace is kept in the cache, so it cannot be taken with save=False")
        directions = (True,) if self.config["reverse"] else (False, True)[: self.directions]
        holds = read_holds(hold, self.cell, self.num_layers, directions)
        if truncation is not None and (trace or holds):
            raise ValueError("a truncated pass cannot be traced, nor its values held by hold=; hold can be an option")
        refuse_lengths(truncation, real)
        y, final, cache = self.run(
            x,
            given,
            packing=self.packing(real, B, x.shape[1]),
            save=save,
            dropout_key=dropout_key,
            holds=holds,
            trace=trace,
            resets=self.enter_resets(resets, B),
            truncation=truncation,
        )
        assert y is not None  # sequence=True is the default of run
        if cache is not None:
            cache["unbatched"] = unbatched
        return self._leave_y(y, unbatched), self.leave_state(final, unbatched), cache

    def backward(self, cache: Any, dy: Array | None = None, dstate: Any = None) -> tuple[Any, Any, dict[str, Any]]:
        """(dx, gradient of the initial state, grads) of a loss whose gradients at the outputs are given.

        cache        from `forward`
        dy           (B, T, directions * H) or None: the loss does not look at y
        dstate       gradient of the final state, in the state's form, parts may be None

        dx is (B, T, D), 0 at steps that a sequence does not have; what dy holds there is not read (unless outputs are
        held there).  grads has the keys and shapes of `params`.  What `forward` was given may have changed since;
        the parameters may not: their present values are read, and the gradients are right only where those are still
        the ones of the forward call.

        >>> lstm = lstm_np.LSTM(3, 5)
        >>> y, _, cache = lstm.forward(np.ones((2, 4, 3)))
        >>> dx, (dh_0, dc_0), grads = lstm.backward(cache, np.ones_like(y))  # of the loss y.sum()
        >>> dx.shape, dh_0.shape, grads["layer0.W"].shape
        ((2, 4, 3), (1, 2, 5), (20, 3))

        Raises ValueError when a shape does not fit, or where the forward pass kept no cache.
        """
        if not isinstance(cache, dict):
            found = "None, as a forward with save=False gives" if cache is None else f"a {type(cache).__name__}"
            raise ValueError(f"backward takes the cache of a forward pass, found {found}")
        (B, T), unbatched = cache["shape"], cache["unbatched"]
        dy = self._enter_dy(dy, B, T, unbatched)
        entered = self.enter_state(dstate, B, missing=None, unbatched=unbatched)
        dx, dstate_0, grads = self.run_backward(cache, dy, entered)
        return self._turned(dx, unbatched), self.leave_state(dstate_0, unbatched), grads

    # ---- the forms that arrays have in the public API

    def _enter_x(self, x: Any, lengths: Any, mask: Any) -> tuple[Array, Any, bool]:
        """(x (D, T, B), which steps are real, whether it was one sequence without an axis B) of what people pass."""
        batch_first, of_list = self.config["batch_first"], is_list_of_sequences(x)
        x, real = read(x, lengths, mask, self.backend.to_host)
        x = self.enter(x, "x")
        if x.ndim == 2 and x.shape[1] == self.input_size and x.shape[0] >= 1:
            if real is not None:
                raise ValueError(
                    "lengths and masks go with a batch; x is one sequence (T, D), all of whose steps are read"
                )
            return x.transpose(1, 0)[:, :, None], None, True
        if x.ndim != 3 or x.shape[2] != self.input_size or 0 in x.shape:
            form = f"(B, T, {self.input_size})" if batch_first else f"(T, B, {self.input_size})"
            raise ValueError(
                f"x must have shape {form} with B, T >= 1, or (T, {self.input_size}), found {tuple(x.shape)}"
            )
        if batch_first or of_list:
            return x.transpose(2, 1, 0), real, False
        return x.transpose(2, 0, 1), real if real is None or real.ndim == 1 else real.T, False

    def _turned(self, array: Array, unbatched: bool) -> Array:
        """The public form of (features, T, B)."""
        if unbatched:
            return array[:, :, 0].transpose(1, 0)
        return array.transpose(2, 1, 0) if self.config["batch_first"] else array.transpose(1, 2, 0)

    def _leave_y(self, y: Array, unbatched: bool) -> Any:
        if self.config["merge"] != "none":
            return self._turned(y, unbatched)
        H = self.hidden_size
        return self._turned(y[:H], unbatched), self._turned(y[H:], unbatched)

    def _enter_dy(self, dy: Any, B: int, T: int, unbatched: bool) -> Array | None:
        """(features of all directions' outputs, T, B) from the public form of y's gradient."""
        if dy is None:
            return None
        outer: tuple[int, ...] = (T,) if unbatched else (B, T) if self.config["batch_first"] else (T, B)
        shape = (*outer, self.output_size)
        pair = self.config["merge"] == "none"
        if pair and (not isinstance(dy, (tuple, list)) or len(dy) != 2):
            raise ValueError(f"dy must be a pair, of the two directions, found {type(dy).__name__}")
        parts = []
        for part in dy if pair else (dy,):
            if part is None:
                part = self.backend.xp.zeros(shape, dtype=self.dtype)
            part = self.enter(part, "dy")
            if tuple(part.shape) != shape:
                raise ValueError(f"dy must have shape {shape}, found {tuple(part.shape)}")
            if unbatched:
                parts.append(part.transpose(1, 0)[:, :, None])
            else:
                parts.append(part.transpose(2, 1, 0) if self.config["batch_first"] else part.transpose(2, 0, 1))
        return parts[0] if len(parts) == 1 else self.backend.xp.concat(parts, axis=0)

    def step(self, x_t: Array, state: Any = None) -> tuple[Any, Any]:
        """(y_t, state) of one time step: of a loop of your own, which keeps the state.

        x_t    (B, D), or (D,) of one sequence
        state  before the step, as `forward` gives it, parts (L, B, H); of one sequence (L, H); None: the initial state

        y_t is (B, H) or (H,), the state after the step has the form of that before.  It is a sequence of one step: on
        the reference kernel a loop of them has the bits of the whole sequence, elsewhere it is equal to rounding.
        `stream` makes steps faster, since it prepares them once.

        >>> lstm, state = lstm_np.LSTM(3, 5), None
        >>> for x_t in np.ones((4, 2, 3)):
        ...     y_t, state = lstm.step(x_t, state)
        >>> y_t.shape, state[1].shape
        ((2, 5), (1, 2, 5))

        Raises ValueError for a reverse direction, when a shape does not fit, or for what are no numbers.
        """
        refuse_reverse(self, "a step")
        x_t = self.enter(x_t, "x_t")
        alone = x_t.ndim == 1
        if x_t.ndim not in (1, 2) or x_t.shape[-1] != self.input_size or 0 in x_t.shape:
            raise ValueError(
                f"x_t must have shape (B, {self.input_size}) or ({self.input_size},), found {tuple(x_t.shape)}"
            )
        rows = x_t[None, :] if alone else x_t
        initial = self.enter_state(state, rows.shape[0], unbatched=alone)
        y, final, _ = self.run(rows.T[:, None, :], initial, save=False)
        left = self.leave_state(final, alone)
        return (y[:, 0, 0] if alone else y[:, 0, :].T), left

    def stream(self, batch_size: int | None = None, state: Any = None) -> Stream:
        """A `lstm_np.Stream`: steps one at a time, of sequences that arrive so, with the state kept between them.

        batch_size  how many sequences advance together; None: one, whose arrays have no batch axis
        state       where they begin; None: the initial state

        >>> stream = lstm_np.LSTM(3, 5).stream()
        >>> stream.step(np.ones(3)).shape
        (5,)

        Raises ValueError for a reverse direction, or a state whose shape does not fit; OptionError for a batch_size
        below 1.
        """
        return Stream(self, batch_size, state)

    def enter(self, array: Array, name: str) -> Array:
        """An array of the backend in the layer's dtype; `name` is what errors call it.

        Raises ValueError for complex numbers where the layer is real, and for what are no numbers.
        """
        array = as_numbers(self.backend, array, name)
        if array.dtype == self.dtype:
            return array
        if array.dtype.kind == "c" and self.dtype != "complex128":
            raise ValueError(f"{name} is complex, the layer is {self.dtype}")
        return array.astype(self.dtype)

    def enter_resets(self, resets: Any, B: int) -> Array | None:
        """(B,) booleans on the backend, or None where none is true.  Raises ValueError for anything else."""
        if resets is None:
            return None
        found = self.backend.to_host(as_numbers(self.backend, resets, "resets"))
        if found.shape != (B,) or found.dtype.kind != "b":
            raise ValueError(f"resets must be booleans ({B},), found {found.dtype} {found.shape}")
        return self.backend.from_host(found.copy()) if found.any() else None

    def enter_state(
        self, state: Any, B: int, missing: Array | None = 0, unbatched: bool = False
    ) -> list[tuple[Array | None, ...]]:
        """The state per layer and direction, parts (H, B), from its public form, see `forward`.

        A part that is not given is the initial state's, or None with missing=None.  Raises ValueError when a shape does
        not fit.
        """
        sizes = [single.spec.hidden_size for single in self.singles]
        L, one_size = len(sizes), len(set(self.hidden_sizes)) == 1
        initial = [(None,) * len(self.cell.state)] * L
        if missing is not None:
            initial = [single.initial_state(B) for single in self.singles]
        parts = self._parts_of(state, unbatched)
        if len(parts) != len(self.cell.state):
            raise ValueError(f"the state has the parts {', '.join(self.cell.state)}; found {len(parts)} of them")
        entered = []
        for n, (name, part) in enumerate(zip(self.cell.state, parts, strict=True)):
            if part is None:
                entered.append([own[n] for own in initial])
                continue
            if one_size:
                part, expected = self.enter(part, name), (L, sizes[0]) if unbatched else (L, B, sizes[0])
                if tuple(part.shape) != expected:
                    raise ValueError(f"state part {name} must have shape {expected}, found {tuple(part.shape)}")
            elif not isinstance(part, (list, tuple)) or len(part) != L:
                raise ValueError(f"state part {name} must be a list of {L} arrays, since layers differ in size")
            else:
                part = [self.enter(array, name) for array in part]
            entered.append([self._entered_part(part[k], name, H, B, unbatched) for k, H in enumerate(sizes)])
        return list(zip(*entered, strict=True))

    def _entered_part(self, part: Array, name: str, H: int, B: int, unbatched: bool) -> Array:
        """(H, B) of one layer and direction."""
        shape = (H,) if unbatched else (B, H)
        if tuple(part.shape) != shape:
            raise ValueError(f"state part {name} must have shape {shape} in this layer, found {tuple(part.shape)}")
        return part[:, None] if unbatched else part.T

    def _parts_of(self, state: Any, unbatched: bool) -> Sequence[Any]:
        """The parts of a state in its public form."""
        axes = 2 if unbatched else 3
        if state is None:
            return (None,) * len(self.cell.state)
        if not isinstance(state, (tuple, list)):
            return (state,)
        if len(self.cell.state) == 1 and len(set(self.hidden_sizes)) > 1:
            wrapped = len(state) == 1 and (state[0] is None or isinstance(state[0], (tuple, list)))
            return state if wrapped else (state,)
        if len(self.cell.state) == 1:
            only = state[0] if len(state) == 1 else ()
            is_part = only is None or getattr(only, "ndim", 0) == axes
            if not is_part and self.enter(state, self.cell.state[0]).ndim == axes:
                return (state,)  # the one part as nested lists, not a list with the one part
        return state

    def leave_state(self, state: list[tuple[Array, ...]], unbatched: bool = False) -> Any:
        """The public form of a state per layer and direction."""
        columns = ([part[:, 0] if unbatched else part.T for part in column] for column in zip(*state, strict=True))
        one_size = len(set(self.hidden_sizes)) == 1
        parts = tuple(self.backend.xp.stack(column) if one_size else column for column in columns)
        return parts if len(parts) > 1 else parts[0]

    # ---- inside: feature-major, a column a sample

    def packing(self, real: Any, B: int, T: int) -> Packing | None:
        """Which steps are computed of lengths or a mask as `lstm_np.packing.read` gives them; None for all.

        Raises ValueError where they do not fit B sequences of T steps.
        """
        return Packing.of(real, B, T, self.backend, held=self.config["masked_outputs"] == "held")

    def run(
        self,
        x: Array,
        state: Sequence[tuple[Array | None, ...]] | None = None,
        *,
        packing: Packing | None = None,
        sequence: bool = True,
        save: bool = True,
        dropout_key: Sequence[int | str] | None = None,
        holds: Sequence[Hold] = (),
        trace: bool = False,
        resets: Array | None = None,
        truncation: tuple[int, int] | None = None,
    ) -> tuple[Array, list[tuple[Array, ...]], Any]:
        """(y, final states, cache) from x (D, T, B) and the states per layer and direction, parts (H, B).

        A state or part of it that is None is the initial state, and so is that of samples for which `resets` (B,) is
        true.  `packing`: of the batch as it lies, where its sequences have unequal lengths.  `sequence=False`: the top
        layer's y is not wanted (None).  `save=False`: no backward will follow (cache None).  `trace`: cache["trace"]
        has all values of the pass, and cache["outputs"] what each direction of the top layer gives, (H, T, B) in the
        time order of x, before dropout.  `truncation` as for `forward`; with sequence=False the last window is all that
        backward follows.
        """
        if truncation is not None and save:
            return self._run_truncated(x, state, truncation, sequence, dropout_key, resets)
        _, T, B = x.shape
        parts = [(None,) * len(self.cell.state)] * len(self.singles) if state is None else state
        begun = [single.begin(part, B, resets) for single, part in zip(self.singles, parts, strict=True)]
        final: list[tuple[Array, ...]] = []
        cache: dict[str, Any] = {"shape": (B, T), "packing": packing, "saved": [], "masks": [], "factors": []}
        cache["began"] = [own for _, own in begun]
        dropping = self.dropout > 0 and dropout_key is not None
        together = None if packing is not None or holds or trace or dropping else self._stack_for(T, B, save)
        if together is not None:
            params, states = [single.kernel_params() for single in self.singles], [own for own, _ in begun]
            y, final, cache["together"] = together.forward(params, x, states, sequence=sequence, save=save)
            return y, final, cache if save else None
        given, recorded = x, self._new_trace(bool(holds or self.config["hold"]), packing) if trace else None
        for layer in range(self.num_layers):
            top = layer == self.num_layers - 1
            dropping = dropout_key is not None and self._drops(layer) and (sequence or not top)
            outputs = []
            for single in self.singles_of(layer):
                wanted = sequence or not top or trace
                edits = None
                if holds:
                    shape = (B, T, single.spec.hidden_size)
                    edits = edits_of(holds, layer, single.reverse, shape, self.backend, self.dtype, packing)
                y, last, saved = single.forward(
                    x,
                    begun[len(final)][0],
                    sequence=wanted,
                    save=save or trace,
                    packing=packing,
                    edits=edits,
                    trace=trace,
                )
                if recorded is not None:
                    recorded.add_forward(single.name, single.step_params, single.reverse, x, saved.saved, last)
                outputs.append(y)
                final.append(last)
                cache["saved"].append(saved)
            if trace:
                cache["outputs"] = outputs
            x = outputs[0] if outputs[0] is None else self._merged(outputs)
            cache["factors"].append(outputs if self.config["merge"] == "mul" else None)
            mask = None
            if dropping and dropout_key is not None:
                mask = self._mask(layer, x.shape, dropout_key)
                x = x * mask
            cache["masks"].append(mask)
        if recorded is not None:
            cache["trace"] = recorded
            if not holds:
                recorded.about["difference"] = self._difference(
                    given, [one for one, _ in begun], packing, dropout_key, outputs, final
                )
        return x if sequence else None, final, cache if save or trace else None

    def _stack_for(self, T: int, B: int, save: bool) -> KernelStack | None:
        """What runs all layers of such a batch together, with the kernels that they have now; None: nothing does."""
        stack = self._together
        if stack is None or not stack.runs([single.kernel for single in self.singles]):
            return None
        return stack if stack.takes(T, B, save) else None

    def _run_truncated(
        self,
        x: Array,
        state: Any,
        truncation: tuple[int, int],
        sequence: bool,
        dropout_key: Sequence[int | str] | None,
        resets: Array | None,
    ) -> tuple[Array, list[tuple[Array, ...]], Any]:
        """`run`, segment by segment, each with a cache of its own; those that no window reaches keep none."""
        refuse_reverse(self, "truncated backpropagation")
        _, T, B = x.shape
        windows = windows_of(T, *truncation, last=not sequence)
        outputs, caches = [], []
        for n, segment in enumerate(segments_of(T, windows)):
            y, state, cache = self.run(
                x[:, segment.start : segment.stop, :],
                state,
                sequence=sequence,
                save=segment.stop > windows[0].start,
                dropout_key=None if dropout_key is None else (*dropout_key, "segment", n),
                resets=resets if n == 0 else None,
            )
            outputs.append(y)
            caches.append((segment, cache))
        y = self.backend.xp.concat(outputs, axis=1) if sequence else None
        return y, state, {"shape": (B, T), "windows": windows, "segments": caches}

    def _run_truncated_backward(
        self,
        cache: Any,
        dy: Array | None,
        dstate: list[tuple[Array | None, ...]],
        into: Parameters | None,
        input_gradient: bool,
    ) -> tuple[Array, list[tuple[Array, ...]], dict[str, Array]]:
        """`run_backward`, window by window, and the sum of what they give."""
        xp, (B, T) = self.backend.xp, cache["shape"]
        nothing = [(None,) * len(self.cell.state)] * len(self.singles)
        total = self.params.empty_like() if into is None else into
        sums = {name: total[name] for name in self.params}
        for array in sums.values():
            array[...] = 0
        dx = xp.zeros((self.input_size, T, B), dtype=self.dtype) if input_gradient else None
        dstate_0 = [tuple(xp.zeros_like(part) for part in single.initial_state(B)) for single in self.singles]
        followed = [window for window in cache["windows"] if dy is not None or window.stop == T]
        arriving: list[Any] = [dstate if window.stop == T else nothing for window in followed]
        # a segment has done its part for all windows before the one below it begins, so that its memory is free by then
        for (start, stop), saved in reversed(cache["segments"]):
            for n, window in enumerate(followed):
                if not window.start <= start < window.stop:
                    continue
                dys = dy[:, start:stop, :] if dy is not None and start >= window.outputs else None
                d, arriving[n], grads = self.run_backward(saved, dys, arriving[n], input_gradient=input_gradient)
                for name, array in sums.items():
                    array += grads[name]
                if dx is not None:
                    dx[:, start:stop, :] = dx[:, start:stop, :] + d
        for n, window in enumerate(followed):
            if window.start == 0:
                pairs = zip(dstate_0, arriving[n], strict=True)
                dstate_0 = [tuple(x + y for x, y in zip(one, other, strict=True)) for one, other in pairs]
        return dx, dstate_0, sums

    def _merged(self, outputs: list[Array]) -> Array:
        """What a layer hands on, (features, T, B), of the outputs (H, T, B) of its directions."""
        if len(outputs) == 1:
            return outputs[0]
        merge, (ahead, back) = self.config["merge"], outputs
        if merge in ("sum", "average"):
            return ahead + back if merge == "sum" else (ahead + back) * 0.5
        return ahead * back if merge == "mul" else self.backend.xp.concat(outputs, axis=0)

    def _merged_back(self, dy: Array | None, factors: list[Array] | None) -> list[Array | None]:
        """The gradients of a layer's directions from that of what it hands on; `factors`: what was multiplied."""
        if dy is None or self.directions == 1:
            return [dy] * self.directions
        merge = self.config["merge"]
        if merge in ("sum", "average"):
            return [dy if merge == "sum" else dy * 0.5] * 2
        if factors is not None:
            return [dy * factors[1], dy * factors[0]]
        H = dy.shape[0] // 2
        return [dy[:H], dy[H:]]

    def _new_trace(self, held: bool, packing: Packing | None) -> Trace:
        """Of a pass that is about to begin."""
        return Trace.of_layers(
            self.cell,
            self.num_layers,
            self.directions,
            self.config["hidden_size"],
            self.dtype,
            self.backend,
            self.kernel_names,
            held,
            packing,
            reverse=self.config["reverse"],
        )

    def _difference(
        self,
        x: Array,
        state: Any,
        packing: Packing | None,
        dropout_key: Any,
        outputs: list[Array],
        final: list[tuple[Array, ...]],
    ) -> float:
        """How far the top layer's outputs, as dropout leaves them, and all final states are from those of the layers'
        own kernels."""
        if set(self.kernel_names) == {"reference"}:
            return 0.0
        own_y, own_final, _ = self.run(x, state, packing=packing, save=False, dropout_key=dropout_key)
        y = self._merged(outputs)
        if dropout_key is not None and self._drops(self.num_layers - 1):
            y = y * self._mask(self.num_layers - 1, y.shape, dropout_key)
        pairs = [(y, own_y)]
        for states in zip(final, own_final, strict=True):
            pairs += zip(*states, strict=True)
        return largest_difference(self.backend, pairs)

    def run_backward(
        self,
        cache: Any,
        dy: Array | None,
        dstate: list[tuple[Array | None, ...]],
        *,
        input_gradient: bool = True,
        state_gradient: bool = True,
        into: Parameters | None = None,
    ) -> tuple[Array, list[tuple[Array, ...]], dict[str, Array]]:
        """(dx, gradients of the initial states, grads) from dy (directions * H, T, B) and those of the final states.

        `into`: arrays with the names of `params` that kernels may compute the gradients in.
        """
        if "windows" in cache:
            return self._run_truncated_backward(cache, dy, dstate, into, input_gradient)
        if "together" in cache:
            return self._run_backward_together(cache, dy, dstate, input_gradient, state_gradient, into)
        recorded = cache.get("trace")
        grads: dict[str, Mapping[str, Array]] = {}
        dstate_0: list[Any] = [None] * len(self.singles)
        for layer in reversed(range(self.num_layers)):
            if dy is not None and cache["masks"][layer] is not None:
                dy = dy * cache["masks"][layer]
            dx, dys = None, self._merged_back(dy, cache["factors"][layer])
            for direction, single in enumerate(self.singles_of(layer)):
                k = layer * self.directions + direction
                steps: list[StepBack] = []
                d, dstate_0[k], grads[single.name] = single.backward(
                    cache["saved"][k],
                    dys[direction],
                    dstate[k],
                    input_gradient=input_gradient or layer > 0,
                    state_gradient=state_gradient,
                    into=None if into is None else into.section(single.name),
                    packing=cache["packing"],
                    see=None if recorded is None else steps.append,
                    began=cache["began"][k],
                )
                if recorded is not None:
                    recorded.add_backward(single.name, single.reverse, steps, dstate[k])
                if d is not None:
                    dx = d if dx is None else dx + d
            dy = dx
        ordered = merge({single.name: grads[single.name] for single in self.singles})
        return dy if input_gradient else None, dstate_0, {name: ordered[name] for name in self.params}

    def _run_backward_together(
        self,
        cache: Any,
        dy: Array | None,
        dstate: list[tuple[Array | None, ...]],
        input_gradient: bool,
        state_gradient: bool,
        into: Parameters | None,
    ) -> tuple[Array, list[Any], dict[str, Array]]:
        """`run_backward` of all layers in one pass."""
        assert self._together is not None
        dx, dstates_0, grads = self._together.backward(
            [single.kernel_params() for single in self.singles],
            cache["together"],
            dy,
            dstate,
            input_gradient=input_gradient,
            state_gradient=state_gradient or self.learned,
            into=[None if into is None else into.section(single.name) for single in self.singles],
        )
        given, own = [], {}
        for k, single in enumerate(self.singles):
            dstate_0 = None if dstates_0 is None else dstates_0[k]
            left, own[single.name] = single.gradients_of(dstate_0, grads[k], cache["began"][k])
            given.append(left)
        ordered = merge(own)
        return dx, given, {name: ordered[name] for name in self.params}

    def _run_time_bias(self, H: int) -> Array:
        """(4H,) on the backend: the forget bias in the forget gate's block, zeros elsewhere."""
        gates = self.cell.gates
        value = initializers.initial_forget_bias(self.config["initializer"], self.cell, self.config["forget_bias"])
        bias = self.backend.xp.zeros((len(gates) * H,), dtype=self.dtype)
        if value is not None:
            block = gates.index("f")
            bias[block * H : (block + 1) * H] = value
        return bias

    def last_mask(self, shape: tuple[int, int], dropout_key: Sequence[int | str] | None) -> Array | None:
        """(H, B), the dropout mask of the top layer's last output (H, B), whose outputs at other steps nobody reads.

        None where nothing is dropped: without a key, or where dropout falls between layers.
        """
        if dropout_key is None or not self._drops(self.num_layers - 1):
            return None
        H, B = shape
        return self._mask(self.num_layers - 1, (H, 1, B), dropout_key)[:, 0, :]

    def _mask(self, layer: int, shape: tuple[int, int, int], dropout_key: Sequence[int | str]) -> Array:
        """A layer's dropout mask, which broadcasts to its outputs of this shape (H, T, B)."""
        key = (self.seed, "dropout", layer, *dropout_key)
        return dropout_masks.mask(self.backend, shape, self.dropout, self.dtype, self.config["dropout_mask"], *key)

    def _drops(self, layer: int) -> bool:
        every = self.config["dropout_outputs"] == "all"
        return self.dropout > 0 and (every or layer < self.num_layers - 1)


@options.documented
class LSTM(Recurrent):
    """Long short-term memory, one or more layers, one or two directions; the equations are in `lstm_np.cells.lstm`.

    Layer k > 0 reads the outputs of layer k - 1; with two directions a second set of layers reads the sequence
    backwards, and outputs are concatenated.  Dropout is applied when `forward` is given a dropout_key.  For `params`,
    `config` and the methods see `Recurrent`.

    >>> lstm = lstm_np.LSTM(28, 128, num_layers=2)
    >>> y, (h_n, c_n) = lstm(np.zeros((32, 10, 28)))
    >>> y.shape, h_n.shape
    ((32, 10, 128), (2, 32, 128))
    >>> lstm.params["layer0.W"].shape, lstm.params["layer1.W"].shape
    ((512, 28), (512, 128))

    Raises OptionError for a value that an option cannot have, BackendError when the backend cannot be used.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        *,
        num_layers: int = 1,
        bias: bool | str = True,
        bidirectional: bool = False,
        reverse: bool = False,
        merge: str = "concat",
        batch_first: bool = True,
        dropout: float = 0.0,
        dropout_outputs: str = "between",
        dropout_mask: str = "step",
        masked_outputs: str = "zero",
        initializer: str = "keras",
        forget_bias: float | None = None,
        forget_bias_at: str = "init",
        cell_clip: float | None = None,
        initial_state: str = "zeros",
        hold: Mapping[str, float] | None = None,
        dtype: Dtype = "float32",
        seed: int = 0,
        kernel: str = "auto",
        backend: str | Backend = "numpy",
    ) -> None:
        self._make("lstm", options.given(locals()))


@options.documented
class GRU(Recurrent):
    """Gated recurrent units; the equations are in `lstm_np.cells.gru` and `lstm_np.cells.gru_reset_before`.

    The state is h alone.  params: "layer0.W" (3H, D), "layer0.U" (3H, H) and "layer0.b" (3H,), row blocks r, z, n; with
    reset="after" also "layer0.b_n" (H,), the bias inside the candidate's recurrent product (bias="double" has it in
    "layer0.b_h" (3H,)).  The rest is as for `LSTM`.

    >>> gru = lstm_np.GRU(3, 5, reset="before")
    >>> y, h_n = gru(np.ones((2, 4, 3)))
    >>> h_n.shape
    (1, 2, 5)

    Raises OptionError for a value that an option cannot have, BackendError when the backend cannot be used.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        *,
        reset: str = "after",
        num_layers: int = 1,
        bias: bool | str = True,
        bidirectional: bool = False,
        reverse: bool = False,
        merge: str = "concat",
        batch_first: bool = True,
        dropout: float = 0.0,
        dropout_outputs: str = "between",
        dropout_mask: str = "step",
        masked_outputs: str = "zero",
        initializer: str = "keras",
        initial_state: str = "zeros",
        hold: Mapping[str, float] | None = None,
        dtype: Dtype = "float32",
        seed: int = 0,
        kernel: str = "auto",
        backend: str | Backend = "numpy",
    ) -> None:
        self._make("gru_reset_before" if reset == "before" else "gru", options.given(locals()))


@options.documented
class RNN(Recurrent):
    """The plain recurrent layer; the equations are in `lstm_np.cells.rnn` and `lstm_np.cells.rnn_relu`.

    The state is h alone.  params: "layer0.W" (H, D), "layer0.U" (H, H), "layer0.b" (H,) and, with bias="double",
    "layer0.b_h" (H,).  The rest is as for `LSTM`.

    >>> rnn = lstm_np.RNN(3, 5, nonlinearity="relu")
    >>> y, h_n = rnn(np.ones((2, 4, 3)))
    >>> bool((y >= 0).all())
    True

    Raises OptionError for a value that an option cannot have, BackendError when the backend cannot be used.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int | Sequence[int],
        *,
        nonlinearity: str = "tanh",
        num_layers: int = 1,
        bias: bool | str = True,
        bidirectional: bool = False,
        reverse: bool = False,
        merge: str = "concat",
        batch_first: bool = True,
        dropout: float = 0.0,
        dropout_outputs: str = "between",
        dropout_mask: str = "step",
        masked_outputs: str = "zero",
        initializer: str = "keras",
        initial_state: str = "zeros",
        hold: Mapping[str, float] | None = None,
        dtype: Dtype = "float32",
        seed: int = 0,
        kernel: str = "auto",
        backend: str | Backend = "numpy",
    ) -> None:
        self._make("rnn_relu" if nonlinearity == "relu" else "rnn", options.given(locals()))
