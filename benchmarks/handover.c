/* How long a value takes from one core to another and back: see handover.py.

   cc -O2 -pthread handover.c -o handover; ./handover CORE CORE
   Each line on stdin asks, a line with nanoseconds on stdout answers. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { TURNS = 1000, TRIES = 7 };

static _Atomic int turn;

static void stay_on(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    sched_setaffinity(0, sizeof set, &set);
}

static void *answer(void *core) {
    stay_on(*(int *)core);
    for (int n = 0; n < TURNS; n++) {
        while (atomic_load(&turn) != 2 * n + 1)
            ;
        atomic_store(&turn, 2 * n + 2);
    }
    return NULL;
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * t.tv_sec + t.tv_nsec;
}

int main(int argc, char **argv) {
    if (argc != 3)
        return 2;
    int mine = atoi(argv[1]), other = atoi(argv[2]);
    stay_on(mine);
    while (getchar() != EOF) {
        double best = 1e18;
        for (int k = 0; k < TRIES; k++) { /* the fastest: others may use the cores meanwhile */
            double started = 0;
            pthread_t thread;
            turn = 0;
            if (pthread_create(&thread, NULL, answer, &other))
                return 1;
            for (int n = 0; n < TURNS; n++) {
                if (n == 1) /* the thread runs by now */
                    started = now();
                atomic_store(&turn, 2 * n + 1);
                while (atomic_load(&turn) != 2 * n + 2)
                    ;
            }
            double each = (now() - started) / (TURNS - 1);
            best = each < best ? each : best;
            pthread_join(thread, NULL);
        }
        printf("%.1f\n", best);
        fflush(stdout);
    }
    return 0;
}
