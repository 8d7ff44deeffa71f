// Latencies of a GPU, in cycles of its own clock: what the launch plan and the model of `machine_code.py` assume.  Each
// kernel times a chain of dependent operations; the result goes to memory, so that nothing of it is left out.

constexpr int CHAIN = 256;

__device__ __forceinline__ void tell(long long begun, long long ended, float value, long long* cycles, float* out) {
    if (threadIdx.x == 0) {
        cycles[0] = ended - begun;
        out[0] = value;
    }
}

extern "C" __global__ void nothing(float* out) {
    if (out[0] != out[0]) out[0] = 0;
}

extern "C" __global__ void multiply_add(float factor, long long* cycles, float* out) {
    float x = factor;
    const long long begun = clock64();
#pragma unroll
    for (int k = 0; k < CHAIN; ++k) x = x * factor + factor;
    tell(begun, clock64(), x, cycles, out);
}

extern "C" __global__ void exponential(float factor, long long* cycles, float* out) {
    float x = factor;
    const long long begun = clock64();
#pragma unroll
    for (int k = 0; k < CHAIN; ++k) x = expf(-x);
    tell(begun, clock64(), x, cycles, out);
}

extern "C" __global__ void shuffle(float factor, long long* cycles, float* out) {
    float x = factor;
    const long long begun = clock64();
#pragma unroll
    for (int k = 0; k < CHAIN; ++k) x = __shfl_xor_sync(0xffffffffu, x, 1) + factor;
    tell(begun, clock64(), x, cycles, out);
}

extern "C" __global__ void barrier(float factor, long long* cycles, float* out) {
    __syncthreads();
    const long long begun = clock64();
#pragma unroll 16
    for (int k = 0; k < CHAIN; ++k) __syncthreads();
    tell(begun, clock64(), factor, cycles, out);
}

// Each element of `next` says where the next one is.
extern "C" __global__ void shared_load(const int* next, int count, long long* cycles, float* out) {
    STATIC_SHARED(int, place, 1024);
    for (int k = threadIdx.x; k < count; k += blockDim.x) place[k] = next[k];
    __syncthreads();
    int at = 0;
    const long long begun = clock64();
#pragma unroll 16
    for (int k = 0; k < CHAIN; ++k) at = place[at];
    tell(begun, clock64(), float(at), cycles, out);
}

extern "C" __global__ void global_load(const int* next, int count, long long* cycles, float* out) {
    int at = 0;
    for (int k = 0; k < CHAIN; ++k) at = next[at];  // the caches that can hold it do, from here on
    const long long begun = clock64();
#pragma unroll 16
    for (int k = 0; k < CHAIN; ++k) at = next[at];
    tell(begun, clock64(), float(at), cycles, out);
}
