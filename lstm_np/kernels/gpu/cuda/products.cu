// Matrix products of our own: unlike cuBLAS under CuPy they can be captured in a graph, and they write where they
// should.  A block computes a tile of BM x BN, a thread 8 x 4 of it; the next tiles of A and B are fetched while these
// are used.  Sums are always in the same order: results are the same bits in every run.

constexpr int BK = 8;
constexpr int BLOCKS = sizeof(real) == 4 ? 8 : 4;  // of the small products that a multiprocessor should hold at once

// out(m, n, sum over k in [k_begin, k_end) of a(m, k) b(k, n)) for m < M, n < N.  A_ALONG_K: neighbouring k of one m
// are neighbours in memory (else neighbouring m of one k), likewise B_ALONG_K; it decides which thread fetches what.
template <int BM, int BN, bool A_ALONG_K, bool B_ALONG_K, class A, class B, class Out>
__device__ __forceinline__ void product_tile(int M, int N, int k_begin, int k_end, A a, B b, Out out) {
    constexpr int THREADS = BM / 8 * (BN / 4), A_EACH = BM * BK / THREADS, B_EACH = BN * BK / THREADS;
    constexpr int A_ROW = BM + 4, B_ROW = BN + 4;  // padded against bank conflicts
    STATIC_SHARED(real, a_tiles, 2 * BK * A_ROW);
    STATIC_SHARED(real, b_tiles, 2 * BK * B_ROW);
    const int thread = threadIdx.x, across = thread % (BN / 4) * 4, down = thread / (BN / 4) * 4;
    const int m0 = blockIdx.x * BM, n0 = blockIdx.y * BN;
    real a_next[A_EACH], b_next[B_EACH], sums[8][4];
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = 0;

    const auto fetch = [&](int k0) {
#pragma unroll
        for (int e = 0; e < A_EACH; ++e) {
            const int at = e * THREADS + thread, k = k0 + (A_ALONG_K ? at % BK : at / BM);
            const int m = m0 + (A_ALONG_K ? at / BK : at % BM);
            a_next[e] = m < M && k < k_end ? a(m, k) : real(0);
        }
#pragma unroll
        for (int e = 0; e < B_EACH; ++e) {
            const int at = e * THREADS + thread, k = k0 + (B_ALONG_K ? at % BK : at / BN);
            const int n = n0 + (B_ALONG_K ? at / BK : at % BN);
            b_next[e] = n < N && k < k_end ? b(k, n) : real(0);
        }
    };
    const auto store = [&](int buffer) {
#pragma unroll
        for (int e = 0; e < A_EACH; ++e) {
            const int at = e * THREADS + thread, k = A_ALONG_K ? at % BK : at / BM, m = A_ALONG_K ? at / BK : at % BM;
            a_tiles[(buffer * BK + k) * A_ROW + m] = a_next[e];
        }
#pragma unroll
        for (int e = 0; e < B_EACH; ++e) {
            const int at = e * THREADS + thread, k = B_ALONG_K ? at % BK : at / BN, n = B_ALONG_K ? at / BK : at % BN;
            b_tiles[(buffer * BK + k) * B_ROW + n] = b_next[e];
        }
    };

    fetch(k_begin);
    store(0);
    __syncthreads();
    int buffer = 0;
    for (int k0 = k_begin; k0 < k_end; k0 += BK) {
        const bool more = k0 + BK < k_end;
        if (more) fetch(k0 + BK);
#pragma unroll 4
        for (int k = 0; k < BK; ++k) {
            const int a_at = (buffer * BK + k) * A_ROW + down, b_at = (buffer * BK + k) * B_ROW + across;
            const Quad<real> upper = quad(a_tiles, a_at), lower = quad(a_tiles, a_at + BM / 2);
            const Quad<real> right = quad(b_tiles, b_at);
#pragma unroll
            for (int i = 0; i < 4; ++i)
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    sums[i][j] += upper.v[i] * right.v[j];
                    sums[4 + i][j] += lower.v[i] * right.v[j];
                }
        }
        if (more) store(1 - buffer);
        __syncthreads();
        buffer = 1 - buffer;
    }
#pragma unroll
    for (int i = 0; i < 8; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) {
            const int m = m0 + (i < 4 ? down + i : BM / 2 + down + i - 4), n = n0 + across + j;
            if (m < M && n < N) out(m, n, sums[i][j]);
        }
}

// c (M, N) = or, if `add`, += a (M, K) b^T, b (N, K).  Grid (ceil(M / 64), ceil(N / 32)).
extern "C" __global__ void __launch_bounds__(64, BLOCKS)
    product_transposed(int M, int N, int K, int add, const real* a, const real* b, real* c) {
    product_tile<64, 32, true, true>(
        M, N, 0, K, [=](int m, int k) { return a[(long long)m * K + k]; },
        [=](int k, int n) { return b[(long long)n * K + k]; },
        [=](int m, int n, real sum) {
            real& out = c[(long long)m * N + n];
            out = add ? out + sum : sum;
        });
}

// c (M, N) = or, if `add`, += a (M, K) b (K, N).  Grid (ceil(M / 64), ceil(N / 32)).
extern "C" __global__ void __launch_bounds__(64, BLOCKS)
    product_plain(int M, int N, int K, int add, const real* a, const real* b, real* c) {
    product_tile<64, 32, true, false>(
        M, N, 0, K, [=](int m, int k) { return a[(long long)m * K + k]; },
        [=](int k, int n) { return b[(long long)k * N + n]; },
        [=](int m, int n, real sum) {
            real& out = c[(long long)m * N + n];
            out = add ? out + sum : sum;
        });
}

// [dW dU db] = da^T [x h 1], summed over the rows (steps and samples) of one part of them; the parts are blockIdx.z.
// da (rows, 4H), x (rows, D), h (rows, H); partial (parts, P), P = 4H (D + H + 1), holds dW, dU, db one after another.
// Grid (ceil(4H / 128), ceil((D + H + 1) / 64), parts).
extern "C" __global__ void __launch_bounds__(256)
    weight_gradient(int rows, int rows_per_part, int D, int H, const real* da, const real* x, const real* h,
                    real* partial) {
    const int M = 4 * H, N = D + H + 1, begin = blockIdx.z * rows_per_part;
    const int end = begin + rows_per_part < rows ? begin + rows_per_part : rows;
    real* part = partial + (long long)blockIdx.z * M * N;
    product_tile<128, 64, false, false>(
        M, N, begin, end, [=](int m, int k) { return da[(long long)k * M + m]; },
        [=](int k, int n) {
            return n < D ? x[(long long)k * D + n] : n < D + H ? h[(long long)k * H + n - D] : real(1);
        },
        [=](int m, int n, real sum) {
            const long long at = n < D       ? (long long)m * D + n
                                 : n < D + H ? (long long)M * D + (long long)m * H + n - D
                                             : (long long)M * (D + H) + m;
            part[at] = sum;
        });
}
