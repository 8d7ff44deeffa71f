// A whole sequence in one launch.  A block owns SAMPLES samples for all time steps and needs no other block: the
// recurrent weights stay in its registers and shared memory, and one __syncthreads per step is the only barrier.
//
// Both directions are the same product, sums = M v: forward M = U (4H, H), v = h, four sums per unit; backward M = U^T
// (H, 4H), v = da, one sum per unit.  LANES neighbouring threads share the rows of UNITS units; each takes every
// LANES-th chunk of four columns.  A quad is four neighbouring weights of one row; of a lane's quads, chunk by chunk, the
// first KEPT lie in registers, the rest in shared memory.  Chunks with quads there are used between the others, so that
// their loads overlap multiply-adds.  The partial sums are then added up over the lanes by halving: each lane gives half
// of what it has away, until it holds its own unit's sums.  The launch plan (launch_plan.py) chooses the numbers.

constexpr int H = LSTM_H;

enum ChunkOrder { SPREAD = 0, REGISTERS_FIRST = 1 };
#ifndef CHUNK_ORDER  // the other one is there to be measured
#define CHUNK_ORDER SPREAD
#endif

template <int VALUES_, int K_, int LANES_, int UNITS_, int KEPT_, int THREADS_, int SAMPLES_>
struct Tiling {
    static constexpr int VALUES = VALUES_, K = K_, LANES = LANES_, UNITS = UNITS_;
    static constexpr int THREADS = THREADS_, SAMPLES = SAMPLES_;
    static constexpr int CHUNKS = (K + 4 * LANES - 1) / (4 * LANES);
    static constexpr int PADDED = CHUNKS * 4 * LANES;  // length of v in shared memory, zeros behind K
    static constexpr int ROWS = UNITS * VALUES;
    static constexpr int KEPT = KEPT_ < CHUNKS * ROWS ? KEPT_ : CHUNKS * ROWS;
    static constexpr int ITEMS = UNITS * SAMPLES;  // of one lane group: item = sample * UNITS + unit
    static constexpr int MINE = ITEMS > LANES ? ITEMS / LANES : 1;  // items left to each lane after adding up
    static constexpr int SHARED_WEIGHTS = (CHUNKS * ROWS - KEPT) * 4 * THREADS;
    static constexpr int VECTOR = SAMPLES * PADDED;  // one of the two buffers of v
};

typedef Tiling<4, H, FORWARD_LANES, FORWARD_UNITS, FORWARD_KEPT, FORWARD_THREADS, FORWARD_SAMPLES> Forward;
typedef Tiling<1, 4 * H, BACKWARD_LANES, BACKWARD_UNITS, BACKWARD_KEPT, BACKWARD_THREADS, BACKWARD_SAMPLES> Backward;

// The place of this thread: its lane in the group, the group's first unit, and the items it holds after adding up.
template <class M>
struct Place {
    int lane, first_unit, first_item;
    bool owner;  // of several lanes that end with the same item, the one that writes

    __device__ __forceinline__ Place() {
        lane = threadIdx.x % M::LANES;
        first_unit = threadIdx.x / M::LANES * M::UNITS;
        first_item = 0;
        owner = true;
        int items = M::ITEMS;
        for (int offset = 1; offset < M::LANES; offset *= 2) {
            if (items > 1) {
                items /= 2;
                if (lane & offset) first_item += items;
            } else if (lane & offset) {
                owner = false;
            }
        }
    }
    __device__ __forceinline__ int unit(int mine) const { return first_unit + (first_item + mine) % M::UNITS; }
    __device__ __forceinline__ int sample(int mine) const { return (first_item + mine) / M::UNITS; }
};

template <class M>
struct Weights {
    real kept[M::KEPT * 4];

    __device__ __forceinline__ static real entry(const real* matrix, int row_unit, int value, int column) {
        const bool inside = row_unit < H && column < M::K;
        return inside ? matrix[(long long)(value * H + row_unit) * M::K + column] : real(0);
    }

    __device__ __forceinline__ static Quad<real> chunk(const real* matrix, int row_unit, int value, int column) {
        if constexpr (M::K % 4 == 0) {
            if (row_unit < H && column < M::K) return quad(matrix + (long long)(value * H + row_unit) * M::K, column);
            return {{0, 0, 0, 0}};
        } else {
            return {{entry(matrix, row_unit, value, column), entry(matrix, row_unit, value, column + 1),
                     entry(matrix, row_unit, value, column + 2), entry(matrix, row_unit, value, column + 3)}};
        }
    }

    __device__ __forceinline__ void load(const real* matrix, const Place<M>& place, SHARED_POINTER(real) shared) {
#pragma unroll
        for (int r = 0; r < M::ROWS; ++r) {
            const int unit = place.first_unit + r / M::VALUES, value = r % M::VALUES;
            const int in_registers = (M::KEPT + M::ROWS - 1 - r) / M::ROWS;  // quads of this row
#pragma unroll
            for (int c = 0; c < in_registers; ++c) {
                const Quad<real> q = chunk(matrix, unit, value, (c * M::LANES + place.lane) * 4);
#pragma unroll
                for (int e = 0; e < 4; ++e) kept[(c * M::ROWS + r) * 4 + e] = q.v[e];
            }
            for (int c = in_registers; c < M::CHUNKS; ++c)
                put_quad(shared, ((c * M::ROWS + r - M::KEPT) * M::THREADS + threadIdx.x) * 4,
                         chunk(matrix, unit, value, (c * M::LANES + place.lane) * 4));
        }
    }

    // The chunk that is used n-th: those with quads in shared memory spread evenly among those without.
    __device__ __forceinline__ static constexpr int chunk_at(int n) {
        const int whole = M::KEPT / M::ROWS, shared = M::CHUNKS - whole;
        const int before = n * shared / M::CHUNKS, after = (n + 1) * shared / M::CHUNKS;
        return CHUNK_ORDER == REGISTERS_FIRST ? n : after > before ? whole + before : n - before;
    }

    // sums[item][value] = this lane's part of M v.
    __device__ __forceinline__ void multiply(SHARED_POINTER(real) v, SHARED_POINTER(real) shared, const Place<M>& place,
                                             real (&sums)[M::ITEMS][M::VALUES]) const {
#pragma unroll
        for (int item = 0; item < M::ITEMS; ++item)
#pragma unroll
            for (int value = 0; value < M::VALUES; ++value) sums[item][value] = 0;
#pragma unroll
        for (int n = 0; n < M::CHUNKS; ++n) {
            const int c = chunk_at(n);
            Quad<real> part[M::SAMPLES];
#pragma unroll
            for (int s = 0; s < M::SAMPLES; ++s) part[s] = quad(v, s * M::PADDED + (c * M::LANES + place.lane) * 4);
#pragma unroll
            for (int r = 0; r < M::ROWS; ++r) {
                const int n_th = c * M::ROWS + r;
                Quad<real> w;
                if (n_th < M::KEPT) {
#pragma unroll
                    for (int e = 0; e < 4; ++e) w.v[e] = kept[(n_th < M::KEPT ? n_th : 0) * 4 + e];
                } else {
                    w = quad(shared, ((n_th - M::KEPT) * M::THREADS + threadIdx.x) * 4);
                }
#pragma unroll
                for (int s = 0; s < M::SAMPLES; ++s)
#pragma unroll
                    for (int e = 0; e < 4; ++e)
                        sums[s * M::UNITS + r / M::VALUES][r % M::VALUES] += w.v[e] * part[s].v[e];
            }
        }
    }
};

// Adds the partial sums of a lane group; afterwards sums[0 ... MINE-1] are the whole sums of this lane's items.
template <class M, int COUNT, int OFFSET>
__device__ __forceinline__ void add_up(real (&sums)[M::ITEMS][M::VALUES], int lane) {
    if constexpr (OFFSET < M::LANES) {
        const bool upper = lane & OFFSET;
        constexpr int HALF = COUNT > 1 ? COUNT / 2 : 1;
#pragma unroll
        for (int item = 0; item < HALF; ++item)
#pragma unroll
            for (int value = 0; value < M::VALUES; ++value) {
                const real low = sums[item][value], high = sums[COUNT > 1 ? item + HALF : item][value];
                const real received = __shfl_xor_sync(0xffffffffu, upper ? low : high, OFFSET);
                sums[item][value] = (upper ? high : low) + received;
            }
        add_up<M, HALF, OFFSET * 2>(sums, lane);
    }
}

// gates holds W x on entry and the activations on return; h and c hold the initial state in their first slot.  Steps'
// gates and c are stored only when `save`, h always; c's last slot always.
extern "C" __global__ void __launch_bounds__(FORWARD_THREADS, 1)
    lstm_persistent_forward(int T, int B, int save, const real* U, const real* bias, real* gates, real* c, real* h) {
    typedef Forward M;
    DYNAMIC_SHARED(real, pool);
    const auto shared_weights = pool;
    const auto vectors = pool + M::SHARED_WEIGHTS;
    const Place<M> place;
    const long long state = (long long)B * H;
    const int first_sample = blockIdx.x * M::SAMPLES;

    Weights<M> weights;
    weights.load(U, place, shared_weights);
    for (int k = threadIdx.x; k < M::VECTOR; k += M::THREADS) {
        const int unit = k % M::PADDED, b = first_sample + k / M::PADDED;
        vectors[k] = unit < H && b < B ? h[(long long)b * H + unit] : real(0);
        vectors[M::VECTOR + k] = 0;
    }

    bool live[M::MINE], writes[M::MINE];
    int at[M::MINE];  // this item's place in a (B, H) slot
    real cell[M::MINE], offset[M::MINE][4], coming[M::MINE][4];
#pragma unroll
    for (int m = 0; m < M::MINE; ++m) {
        const int unit = place.unit(m), b = first_sample + place.sample(m);
        live[m] = unit < H && b < B;
        writes[m] = live[m] && place.owner;
        at[m] = live[m] ? b * H + unit : 0;
        cell[m] = live[m] ? c[at[m]] : real(0);
#pragma unroll
        for (int gate = 0; gate < 4; ++gate) {
            offset[m][gate] = live[m] ? bias[gate * H + unit] : real(0);
            coming[m][gate] = live[m] ? gates[(long long)b * 4 * H + gate * H + unit] : real(0);
        }
    }
    __syncthreads();

    for (int t = 0; t < T; ++t) {
        real a[M::MINE][4];
#pragma unroll
        for (int m = 0; m < M::MINE; ++m)
#pragma unroll
            for (int gate = 0; gate < 4; ++gate) {
                a[m][gate] = coming[m][gate] + offset[m][gate];
                if (live[m] && t + 1 < T)  // fetched a step ahead, so that no step waits for memory
                    coming[m][gate] = gates[(t + 1) * 4 * state + at[m] / H * 4 * H + gate * H + at[m] % H];
            }
        real sums[M::ITEMS][4];
        weights.multiply(vectors + (t & 1) * M::VECTOR, shared_weights, place, sums);
        add_up<M, M::ITEMS, 1>(sums, place.lane);
#pragma unroll
        for (int m = 0; m < M::MINE; ++m) {
            const Gates s = activate(a[m][0] + sums[m][0], a[m][1] + sums[m][1],  // (1)
                                     a[m][2] + sums[m][2], a[m][3] + sums[m][3]);
            cell[m] = s.f * cell[m] + s.i * s.g;      // (4)
            const real h_t = s.o * tanh_of(cell[m]);  // (5)
            if (writes[m]) {
                vectors[((t + 1) & 1) * M::VECTOR + place.sample(m) * M::PADDED + place.unit(m)] = h_t;
                h[(t + 1) * state + at[m]] = h_t;
                if (save || t + 1 == T) c[(t + 1) * state + at[m]] = cell[m];
                if (save) {
                    real* out = gates + t * 4 * state + at[m] / H * 4 * H + at[m] % H;
                    out[0] = s.i;
                    out[H] = s.f;
                    out[2 * H] = s.o;
                    out[3 * H] = s.g;
                }
            }
        }
        __syncthreads();
    }
}

// da of all steps; dh and dc hold the gradient of the final state on entry and, when `state_gradient`, that of the
// initial state on return.  `transposed` is U^T (H, 4H).  da may be the same memory as gates.
extern "C" __global__ void __launch_bounds__(BACKWARD_THREADS, 1)
    lstm_persistent_backward(int T, int B, int has_dy, int state_gradient, const real* transposed, const real* gates,
                             const real* c, const real* dy, real* dh, real* dc, real* da) {
    typedef Backward M;
    DYNAMIC_SHARED(real, pool);
    const auto shared_weights = pool;
    const auto vectors = pool + M::SHARED_WEIGHTS;
    const Place<M> place;
    const long long state = (long long)B * H;
    const int first_sample = blockIdx.x * M::SAMPLES;

    Weights<M> weights;
    weights.load(transposed, place, shared_weights);
    for (int k = threadIdx.x; k < 2 * M::VECTOR; k += M::THREADS) vectors[k] = 0;

    bool live[M::MINE], writes[M::MINE];
    int at[M::MINE], row[M::MINE];  // this item's place in a (B, H) slot, and its gate i in a (B, 4H) one
    real dh_t[M::MINE], dc_t[M::MINE], c_t[M::MINE], tanh_c[M::MINE], c_before[M::MINE], dy_t[M::MINE];
    Gates s[M::MINE];
#pragma unroll
    for (int m = 0; m < M::MINE; ++m) {
        const int unit = place.unit(m), b = first_sample + place.sample(m);
        live[m] = unit < H && b < B;
        writes[m] = live[m] && place.owner;
        at[m] = live[m] ? b * H + unit : 0;
        row[m] = live[m] ? b * 4 * H + unit : 0;
        dh_t[m] = live[m] ? dh[at[m]] : real(0);
        dc_t[m] = live[m] ? dc[at[m]] : real(0);
        c_t[m] = live[m] ? c[T * state + at[m]] : real(0);
        tanh_c[m] = tanh_of(c_t[m]);
        c_before[m] = live[m] ? c[(T - 1) * state + at[m]] : real(0);
        dy_t[m] = live[m] && has_dy ? dy[(T - 1) * state + at[m]] : real(0);
        const real* g = gates + (T - 1) * 4 * state + row[m];
        s[m] = live[m] ? Gates{g[0], g[H], g[2 * H], g[3 * H]} : Gates{0, 0, 0, 0};
    }
    __syncthreads();

    for (int t = T - 1; t >= 0; --t) {
        const auto v = vectors + (t & 1) * M::VECTOR;
#pragma unroll
        for (int m = 0; m < M::MINE; ++m) {
            const Gates d = cell_backward(s[m], tanh_c[m], c_before[m], dh_t[m] + dy_t[m], dc_t[m]);
            if (writes[m]) {
                const auto mine = v + place.sample(m) * M::PADDED + place.unit(m);
                mine[0] = d.i;
                mine[H] = d.f;
                mine[2 * H] = d.o;
                mine[3 * H] = d.g;
                real* out = da + t * 4 * state + row[m];
                out[0] = d.i;
                out[H] = d.f;
                out[2 * H] = d.o;
                out[3 * H] = d.g;
            }
            if (live[m] && t > 0) {  // fetched a step ahead, so that no step waits for memory
                const real* g = gates + (t - 1) * 4 * state + row[m];
                s[m] = {g[0], g[H], g[2 * H], g[3 * H]};
                c_t[m] = c_before[m];
                c_before[m] = c[(t - 1) * state + at[m]];
                dy_t[m] = has_dy ? dy[(t - 1) * state + at[m]] : real(0);
            }
        }
        if (t == 0 && !state_gradient) break;
        __syncthreads();
#pragma unroll
        for (int m = 0; m < M::MINE; ++m) tanh_c[m] = tanh_of(c_t[m]);  // of the step before: here it overlaps the product
        real sums[M::ITEMS][1];
        weights.multiply(v, shared_weights, place, sums);  // undoes (1)
        add_up<M, M::ITEMS, 1>(sums, place.lane);
#pragma unroll
        for (int m = 0; m < M::MINE; ++m) dh_t[m] = sums[m][0];
    }
#pragma unroll
    for (int m = 0; m < M::MINE; ++m)
        if (writes[m] && state_gradient) {
            dh[at[m]] = dh_t[m];
            dc[at[m]] = dc_t[m];
        }
}
