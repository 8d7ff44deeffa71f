// Runs CUDA kernels on a CPU, to test them where there is no GPU.
//
// The kernels' own sources are compiled by a C++ compiler with this header in front.  Each thread of a block is a
// fiber; between two barriers the fibers run one after another in an order drawn from a seed, blocks too.  A thread
// that leaves early, barriers reached on different lines, and shuffles that not all lanes reach are errors.
//
// Shared memory is watched word by word: an access that is outside, misaligned, before any write, or that conflicts
// with another thread's access since the last barrier (one of the two a write) is an error, whatever order the threads
// ran in.
#pragma once
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#define __global__
#define __device__
#define __align__(n)
#define __forceinline__ inline
#define __launch_bounds__(...)

struct dim3 {
    unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

inline float __fdividef(float a, float b) { return a / b; }

namespace host {

enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE };

struct Fiber {
    ucontext_t start;
    jmp_buf here;
    char* stack;
    State state;
    bool started;
    dim3 index;
    int line, offset, parity;
};

struct Word {  // the history of one element of shared memory
    int writer, write_epoch, reader, read_epoch;
    bool several_readers;
};

struct Region {
    char* bytes;
    Word* words;
    size_t size;  // in bytes
    int line;     // where a static one is declared
};

constexpr size_t STACK = 256 * 1024;
constexpr int MAX_THREADS = 1024, MAX_STATIC = 16, NOBODY = -1;

static Fiber fibers[MAX_THREADS];
static Region dynamic_region, static_regions[MAX_STATIC];
static int static_count, thread_count, current, epoch;
static unsigned char slots[MAX_THREADS][2][8];
static jmp_buf scheduler;
static char fault[512];
static uint64_t random_state;
static void (*body)(void**);
static void** arguments;

inline uint64_t draw() {  // splitmix64
    uint64_t z = (random_state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

inline void leave(State state) {
    Fiber& self = fibers[current];
    self.state = state;
    if (_setjmp(self.here) == 0) _longjmp(scheduler, 1);
}

template <class... A>
[[noreturn]] inline void fail(const char* format, A... a) {
    if (!fault[0]) {
        int n = snprintf(fault, sizeof fault, "block (%u, %u, %u), thread %d: ", blockIdx.x, blockIdx.y, blockIdx.z,
                         current);
        snprintf(fault + n, sizeof fault - n, format, a...);
    }
    _longjmp(scheduler, 2);
}

inline void barrier(int line) {
    fibers[current].line = line;
    leave(AT_BARRIER);
}

template <class T>
inline T shuffle_xor(unsigned mask, T value, int offset, int line) {
    if (mask != 0xffffffffu) fail("a shuffle (line %d) with a partial mask", line);
    Fiber& self = fibers[current];
    const int parity = self.parity;
    self.parity ^= 1;
    memcpy(slots[current][parity], &value, sizeof value);
    self.line = line;
    self.offset = offset;
    leave(AT_SHUFFLE);
    T received;
    memcpy(&received, slots[current ^ offset][parity], sizeof received);
    return received;
}

inline void note_read(const Region& region, size_t index, size_t limit) {
    if (index >= limit) fail("shared memory read at %zd, of %zu elements", (ssize_t)index, limit);
    Word& w = region.words[index];
    if (w.write_epoch < 0) fail("shared memory read at %zu before anything was written there", index);
    if (w.write_epoch == epoch && w.writer != current)
        fail("race: shared memory read at %zu, written by thread %d with no barrier between", index, w.writer);
    if (w.read_epoch == epoch && w.reader != current) w.several_readers = true;
    if (w.read_epoch != epoch) w.several_readers = false;
    w.reader = current;
    w.read_epoch = epoch;
}

inline void note_write(const Region& region, size_t index, size_t limit) {
    if (index >= limit) fail("shared memory written at %zd, of %zu elements", (ssize_t)index, limit);
    Word& w = region.words[index];
    if (w.write_epoch == epoch && w.writer != current)
        fail("race: shared memory written at %zu, also by thread %d with no barrier between", index, w.writer);
    if (w.read_epoch == epoch && (w.reader != current || w.several_readers))
        fail("race: shared memory written at %zu, read by thread %d with no barrier between", index, w.reader);
    w.writer = current;
    w.write_epoch = epoch;
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

inline void prepare(Region& region, size_t size, int line) {
    if (!region.bytes || region.size != size) {
        free(region.bytes);
        free(region.words);
        region.bytes = static_cast<char*>(malloc(size + 16));
        region.words = static_cast<Word*>(malloc((size / 4 + 1) * sizeof(Word)));
        region.size = size;
    }
    region.line = line;
    memset(region.bytes, 0xff, size);
    for (size_t k = 0; k <= size / 4; ++k) region.words[k] = {NOBODY, -1, NOBODY, -1, false};
}

template <class T>
inline Pointer<T> static_shared(int line, size_t count) {
    for (int k = 0; k < static_count; ++k)
        if (static_regions[k].line == line) return {static_regions[k], 0};
    if (static_count == MAX_STATIC) fail("more than %d shared arrays", MAX_STATIC);
    prepare(static_regions[static_count], count * sizeof(T), line);
    return {static_regions[static_count++], 0};
}

inline void enter() {
    body(arguments);
    fibers[current].state = DONE;
    _longjmp(scheduler, 1);
}

inline void resume(int thread) {
    current = thread;
    Fiber& f = fibers[thread];
    threadIdx = f.index;
    if (f.started) _longjmp(f.here, 1);
    f.started = true;
    setcontext(&f.start);
}

// Lets the lanes of a warp that have all reached the same shuffle go on; true when some did.
inline bool release_warps() {
    bool released = false;
    for (int first = 0; first < thread_count; first += 32) {
        bool all = true;
        const Fiber& lead = fibers[first];
        for (int k = first; k < first + 32; ++k)
            all = all && k < thread_count && fibers[k].state == AT_SHUFFLE && fibers[k].line == lead.line &&
                  fibers[k].offset == lead.offset;
        if (!all) continue;
        for (int k = first; k < first + 32; ++k) fibers[k].state = READY;
        released = true;
    }
    return released;
}

inline bool release_block() {
    for (int k = 0; k < thread_count; ++k)
        if (fibers[k].state != AT_BARRIER || fibers[k].line != fibers[0].line) return false;
    for (int k = 0; k < thread_count; ++k) fibers[k].state = READY;
    ++epoch;
    return true;
}

static int order[MAX_THREADS], ready_count;  // the READY fibers still to run, in a drawn order

inline void collect_ready() {
    ready_count = 0;
    for (int k = 0; k < thread_count; ++k)
        if (fibers[k].state == READY) order[ready_count++] = k;
    for (int k = ready_count - 1; k > 0; --k) {
        const int other = int(draw() % uint64_t(k + 1)), swap = order[k];
        order[k] = order[other];
        order[other] = swap;
    }
}

inline bool run_block(size_t shared_bytes) {
    static_count = 0;
    epoch = 0;
    prepare(dynamic_region, shared_bytes, 0);
    for (int k = 0; k < thread_count; ++k) {
        Fiber& f = fibers[k];
        if (!f.stack) f.stack = static_cast<char*>(malloc(STACK));
        getcontext(&f.start);
        f.start.uc_stack.ss_sp = f.stack;
        f.start.uc_stack.ss_size = STACK;
        f.start.uc_link = nullptr;
        makecontext(&f.start, enter, 0);
        f.state = READY;
        f.started = false;
        f.parity = 0;
        const unsigned row = unsigned(k) / blockDim.x;
        f.index = {unsigned(k) % blockDim.x, row % blockDim.y, row / blockDim.y};
    }
    collect_ready();
    if (_setjmp(scheduler) == 2) return false;
    for (;;) {
        if (ready_count > 0) resume(order[--ready_count]);  // comes back through the jump above
        int finished = 0, waiting = 0;
        for (int k = 0; k < thread_count; ++k) {
            finished += fibers[k].state == DONE;
            if (fibers[k].state != DONE) waiting = k;
        }
        if (finished == thread_count) return true;
        if (!release_warps() && !release_block()) {
            snprintf(fault, sizeof fault,
                     "block (%u, %u, %u): threads wait for others that never come: thread %d at line %d, %d of %d done",
                     blockIdx.x, blockIdx.y, blockIdx.z, waiting, fibers[waiting].line, finished, thread_count);
            return false;
        }
        collect_ready();
    }
}

// All blocks, in a drawn order; null, or what went wrong.
inline const char* launch(void (*kernel)(void**), void** args, const unsigned* grid, const unsigned* block,
                          size_t shared_bytes, uint64_t seed) {
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    thread_count = int(block[0] * block[1] * block[2]);
    body = kernel;
    arguments = args;
    random_state = seed;
    fault[0] = 0;
    ready_count = 0;
    const unsigned count = grid[0] * grid[1] * grid[2];
    unsigned* blocks = static_cast<unsigned*>(malloc(count * sizeof(unsigned)));
    for (unsigned k = 0; k < count; ++k) blocks[k] = k;
    for (unsigned k = count; k-- > 1;) {
        const unsigned other = unsigned(draw() % (k + 1)), swap = blocks[k];
        blocks[k] = blocks[other];
        blocks[other] = swap;
    }
    bool good = true;
    for (unsigned k = 0; k < count && good; ++k) {
        blockIdx = {blocks[k] % grid[0], blocks[k] / grid[0] % grid[1], blocks[k] / grid[0] / grid[1]};
        good = run_block(shared_bytes);
    }
    free(blocks);
    return good ? nullptr : fault;
}

}  // namespace host

#define __syncthreads() host::barrier(__LINE__)
#define __shfl_xor_sync(mask, value, offset) host::shuffle_xor(mask, value, offset, __LINE__)
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
