// Fibers, their scheduler, and the watch over memory: see cuda_on_host.h.  This file is not instrumented.
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <ucontext.h>

#include "cuda_on_host.h"

dim3 threadIdx, blockIdx, blockDim, gridDim;

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

struct Word {  // who touched an element last, and between which barriers; of shared memory, in this block
    int writer, write_epoch, reader, read_epoch;
    bool several_readers;
};

struct GlobalWord {  // the same of an element of global memory, in the launches of these numbers
    uint32_t write_launch, read_launch;
    uint32_t writer_block, reader_block;
    Word in_block;
    bool several_blocks;
};

struct Watched {  // one allocation in global memory; the same layout as in host_memory.py
    uint64_t start, bytes, guard, item;
    uint8_t* written;     // per element; null: everything counts as written
    GlobalWord* history;  // per element; null: accesses are held against the bounds only
};

struct Launch {  // the same layout as in host_kernels.py
    uint32_t grid[3], block[3];
    uint64_t shared_bytes, seed;
    const Watched* watched;
    uint32_t watched_count, number;
    int64_t only_block;  // -1: all
};

extern "C" const size_t host_word_bytes = sizeof(GlobalWord);

constexpr size_t STACK = 256 * 1024;
constexpr int MAX_THREADS = 1024, MAX_STATIC = 16, NOBODY = -1;

Region dynamic_region;
static Fiber fibers[MAX_THREADS];
static Region static_regions[MAX_STATIC];
static int static_count, thread_count, current, epoch;
static uint32_t block_number;
static unsigned char slots[MAX_THREADS][2][8];
static jmp_buf scheduler;
static char fault[512];
static uint64_t random_state;
static long long ticks;
static void (*body)(void**);
static void** arguments;
static const Launch* how;

static uint64_t draw() {  // splitmix64
    uint64_t z = (random_state += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

static void leave(State state) {
    Fiber& self = fibers[current];
    self.state = state;
    if (_setjmp(self.here) == 0) _longjmp(scheduler, 1);
}

void fail(const char* format, ...) {
    if (!fault[0]) {
        int n = snprintf(fault, sizeof fault, "block (%u, %u, %u), thread %d: ", blockIdx.x, blockIdx.y, blockIdx.z,
                         current);
        va_list values;
        va_start(values, format);
        vsnprintf(fault + n, sizeof fault - n, format, values);
        va_end(values);
    }
    _longjmp(scheduler, 2);
}

void barrier(int line) {
    fibers[current].line = line;
    leave(AT_BARRIER);
}

long long clock() { return ticks += 10; }

void exchange(void* value, size_t size, unsigned mask, int offset, int line) {
    if (mask != 0xffffffffu) fail("a shuffle (line %d) with a partial mask", line);
    Fiber& self = fibers[current];
    const int parity = self.parity;
    self.parity ^= 1;
    memcpy(slots[current][parity], value, size);
    self.line = line;
    self.offset = offset;
    leave(AT_SHUFFLE);
    memcpy(value, slots[current ^ offset][parity], size);
}

// ---- the watch

static void note_read_of(Word& w, const char* where, size_t index) {
    if (w.write_epoch == epoch && w.writer != current)
        fail("race: %s memory read at %zu, written by thread %d with no barrier between", where, index, w.writer);
    if (w.read_epoch == epoch && w.reader != current) w.several_readers = true;
    if (w.read_epoch != epoch) w.several_readers = false;
    w.reader = current;
    w.read_epoch = epoch;
}

static void note_write_of(Word& w, const char* where, size_t index) {
    if (w.write_epoch == epoch && w.writer != current)
        fail("race: %s memory written at %zu, also by thread %d with no barrier between", where, index, w.writer);
    if (w.read_epoch == epoch && (w.reader != current || w.several_readers))
        fail("race: %s memory written at %zu, read by thread %d with no barrier between", where, index, w.reader);
    w.writer = current;
    w.write_epoch = epoch;
}

void note_read(const Region& region, size_t index, size_t limit) {
    if (index >= limit) fail("shared memory read at %zd, of %zu elements", (ssize_t)index, limit);
    if (region.words[index].write_epoch < 0)
        fail("shared memory read at %zu before anything was written there", index);
    note_read_of(region.words[index], "shared", index);
}

void note_write(const Region& region, size_t index, size_t limit) {
    if (index >= limit) fail("shared memory written at %zd, of %zu elements", (ssize_t)index, limit);
    note_write_of(region.words[index], "shared", index);
}

static void note_global(const Watched& memory, size_t index, bool write) {
    const uint32_t now = how->number;
    if (!write && memory.written && !memory.written[index])
        fail("global memory read at %zu before anything was written there", index);
    if (memory.history) {
        GlobalWord& w = memory.history[index];
        if (w.write_launch != now) w.in_block.writer = w.in_block.write_epoch = -1;
        if (w.read_launch != now) {
            w.in_block.reader = w.in_block.read_epoch = -1;
            w.several_blocks = false;
            w.reader_block = block_number;
        }
        if (w.write_launch == now && w.writer_block != block_number)
            fail("race: global memory %s at %zu, written by block %u: blocks have no order",
                 write ? "written" : "read", index, w.writer_block);
        if (write) {
            if (w.read_launch == now && (w.several_blocks || w.reader_block != block_number))
                fail("race: global memory written at %zu, read by block %u: blocks have no order", index,
                     w.reader_block);
            note_write_of(w.in_block, "global", index);
            w.write_launch = now;
            w.writer_block = block_number;
        } else {
            if (w.reader_block != block_number) {
                w.several_blocks = true;
                w.in_block.read_epoch = -1;
            }
            note_read_of(w.in_block, "global", index);
            w.read_launch = now;
            w.reader_block = block_number;
        }
    }
    if (write && memory.written) memory.written[index] = 1;
}

static void touch(uint64_t address, size_t size, bool write) {
    static uint32_t last;
    if (!how) return;
    for (uint32_t k = 0; k < how->watched_count; ++k) {
        const uint32_t which = (last + k) % how->watched_count;
        const Watched& memory = how->watched[which];
        if (address + size <= memory.start - memory.guard || address >= memory.start + memory.bytes + memory.guard)
            continue;
        last = which;
        const char* what = write ? "written" : "read";
        const long long offset = (long long)(address - memory.start), item = (long long)memory.item;
        if (offset < 0 || offset + (long long)size > (long long)memory.bytes)
            fail("global memory %s at %lld, of %zu elements", what, offset / item, size_t(memory.bytes / memory.item));
        if (offset % item || size % memory.item)
            fail("global memory %s at byte %lld, %zu bytes: elements have %lld", what, offset, size, item);
        for (size_t n = 0; n < size / memory.item; ++n) note_global(memory, size_t(offset / item) + n, write);
        return;
    }
}

// ---- blocks and threads

static void prepare(Region& region, size_t size, int line) {
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

Region shared_array(int line, size_t bytes) {
    for (int k = 0; k < static_count; ++k)
        if (static_regions[k].line == line) return static_regions[k];
    if (static_count == MAX_STATIC) fail("more than %d shared arrays", MAX_STATIC);
    prepare(static_regions[static_count], bytes, line);
    return static_regions[static_count++];
}

static void enter() {
    body(arguments);
    fibers[current].state = DONE;
    _longjmp(scheduler, 1);
}

static void resume(int thread) {
    current = thread;
    Fiber& f = fibers[thread];
    threadIdx = f.index;
    if (f.started) _longjmp(f.here, 1);
    f.started = true;
    setcontext(&f.start);
}

// Lets the lanes of a warp that have all reached the same shuffle go on; true when some did.
static bool release_warps() {
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

static bool release_block() {
    for (int k = 0; k < thread_count; ++k)
        if (fibers[k].state != AT_BARRIER || fibers[k].line != fibers[0].line) return false;
    for (int k = 0; k < thread_count; ++k) fibers[k].state = READY;
    ++epoch;
    return true;
}

static int order[MAX_THREADS], ready_count;  // the READY fibers still to run, in a drawn order

static void collect_ready() {
    ready_count = 0;
    for (int k = 0; k < thread_count; ++k)
        if (fibers[k].state == READY) order[ready_count++] = k;
    for (int k = ready_count - 1; k > 0; --k) {
        const int other = int(draw() % uint64_t(k + 1)), swap = order[k];
        order[k] = order[other];
        order[other] = swap;
    }
}

static bool run_block(size_t shared_bytes) {
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
const char* launch(void (*kernel)(void**), void** args, const Launch* given) {
    how = given;
    const uint32_t *grid = given->grid, *block = given->block;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    thread_count = int(block[0] * block[1] * block[2]);
    body = kernel;
    arguments = args;
    random_state = given->seed;
    fault[0] = 0;
    ready_count = 0;
    const bool one = given->only_block >= 0;
    const unsigned count = one ? 1 : grid[0] * grid[1] * grid[2];
    unsigned* blocks = static_cast<unsigned*>(malloc(count * sizeof(unsigned)));
    for (unsigned k = 0; k < count; ++k) blocks[k] = one ? unsigned(given->only_block) : k;
    for (unsigned k = count; k-- > 1;) {
        const unsigned other = unsigned(draw() % (k + 1)), swap = blocks[k];
        blocks[k] = blocks[other];
        blocks[other] = swap;
    }
    bool good = true;
    for (unsigned k = 0; k < count && good; ++k) {
        block_number = blocks[k];
        blockIdx = {blocks[k] % grid[0], blocks[k] / grid[0] % grid[1], blocks[k] / grid[0] / grid[1]};
        good = run_block(given->shared_bytes);
    }
    free(blocks);
    how = nullptr;
    return good ? nullptr : fault;
}

}  // namespace host

// ---- what the compiler calls

#define WATCH(size)                                                                                   \
    void __tsan_read##size(void* p) { host::touch(reinterpret_cast<uint64_t>(p), size, false); }      \
    void __tsan_write##size(void* p) { host::touch(reinterpret_cast<uint64_t>(p), size, true); }      \
    void __tsan_unaligned_read##size(void* p) { host::touch(reinterpret_cast<uint64_t>(p), size, false); } \
    void __tsan_unaligned_write##size(void* p) { host::touch(reinterpret_cast<uint64_t>(p), size, true); }

extern "C" {
WATCH(1)
WATCH(2)
WATCH(4)
WATCH(8)
WATCH(16)
void __tsan_init() {}
void __tsan_read_range(void* p, size_t size) { host::touch(reinterpret_cast<uint64_t>(p), size, false); }
void __tsan_write_range(void* p, size_t size) { host::touch(reinterpret_cast<uint64_t>(p), size, true); }

struct SourcePlace {
    const char* file;
    uint32_t line, column;
};
#define OVERFLOW(name, ...)                                                                            \
    void __ubsan_handle_##name##_overflow(SourcePlace* where, ##__VA_ARGS__) {                         \
        host::fail("a 32-bit integer overflows at %s:%u", where->file, where->line);                   \
    }
OVERFLOW(add, void*, void*)
OVERFLOW(sub, void*, void*)
OVERFLOW(mul, void*, void*)
OVERFLOW(negate, void*)
OVERFLOW(divrem, void*, void*)
}
