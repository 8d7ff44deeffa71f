// What training and inference share around the recurrent layer: a batch from a data set on the device, and the read-out
// of its last output, z = V h + v, with p = softmax(z).

// x (T, B, D), this block's sample of it, = scale * a row (T * D) of the data set.
template <class Value>
__device__ __forceinline__ void gather(int B, int T, int D, real scale, const Value* data, int sample, real* x) {
    const int b = blockIdx.x;
    const Value* row = data + (long long)sample * T * D;
    for (int k = threadIdx.x; k < T * D; k += blockDim.x)
        x[((long long)(k / D) * B + b) * D + k % D] = real(row[k]) * scale;
}

// The samples that `order` names from the position counters[1] on, and their labels; data (N, T * D).  Grid (B).
template <class Value>
__device__ __forceinline__ void gather_ordered(int B, int T, int D, real scale, const Value* data, const int* labels,
                                               const int* order, const long long* counters, real* x,
                                               int* batch_labels) {
    const int sample = order[counters[1] + blockIdx.x];
    gather(B, T, D, scale, data, sample, x);
    if (threadIdx.x == 0) batch_labels[blockIdx.x] = labels[sample];
}

extern "C" __global__ void gather_batch(int B, int T, int D, real scale, const unsigned char* data, const int* labels,
                                        const int* order, const long long* counters, real* x, int* batch_labels) {
    gather_ordered(B, T, D, scale, data, labels, order, counters, x, batch_labels);
}

extern "C" __global__ void gather_batch_of_values(int B, int T, int D, real scale, const real* data, const int* labels,
                                                  const int* order, const long long* counters, real* x,
                                                  int* batch_labels) {
    gather_ordered(B, T, D, scale, data, labels, order, counters, x, batch_labels);
}

// The samples from `first` on.  Grid (B).
extern "C" __global__ void gather_range(int B, int T, int D, real scale, int first, const unsigned char* data, real* x) {
    gather(B, T, D, scale, data, first + blockIdx.x, x);
}

extern "C" __global__ void gather_range_of_values(int B, int T, int D, real scale, int first, const real* data,
                                                  real* x) {
    gather(B, T, D, scale, data, first + blockIdx.x, x);
}

// log p = z - largest - log_total; the guess is the class of the largest z, the first of equal ones.
struct Scores {
    real largest, log_total;
    int guess;
};

// z of one sample, in shared memory, and what its softmax needs; h is the sample's own row.
__device__ __forceinline__ Scores score(int H, int K, const real* h, const real* V, const real* v,
                                        SHARED_POINTER(real) h_T, SHARED_POINTER(real) z) {
    const int thread = threadIdx.x, threads = blockDim.x;
    for (int j = thread; j < H; j += threads) h_T[j] = h[j];
    __syncthreads();
    for (int k = thread / WARP; k < K; k += threads / WARP) {
        real sum = 0;
        for (int j = thread % WARP; j < H; j += WARP) sum += V[(long long)k * H + j] * h_T[j];
        sum = sum_over_warp(sum);
        if (thread % WARP == 0) z[k] = sum + v[k];
    }
    __syncthreads();
    Scores s = {z[0], 0, 0};
    for (int k = 1; k < K; ++k) {
        const real z_k = z[k];
        if (z_k > s.largest) {
            s.largest = z_k;
            s.guess = k;
        }
    }
    real total = 0;
    for (int k = 0; k < K; ++k) total += exp_of(z[k] - s.largest);
    s.log_total = log_of(total);
    return s;
}

// Read-out, softmax cross-entropy and their gradients for one sample per block: loss = -log p[label],
// dz = (p - onehot) / B, dh = V^T dz.  Shared memory: H + 2 K numbers.  Grid (B).
extern "C" __global__ void read_out(int B, int H, int K, const real* h, const real* V, const real* v, const int* labels,
                                    real* dlogits, real* dh, real* losses, int* hits) {
    DYNAMIC_SHARED(real, pool);
    const auto h_T = pool, z = pool + H, dz = pool + H + K;
    const int b = blockIdx.x, thread = threadIdx.x, threads = blockDim.x, label = labels[b];
    const Scores s = score(H, K, h + (long long)b * H, V, v, h_T, z);
    for (int k = thread; k < K; k += threads) {
        real p = exp_of(z[k] - s.largest - s.log_total);
        if (k == label) {  // p - 1 without a difference of nearly equal numbers, as in losses.py
            p = 0;
            for (int other = 0; other < K; ++other)
                if (other != label) p -= exp_of(z[other] - s.largest - s.log_total);
        }
        const real d = p / real(B);
        dz[k] = d;
        dlogits[(long long)b * K + k] = d;
    }
    if (thread == 0) {
        losses[b] = -(z[label] - s.largest - s.log_total);
        hits[b] = s.guess == label;
    }
    __syncthreads();
    for (int j = thread; j < H; j += threads) {
        real sum = 0;
        for (int k = 0; k < K; ++k) sum += V[(long long)k * H + j] * dz[k];
        dh[(long long)b * H + j] = sum;
    }
}

// p (N, K), the guess and, when has_labels, the loss of the samples from `first` on, one per block; h (B, H) is that of
// the batch, labels, losses and guesses (N) are those of the data set.  Shared memory: H + K numbers.  Grid (B).
extern "C" __global__ void classify(int H, int K, int first, int has_labels, const real* h, const real* V, const real* v,
                                    const int* labels, real* probabilities, real* losses, int* guesses) {
    DYNAMIC_SHARED(real, pool);
    const auto h_T = pool, z = pool + H;
    const int b = blockIdx.x, thread = threadIdx.x;
    const long long sample = (long long)first + b;
    const Scores s = score(H, K, h + (long long)b * H, V, v, h_T, z);
    for (int k = thread; k < K; k += blockDim.x)
        probabilities[sample * K + k] = exp_of(z[k] - s.largest - s.log_total);
    if (thread == 0) {
        guesses[sample] = s.guess;
        if (has_labels) losses[sample] = -(z[labels[sample]] - s.largest - s.log_total);
    }
}
