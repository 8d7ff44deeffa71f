// What a training step needs behind the recurrent layer and the read-out, so that it never waits for the host: loss and
// correct answers are added up on the device, and the update is one pass over all parameters.
//
// counters  steps made, position in the epoch's order            long long [2]
// totals    sum of losses, correct answers, samples              double [3]
// settings  learning rate, beta1 or momentum, beta2, epsilon     double [4]

enum Rule { PLAIN = 0, MOMENTUM = 1, NESTEROV = 2, ADAM = 3, ADAM_HAT = 4 };

extern "C" __global__ void clear(int count, real* values) {
    const int k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k < count) values[k] = 0;
}

__device__ double power(double base, long long exponent) {
    double result = 1;
    for (; exponent > 0; exponent /= 2, base *= base)
        if (exponent % 2) result *= base;
    return result;
}

// gradient = [dV dv] (K * H, K) from dlogits (B, K) and h (B, H); four warps share the samples.  The first block also
// counts the step and adds up loss and correct answers, and says how far the update goes: coefficients = its size and
// epsilon.  Block (128), grid (ceil((H + 1) / 32), K).
extern "C" __global__ void __launch_bounds__(128)
    read_out_gradient(int B, int H, int K, int rule, const real* h, const real* dlogits, const real* losses,
                      const int* hits, const double* settings, real* gradient, long long* counters, double* totals,
                      real* coefficients) {
    constexpr int WARPS = 4;
    STATIC_SHARED(real, parts, WARPS * WARP);
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, j = blockIdx.x * WARP + lane, k = blockIdx.y;
    real sum = 0;
    for (int b = warp; b < B; b += WARPS)
        if (j <= H) sum += dlogits[(long long)b * K + k] * (j < H ? h[(long long)b * H + j] : real(1));
    parts[threadIdx.x] = sum;
    __syncthreads();
    if (warp == 0 && j <= H) {
        real whole = parts[lane];
        for (int other = 1; other < WARPS; ++other) whole += parts[other * WARP + lane];
        gradient[j < H ? (long long)k * H + j : (long long)K * H + k] = whole;
    }
    if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == WARP) {
        const long long step = ++counters[0];
        counters[1] += B;
        const double lr = settings[0], root = sqrt(1 - power(settings[2], step));
        const bool adam = rule == ADAM || rule == ADAM_HAT;
        coefficients[0] = real(adam ? lr * root / (1 - power(settings[1], step)) : lr);
        coefficients[1] = real(rule == ADAM ? settings[3] * root : settings[3]);
    }
    if (blockIdx.x == 0 && blockIdx.y == 0 && warp == 2) {
        double loss = 0, correct = 0;
        for (int b = lane; b < B; b += WARP) {
            loss += losses[b];
            correct += hits[b];
        }
        loss = sum_over_warp(loss);
        correct = sum_over_warp(correct);
        if (lane == 0) {
            totals[0] += loss;
            totals[1] += correct;
            totals[2] += B;
        }
    }
}

__device__ real sum_over_block(real value, SHARED_POINTER(real) parts) {
    value = sum_over_warp(value);
    if (threadIdx.x % WARP == 0) parts[threadIdx.x / WARP] = value;
    __syncthreads();
    real whole = 0;
    for (int warp = 0; warp < (int)blockDim.x / WARP; ++warp) whole += parts[warp];
    return whole;
}

// The whole gradient: the recurrent layer's parts added up, then the read-out's; norms[block] = its part of the squared
// norm.
extern "C" __global__ void __launch_bounds__(256)
    collect_gradient(int count, int recurrent, int parts, const real* partial, const real* read_out, real* gradient,
                     real* norms) {
    STATIC_SHARED(real, sums, 32);
    const int k = blockIdx.x * blockDim.x + threadIdx.x;
    real g = 0;
    if (k < recurrent)
        for (int part = 0; part < parts; ++part) g += partial[(long long)part * recurrent + k];
    else if (k < count)
        g = read_out[k - recurrent];
    if (k < count) gradient[k] = g;
    const real whole = sum_over_block(g * g, sums);
    if (threadIdx.x == 0) norms[blockIdx.x] = whole;
}

// theta, one thread per parameter: W (4H, D), U (4H, H), b (4H,), then the read-out's.  The gradient is the sum of
// `parts` partial ones, then `read_out`; with norm_blocks > 0 it is scaled so that its norm is at most
// max_norm.  `first` and `second` are the optimizer's moments (`first` the velocity); `transposed` (H, 4H) is U^T
// for the next step.
extern "C" __global__ void __launch_bounds__(256)
    update_parameters(int count, int recurrent, int parts, int norm_blocks, int rule, int D, int H, real max_norm,
                      const real* partial, const real* read_out, const real* norms, const double* settings,
                      const real* coefficients, real* theta, real* first, real* second, real* transposed) {
    STATIC_SHARED(real, sums, 32);
    const int k = blockIdx.x * blockDim.x + threadIdx.x;
    real scale = 1;
    if (norm_blocks > 0) {
        real squares = 0;
        for (int block = threadIdx.x; block < norm_blocks; block += blockDim.x) squares += norms[block];
        const real norm = sqrt_of(sum_over_block(squares, sums));
        scale = max_norm / (norm > max_norm ? norm : max_norm);
    }
    if (k >= count) return;
    real g = 0;
    if (k < recurrent)
        for (int part = 0; part < parts; ++part) g += partial[(long long)part * recurrent + k];
    else
        g = read_out[k - recurrent];
    g *= scale;
    const real size = coefficients[0];
    real step;
    if (rule == ADAM || rule == ADAM_HAT) {
        const real m = first[k] * real(settings[1]) + g * real(1 - settings[1]);
        const real v = second[k] * real(settings[2]) + g * g * real(1 - settings[2]);
        first[k] = m;
        second[k] = v;
        step = m / (sqrt_of(v) + coefficients[1]) * size;
    } else if (rule == PLAIN) {
        step = g * size;
    } else {
        const real momentum = real(settings[1]), velocity = first[k] * momentum + g;
        first[k] = velocity;
        step = (rule == NESTEROV ? velocity * momentum + g : velocity) * size;
    }
    const real updated = theta[k] - step;
    theta[k] = updated;
    const int in_U = k - 4 * H * D;
    if (in_U >= 0 && in_U < 4 * H * H) transposed[in_U % H * 4 * H + in_U / H] = updated;
}
