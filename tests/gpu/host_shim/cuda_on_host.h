// Runs CUDA kernels on a CPU, to test them where there is no GPU.
//
// The kernels' own sources are compiled by a C++ compiler with this header in front, and linked with runtime.cpp.  Each
// thread of a block is a fiber; between two barriers the fibers run one after another in an order drawn from a seed,
// blocks too.  A thread that leaves early, barriers reached on different lines, and shuffles that not all lanes reach
// are errors.
//
// Memory is watched element by element: an access that is outside, misaligned, before any write, or that conflicts with
// another thread's access (one of the two a write) is an error, whatever order the threads ran in.  In shared memory,
// and in global memory within a block, a barrier ends a conflict; between blocks nothing does.  Shared memory is
// watched through the types below.  Global memory needs no other source text: the compiler, asked to instrument for a
// race detector, calls a function before each access (-fsanitize=thread), and runtime.cpp has these functions.
// Likewise it says where signed integers overflow, as a 32-bit index would (-fsanitize=signed-integer-overflow).
#pragma once
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __align__(n)
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
};
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

inline float __fdividef(float a, float b) { return a / b; }

namespace host {

struct Word;  // the history of one element

struct Region {  // of shared memory
    char* bytes;
    Word* words;
    size_t size;  // in bytes
    int line;     // where a static one is declared
};

extern Region dynamic_region;

[[noreturn]] void fail(const char* format, ...);
void barrier(int line);
void exchange(void* value, size_t size, unsigned mask, int offset, int line);
void note_read(const Region& region, size_t index, size_t limit);
void note_write(const Region& region, size_t index, size_t limit);
Region shared_array(int line, size_t bytes);
const char* launch(void (*kernel)(void**), void** args, const struct Launch* how);
long long clock();

template <class T>
inline T shuffle_xor(unsigned mask, T value, int offset, int line) {
    exchange(&value, sizeof value, mask, offset, line);
    return value;
}

template <class T>
struct Element {
    Region region;
    size_t index;
    size_t limit() const { return region.size / sizeof(T); }
    operator T() const {
        note_read(region, index, limit());
        return reinterpret_cast<T*>(region.bytes)[index];
    }
    T operator=(T value) const {
        note_write(region, index, limit());
        return reinterpret_cast<T*>(region.bytes)[index] = value;
    }
    T operator=(const Element& other) const { return *this = T(other); }
    T operator+=(T value) const { return *this = T(*this) + value; }
};

template <class T>
struct Pointer {  // to shared memory
    Region region;
    long long at;
    Element<T> operator[](long long i) const { return {region, size_t(at + i)}; }
    Pointer operator+(long long i) const { return {region, at + i}; }
};

template <class T>
inline T* aligned(T* p) {  // for an access to four neighbours in global memory
    if (reinterpret_cast<uintptr_t>(p) % 16) fail("misaligned access to global memory");
    return p;
}

template <class T>
inline Pointer<T> static_shared(int line, size_t count) {
    return {shared_array(line, count * sizeof(T)), 0};
}

}  // namespace host

#define __syncthreads() host::barrier(__LINE__)
#define __shfl_xor_sync(mask, value, offset) host::shuffle_xor(mask, value, offset, __LINE__)
#define clock64() host::clock()
#define SHARED_POINTER(T) host::Pointer<T>
#define VECTOR_ADDRESS(p) host::aligned(p)
#define STATIC_SHARED(T, name, count) const host::Pointer<T> name = host::static_shared<T>(__LINE__, count)
#define DYNAMIC_SHARED(T, name) const host::Pointer<T> name = {host::dynamic_region, 0}

template <class T>
struct Quad;

template <class T>
inline Quad<T> quad(host::Pointer<T> p, long long i) {
    if ((p.at + i) * sizeof(T) % 16) host::fail("misaligned access to shared memory at %lld", p.at + i);
    return {{p[i], p[i + 1], p[i + 2], p[i + 3]}};
}

template <class T>
inline void put_quad(host::Pointer<T> p, long long i, const Quad<T>& q) {
    if ((p.at + i) * sizeof(T) % 16) host::fail("misaligned access to shared memory at %lld", p.at + i);
    for (int e = 0; e < 4; ++e) p[i + e] = q.v[e];
}
