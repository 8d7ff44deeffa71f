// What all kernels share.  No header is included, so that NVRTC needs no include path; REAL is float or double.
//
// A sample's values lie side by side in memory: x is (T, B, D), h and c are (T+1, B, H) with the initial state first,
// gates and da are (T, B, 4H) in the order i, f, o, g.  Equation numbers are those of lstm_np/cells/lstm.py.

typedef REAL real;

#ifndef SHARED_POINTER  // a checker that runs these kernels on a CPU supplies its own, which watches every access
#define SHARED_POINTER(T) T*
#define VECTOR_ADDRESS(p) (p)
#define STATIC_SHARED(T, name, count) __shared__ __align__(16) T name[count]
#define DYNAMIC_SHARED(T, name)                                      \
    extern __shared__ __align__(16) unsigned char dynamic_storage[]; \
    T* const name = reinterpret_cast<T*>(dynamic_storage)
#endif

constexpr int WARP = 32;

__device__ __forceinline__ float tanh_of(float x) { return tanhf(x); }
__device__ __forceinline__ double tanh_of(double x) { return tanh(x); }
__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ double exp_of(double x) { return exp(x); }
__device__ __forceinline__ float log_of(float x) { return logf(x); }
__device__ __forceinline__ double log_of(double x) { return log(x); }
__device__ __forceinline__ float sqrt_of(float x) { return sqrtf(x); }
__device__ __forceinline__ double sqrt_of(double x) { return sqrt(x); }

// 1 / (1 + exp(-a)): when exp overflows, the quotient is 0, as it should be.  __fdividef errs by 2 units in the last
// place.
__device__ __forceinline__ float sigmoid(float a) { return __fdividef(1.0f, 1.0f + expf(-a)); }
__device__ __forceinline__ double sigmoid(double a) { return 1 / (1 + exp(-a)); }

// Four neighbours in one access; the address must be a multiple of 16 bytes.
template <class T>
struct alignas(16) Quad {
    T v[4];
};

template <class T>
__device__ __forceinline__ Quad<T> quad(const T* p, int i) {
    return *reinterpret_cast<const Quad<T>*>(VECTOR_ADDRESS(p + i));
}

template <class T>
__device__ __forceinline__ void put_quad(T* p, int i, const Quad<T>& q) {
    *reinterpret_cast<Quad<T>*>(VECTOR_ADDRESS(p + i)) = q;
}

template <class T>
__device__ __forceinline__ T sum_over_warp(T value) {
    for (int offset = WARP / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
    return value;
}

// What one unit of one sample must remember of a step, and its derivative.
struct Gates {
    real i, f, o, g;
};

__device__ __forceinline__ Gates activate(real a_i, real a_f, real a_o, real a_g) {
    return {sigmoid(a_i), sigmoid(a_f), sigmoid(a_o), tanh_of(a_g)};  // (2), (3)
}

// da of one unit, and dc of the step before, from dh and dc of this step; tanh_c is tanh(c).
__device__ __forceinline__ Gates cell_backward(const Gates& s, real tanh_c, real c_before, real dh, real& dc) {
    const real d_o = dh * tanh_c;                                   // undoes (5)
    dc += dh * s.o * (real(1) - tanh_c * tanh_c);                   // undoes (5)
    const real d_i = dc * s.g, d_f = dc * c_before, d_g = dc * s.i;  // undoes (4)
    dc *= s.f;                                                      // undoes (4)
    return {d_i * s.i * (real(1) - s.i), d_f * s.f * (real(1) - s.f), d_o * s.o * (real(1) - s.o),  // undoes (2)
            d_g * (real(1) - s.g * s.g)};                           // undoes (3)
}
