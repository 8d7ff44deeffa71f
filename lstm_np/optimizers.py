"""Optimizers: they update parameters in place, as a few passes over one flat vector.

The argument names are PyTorch's.  Where systems that share a name compute different things, `form` chooses.

    SGD      v = momentum v + g;      theta -= lr v                            (Nesterov: theta -= lr (g + momentum v))
    Adam     m = b1 m + (1-b1) g,     v = b2 v + (1-b2) g^2,   after step t:
             "paper"  theta -= lr mhat / (sqrt(vhat) + eps)      mhat = m/(1-b1^t), vhat = v/(1-b2^t); PyTorch
             "hat"    theta -= lr sqrt(1-b2^t)/(1-b1^t) m / (sqrt(v) + eps)     TensorFlow 1, Keras
    RMSProp  s = alpha s + (1-alpha) g^2
             "torch"  theta -= lr g / (sqrt(s) + eps)            s starts at 0
             "keras"  theta -= lr g / sqrt(s + eps)              s starts at 0
             "tf1"    theta -= lr g / sqrt(s + eps)              s starts at 1

With `weight_decay` w, before all of that, of every parameter (biases too, as in PyTorch):

    AdamW    theta -= lr w theta                                (decoupled: no moment sees it)
    others   g += w theta                                       (the gradient of a penalty w/2 |theta|^2, L2)

Sources: Polyak, 1964; Nesterov, 1983, in the form of Sutskever et al., ICML 2013 as PyTorch writes it; Kingma and Ba,
"Adam", ICLR 2015 (Algorithm 1, and the "hat" form at the end of its section 2); Tieleman and Hinton, 2012;
Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019 (Algorithm 2, in the form of PyTorch).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from lstm_np.arrays import Array
from lstm_np.backends import as_numbers
from lstm_np.options import check_bool, check_count
from lstm_np.parameters import Parameters

_DERIVED = ("xp", "_layout", "_fitting", "_gathered")  # of an optimizer: made anew from its parameters


def global_norm(grads: Parameters) -> Array:
    """The norm of all gradients together, 0-dimensional; nothing waits for a device.

    The squares are summed in the gradients' dtype: inf where they overflow it.
    """
    return grads.xp.sqrt(grads.backend.squared_norm(grads.flat))


def clip_by_global_norm(grads: Parameters, max_norm: float, norm: Array | None = None) -> Array:
    """Scale all gradients so that the norm of them together is at most `max_norm`; the norm before, 0-dimensional.

    `norm` is their `global_norm` where it is known already.  In place; nothing waits for a device.
    Source: Pascanu, Mikolov and Bengio, ICML 2013.
    """
    norm = global_norm(grads) if norm is None else norm
    grads.flat *= max_norm / grads.xp.maximum(norm, max_norm)
    return norm


class Optimizer(ABC):
    """Base class of the optimizers: the parameters, the step count, and slots of the parameters' length.

    params  a `Parameters`, such as `model.params`; `step` updates it in place
    lr      learning rate, may be changed between steps
    weight_decay  w of the module's formulae; 0: none
    steps   updates made so far
    slots   what is gathered from step to step, by name: vectors in the order and dtype of `params.flat`

    A model and its optimizer that are copied or pickled together, `copy.deepcopy((model, optimizer))`, belong together
    as before; an optimizer that is copied alone updates a copy of the parameters.

    >>> model = lstm_np.SequenceClassifier(3, 8, 2)
    >>> optimizer = lstm_np.Adam(model.params, lr=0.01)
    >>> optimizer.lr /= 2
    >>> optimizer.lr, optimizer.steps, sorted(optimizer.slots)
    (0.005, 0, ['m', 'v'])

    Raises ValueError for a hyper-parameter outside its range, TypeError when params is not a `Parameters`.
    """

    settings: tuple[str, ...] = ()  # what a kind of optimizer has besides lr and weight_decay, as `repr` shows it
    decoupled = False  # whether weight decay acts on the parameters themselves instead of their gradient

    def __init__(self, params: Parameters, lr: float, slots: tuple[str, ...], weight_decay: float = 0.0) -> None:
        if not isinstance(params, Parameters):
            raise TypeError(f"an optimizer takes a layer's or model's params, found {type(params).__name__}")
        self.params, self.xp, self.lr, self.steps = params, params.xp, lr, 0
        self.weight_decay = _check("weight_decay", weight_decay, 0.0, None)
        self.slots = {name: params.empty_vector() for name in slots}
        for slot in self.slots.values():
            slot[...] = 0
        self._layout = _layout(params)
        self._fitting: Parameters | None = None  # gradients whose names and shapes, which are fixed, were compared
        self._gathered: Parameters | None = None

    @property
    def lr(self) -> float:
        """The learning rate.  Raises ValueError for one that is no finite number of at least 0."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        """Checked and kept as a Python float."""
        self._lr = _check("lr", value, 0.0, None)

    def arguments(self) -> dict[str, Any]:
        """What it was made with, and the learning rate as it is now, by name; weight_decay where it is not 0.

        >>> lstm_np.SGD(lstm_np.LSTM(2, 3).params, lr=0.1, weight_decay=1e-4).arguments()
        {'lr': 0.1, 'momentum': 0.0, 'nesterov': False, 'weight_decay': 0.0001}
        """
        named = ("lr", *self.settings, *(("weight_decay",) if self.weight_decay else ()))
        return {name: getattr(self, name) for name in named}

    def __repr__(self) -> str:
        said = ", ".join(f"{name}={value!r}" for name, value in self.arguments().items())
        return f"{type(self).__name__}({said}) over {self.params.flat.shape[0]:,} values, {self.steps:,} steps made"

    def __getstate__(self) -> dict[str, Any]:
        slots = {name: self.params.like(vector) for name, vector in self.slots.items()}
        return {name: value for name, value in vars(self).items() if name not in _DERIVED} | {"slots": slots}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.slots = {name: like.flat for name, like in state["slots"].items()}
        self.weight_decay = state.get("weight_decay", 0.0)  # of a pickle from before there was one
        self.xp, self._layout = self.params.xp, _layout(self.params)
        self._fitting = self._gathered = None

    def step(self, grads: Mapping[str, Array]) -> None:
        """One update from gradients with the names and shapes of `params`.

        >>> layer = lstm_np.LSTM(2, 3)
        >>> optimizer = lstm_np.SGD(layer.params, lr=0.1)
        >>> y, _, cache = layer.forward(np.ones((4, 5, 2)))
        >>> _, _, grads = layer.backward(cache, np.ones_like(y))
        >>> optimizer.step(grads)
        >>> optimizer.steps
        1

        Raises ValueError when names or shapes differ; the parameters and `steps` are then as they were.
        """
        vectors = self.params.flat, self._flat(grads), *self.slots.values()
        self.steps += 1
        if not self.weight_decay:
            self.params.backend.sweep(self._update, self._constants(), *vectors)
            return
        decay = 1 - self.lr * self.weight_decay if self.decoupled else self.weight_decay
        self.params.backend.sweep(self._decay_and_update, (decay, *self._constants()), *vectors)

    def _decay_and_update(self, constants: Sequence[Array], s: Array, theta: Array, g: Array, *slots: Array) -> None:
        """As `_update`, with weight decay before it; the gradients themselves stay as they are."""
        decay, *own = constants
        if self.decoupled:
            theta *= decay
        else:
            g = g + decay * theta
        self._update(own, s, theta, g, *slots)

    def _flat(self, grads: Mapping[str, Array]) -> Array:
        if self._fitting is not None and grads is self._fitting:
            return self._fitting.flat
        if _layout(grads) != self._layout:
            backend = self.params.backend  # lists are arrays too
            grads = {name: as_numbers(backend, grad, f"the gradient of {name}") for name, grad in grads.items()}
            if _layout(grads) != self._layout:
                self._refuse(grads)
        if isinstance(grads, Parameters):
            self._fitting = grads
            return grads.flat
        if self._gathered is None:
            self._gathered = self.params.empty_like()
        self._gathered.update(grads)
        return self._gathered.flat

    def _refuse(self, grads: Mapping[str, Array]) -> None:
        """Say in which way gradients are not those of the parameters."""
        if list(grads) != list(self.params):
            raise ValueError(f"gradients must be named {', '.join(self.params)}; found {', '.join(grads)}")
        for (name, found), (_, shape) in zip(_layout(grads), self._layout, strict=True):
            if found != shape:
                raise ValueError(f"the gradient of {name} must have shape {shape}, found {found}")

    def state(self) -> dict[str, Any]:
        """What training has changed: "lr", "steps", and "slots": for each slot its part of every parameter, by name.

        NumPy arrays of their own and plain values: {"lr": 0.001, "steps": 7, "slots": {"m": {"layer0.W": ...}, ...}}.

        >>> lstm_np.SGD(lstm_np.LSTM(2, 3).params, lr=0.1).state()
        {'lr': 0.1, 'steps': 0, 'slots': {}}
        """
        slots = {slot: self.params.like(vector).to_host() for slot, vector in self.slots.items()}
        return {"lr": self.lr, "steps": self.steps, "slots": slots}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, of an optimizer of this kind over parameters of these names and shapes.

        Values are converted to the dtype of `params`.

        >>> params = lstm_np.LSTM(2, 3).params
        >>> optimizer, other = lstm_np.Adam(params), lstm_np.Adam(params, lr=0.5)
        >>> other.restore(optimizer.state())
        >>> other.lr
        0.001

        Raises ValueError, and changes nothing, for any other state.
        """
        own = type(self).__name__
        slots = _part(state, "slots", own)
        if set(slots) != set(self.slots):
            found = ", ".join(slots) or "none"
            raise ValueError(f"{own} keeps {', '.join(self.slots) or 'no slots'}; the state to restore has {found}")
        for slot, arrays in slots.items():
            if set(arrays) != set(self.params):
                raise ValueError(f"slot {slot} must have {', '.join(self.params)}; found {', '.join(arrays)}")
            for name, array in self.params.items():
                if tuple(arrays[name].shape) != tuple(array.shape):
                    raise ValueError(f"{name} of slot {slot} must have shape {array.shape}, found {arrays[name].shape}")
        lr = _check("lr", _part(state, "lr", own), 0.0, None)
        steps = check_count("steps", _part(state, "steps", own), 0)
        backend, dtype = self.params.backend, self.params.flat.dtype
        for slot, vector in self.slots.items():
            self.params.like(vector).update(
                {name: backend.from_host(array.astype(dtype)) for name, array in slots[slot].items()}
            )
        self.lr, self.steps = lr, steps

    @abstractmethod
    def _constants(self) -> tuple[float, ...]:
        """What `_update` needs of this step's numbers."""

    @abstractmethod
    def _update(self, constants: Sequence[Array], s: Array, theta: Array, g: Array, *slots: Array) -> None:
        """Theta and the slots, in place, from the gradient g, all pieces of one length; s is scratch of that length."""


class SGD(Optimizer):
    """Stochastic gradient descent.

    momentum  0 for plain SGD; the first step's velocity is the gradient itself (PyTorch)
    nesterov  look ahead along the velocity; needs momentum > 0
    weight_decay  L2: w theta is added to the gradient

    >>> lstm_np.SGD(lstm_np.LSTM(2, 3).params, lr=0.1, momentum=0.9)
    SGD(lr=0.1, momentum=0.9, nesterov=False) over 72 values, 0 steps made
    """

    settings = ("momentum", "nesterov")

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        *,
        momentum: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
    ) -> None:
        momentum = _check("momentum", momentum, 0.0, 1.0)
        nesterov = check_bool("nesterov", nesterov)
        if nesterov and momentum == 0:
            raise ValueError("nesterov needs momentum > 0")
        super().__init__(params, lr, ("velocity",) if momentum else (), weight_decay)
        self.momentum, self.nesterov = momentum, nesterov

    def _constants(self) -> tuple[float, ...]:
        return self.lr, self.momentum

    def _update(self, constants: Sequence[Array], s: Array, theta: Array, g: Array, *slots: Array) -> None:
        xp, (lr, momentum) = self.xp, constants
        if not slots:
            xp.multiply(g, lr, out=s)
            theta -= s
            return
        (v,) = slots
        v *= momentum
        v += g
        if self.nesterov:
            xp.multiply(v, momentum, out=s)
            s += g
            s *= lr
        else:
            xp.multiply(v, lr, out=s)
        theta -= s


class Adam(Optimizer):
    """Adaptive moments; `form` is "paper" (PyTorch) or "hat" (TensorFlow 1, Keras: eps before bias correction).

    betas  decay of the two moments
    eps    1e-8 by default; Keras uses 1e-7
    weight_decay  L2: w theta is added to the gradient, so both moments see it; `AdamW` has the decoupled kind

    >>> lstm_np.Adam(lstm_np.LSTM(2, 3).params, lr=3e-4)
    Adam(lr=0.0003, betas=(0.9, 0.999), eps=1e-08, form='paper') over 72 values, 0 steps made
    """

    forms = ("paper", "hat")
    settings = ("betas", "eps", "form")

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        form: str = "paper",
        weight_decay: float = 0.0,
    ) -> None:
        if not isinstance(betas, (tuple, list)) or len(betas) != 2:
            raise ValueError(f"betas must be two numbers, found {betas!r}")
        betas = (_check("betas[0]", betas[0], 0.0, 1.0), _check("betas[1]", betas[1], 0.0, 1.0))
        eps = _check("eps", eps, 0.0, None)
        if form not in self.forms:
            raise ValueError(f"unknown form of Adam {form!r}; there are: {', '.join(self.forms)}")
        super().__init__(params, lr, ("m", "v"), weight_decay)
        self.betas, self.eps, self.form = betas, eps, form

    def _constants(self) -> tuple[float, ...]:
        (b1, b2), t = self.betas, self.steps
        # both forms are  theta -= size * m / (sqrt(v) + eps'): dividing vhat's root out of "paper" leaves eps' below
        root = (1 - b2**t) ** 0.5
        eps, size = self.eps * root if self.form == "paper" else self.eps, self.lr * root / (1 - b1**t)
        return b1, 1 - b1, b2, 1 - b2, eps, size

    def _update(self, constants: Sequence[Array], s: Array, theta: Array, g: Array, *slots: Array) -> None:
        xp, (m, v), (b1, rest1, b2, rest2, eps, size) = self.xp, slots, constants
        m *= b1
        xp.multiply(g, rest1, out=s)
        m += s
        v *= b2
        xp.multiply(g, g, out=s)
        s *= rest2
        v += s
        xp.sqrt(v, out=s)
        s += eps
        xp.divide(m, s, out=s)
        s *= size
        theta -= s


class AdamW(Adam):
    """Adam with decoupled weight decay: before each step theta -= lr weight_decay theta, which no moment sees.

    weight_decay  0.01 by default, as in PyTorch; Keras uses 0.004
    others        as those of `Adam`

    >>> lstm_np.AdamW(lstm_np.LSTM(2, 3).params)
    AdamW(lr=0.001, betas=(0.9, 0.999), eps=1e-08, form='paper', weight_decay=0.01) over 72 values, 0 steps made
    """

    decoupled = True

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-3,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        form: str = "paper",
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas=betas, eps=eps, form=form, weight_decay=weight_decay)


class RMSProp(Optimizer):
    """Root-mean-square propagation; `form` is "torch", "keras" or "tf1" (see the module's formulae).

    alpha     decay of the mean square (PyTorch 0.99; Keras and TensorFlow 1 use 0.9)
    momentum  of the scaled gradient, 0 for none
    weight_decay  L2: w theta is added to the gradient

    >>> lstm_np.RMSProp(lstm_np.LSTM(2, 3).params)
    RMSProp(lr=0.01, alpha=0.99, eps=1e-08, momentum=0.0, form='torch') over 72 values, 0 steps made
    """

    forms = ("torch", "keras", "tf1")
    settings = ("alpha", "eps", "momentum", "form")

    def __init__(
        self,
        params: Parameters,
        lr: float = 1e-2,
        *,
        alpha: float = 0.99,
        eps: float = 1e-8,
        momentum: float = 0.0,
        form: str = "torch",
        weight_decay: float = 0.0,
    ) -> None:
        alpha, eps = _check("alpha", alpha, 0.0, 1.0), _check("eps", eps, 0.0, None)
        momentum = _check("momentum", momentum, 0.0, 1.0)
        if form not in self.forms:
            raise ValueError(f"unknown form of RMSProp {form!r}; there are: {', '.join(self.forms)}")
        super().__init__(params, lr, ("mean_square", "velocity") if momentum else ("mean_square",), weight_decay)
        self.alpha, self.eps, self.momentum, self.form = alpha, eps, momentum, form
        if form == "tf1":
            self.slots["mean_square"] += 1

    def _constants(self) -> tuple[float, ...]:
        return self.lr, self.alpha, 1 - self.alpha, self.eps, self.momentum

    def _update(self, constants: Sequence[Array], s: Array, theta: Array, g: Array, *slots: Array) -> None:
        xp, (square, *velocity), (lr, alpha, rest, eps, momentum) = self.xp, slots, constants
        square *= alpha
        xp.multiply(g, g, out=s)
        s *= rest
        square += s
        if self.form == "torch":
            xp.sqrt(square, out=s)
            s += eps
        else:
            xp.add(square, eps, out=s)
            xp.sqrt(s, out=s)
        xp.divide(g, s, out=s)
        if self.form == "torch":  # the velocity gathers steps without lr, the others' with it
            _gather(s, momentum, *velocity)
            s *= lr
        else:
            s *= lr
            _gather(s, momentum, *velocity)
        theta -= s


def _gather(s: Array, momentum: Array, *velocity: Array) -> None:
    """v = momentum v + s, and s = v; without a velocity s stays."""
    for v in velocity:
        v *= momentum
        v += s
        s[...] = v


OPTIMIZERS: dict[str, type[Optimizer]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW, "rmsprop": RMSProp}


def check_optimizer(optimizer: Optimizer, params: Parameters) -> None:
    """Raises ValueError unless the optimizer was made over these very parameters, TypeError for no optimizer at all."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be one such as lstm_np.Adam(model.params, lr=1e-3), found {optimizer!r}")
    if optimizer.params is not params:
        raise ValueError(
            "this optimizer updates other parameters than this model's (another model's, or those of one that was "
            f"copied or loaded since): make it anew, {type(optimizer).__name__}(model.params, ...)"
        )


def check_clip_norm(clip_norm: float | None) -> None:
    """Raises ValueError unless `clip_norm` is None or a finite number above 0."""
    if clip_norm is None:
        return
    if isinstance(clip_norm, bool) or not (isinstance(clip_norm, Real) and 0 < clip_norm < math.inf):
        raise ValueError(f"clip_norm must be a finite number above 0, or None for no clipping; found {clip_norm!r}")


def _layout(arrays: Mapping[str, Array]) -> list[tuple[str, tuple[int, ...] | None]]:
    """Names and shapes, in order."""
    return [(name, getattr(array, "shape", None)) for name, array in arrays.items()]


def _part(state: Mapping[str, Any], name: str, owner: str) -> Any:
    if name not in state:
        raise ValueError(f"the state of {owner} needs {name!r}; found {', '.join(map(str, state)) or 'nothing'}")
    return state[name]


def _check(name: str, value: Any, low: float, below: float | None) -> float:
    """`value`, Python's or NumPy's, as a Python float.  Raises ValueError for what is no number in the range."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise ValueError(f"{name} must be a number, found {value!r}")
    number = float(value)
    if not number >= low or (below is not None and not number < below) or number == math.inf:
        limit = f"at least {low:g}" + ("" if below is None else f" and below {below:g}")
        raise ValueError(f"{name} must be {limit}, found {value!r}")
    return number
