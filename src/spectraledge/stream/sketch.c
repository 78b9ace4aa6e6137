/* A linear sketch of a parameter vector in one pass: entry g of a tensor is added, with a sign, to one of m sums.
 *
 * Bucket and sign come from a hash of the tensor's key and of g, the entry's position in the whole tensor, so
 * nothing is stored an entry, and pieces of a tensor sketched apart add up to the sketch of the whole.
 * sketch.py holds the same computation in torch.
 *
 * One hash of 64 bits (splitmix64 as a counter-based generator) serves entries 2j and 2j + 1: of each half the top
 * bits choose the bucket and the lowest the sign.
 */

#include <pthread.h>
#include <stdint.h>
#include <string.h>

#define TILE 1024

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=skylake-avx512", "avx2", "default")))
#else
#define CLONES
#endif

enum { FLOAT32 = 0, FLOAT64 = 1, BFLOAT16 = 2, FLOAT16 = 3 };

/* A record is a pile of n_outer runs of `inner` entries, each contiguous in memory and in the whole tensor. */
typedef struct {
    const void *const *theta;
    const int64_t *dtype, *first, *n_outer, *local_stride, *global_stride, *inner;
    const uint64_t *key;
    const int64_t *task; /* records task[i] to task[i + 1] - 1 belong to task i */
    int64_t n_tasks, log2_size;
    double *tables; /* n_tasks x m */
    double *scalars; /* n_tasks x 2: sum of squares, entries that are not finite */
    int64_t next;
} Sketch;

static inline uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

/* hash[0 .. 2 n_pairs): halves for entries 2 pair, 2 pair + 1, ... */
CLONES static void hash_pairs(uint64_t key, uint64_t pair, int64_t n_pairs, uint32_t *hash) {
    for (int64_t j = 0; j < n_pairs; j++) {
        const uint64_t h = mix(key + (pair + (uint64_t)j) * 0x9e3779b97f4a7c15ULL);
        hash[2 * j] = (uint32_t)h;
        hash[2 * j + 1] = (uint32_t)(h >> 32);
    }
}

static inline double from_float16(uint16_t x) {
    const uint64_t exponent = (x >> 10) & 31u, mantissa = x & 1023u;
    if (exponent == 31) {
        const uint64_t bits = ((uint64_t)(x >> 15) << 63) | 0x7ff0000000000000ULL | (mantissa << 42);
        double special;
        memcpy(&special, &bits, 8);
        return special;
    }
    const uint64_t bits = (1023 - 25 + (exponent ? exponent : 1)) << 52;
    double unit;
    memcpy(&unit, &bits, 8);
    const double value = (double)(mantissa | (exponent ? 1024u : 0u)) * unit;
    return x >> 15 ? -value : value;
}

static void load(const void *theta, int64_t dtype, int64_t at, int64_t n, double *out) {
    if (dtype == FLOAT32) {
        const float *x = (const float *)theta + at;
        for (int64_t i = 0; i < n; i++) out[i] = (double)x[i];
    } else if (dtype == FLOAT64) {
        memcpy(out, (const double *)theta + at, (size_t)n * sizeof(double));
    } else if (dtype == BFLOAT16) {
        const uint16_t *x = (const uint16_t *)theta + at;
        for (int64_t i = 0; i < n; i++) {
            const uint32_t bits = (uint32_t)x[i] << 16;
            float value;
            memcpy(&value, &bits, 4);
            out[i] = (double)value;
        }
    } else {
        const uint16_t *x = (const uint16_t *)theta + at;
        for (int64_t i = 0; i < n; i++) out[i] = from_float16(x[i]);
    }
}

static void sketch_run(const void *theta, int64_t dtype, int64_t at, uint64_t first, int64_t n, uint64_t key,
                       int64_t shift, double *table, double *scalars) {
    double value[TILE];
    uint32_t hash[TILE + 2];
    for (int64_t lo = 0; lo < n; lo += TILE) {
        const int64_t len = n - lo < TILE ? n - lo : TILE;
        const uint64_t g = first + (uint64_t)lo;
        const uint32_t *h = hash + (g & 1u);
        double squares = 0;
        int64_t bad = 0;
        hash_pairs(key, g >> 1, (len + (int64_t)(g & 1u) + 1) / 2, hash);
        load(theta, dtype, at + lo, len, value);
        _Pragma("omp simd reduction(+ : squares, bad)") for (int64_t i = 0; i < len; i++) {
            squares += value[i] * value[i];
            bad += !(value[i] - value[i] == 0);
        }
        for (int64_t i = 0; i < len; i++) {
            uint64_t bits;
            double signed_value;
            memcpy(&bits, &value[i], 8);
            bits ^= (uint64_t)(h[i] & 1u) << 63;
            memcpy(&signed_value, &bits, 8);
            table[h[i] >> shift] += signed_value;
        }
        scalars[0] += squares;
        scalars[1] += (double)bad;
    }
}

static void *work(void *argument) {
    Sketch *s = (Sketch *)argument;
    const int64_t size = (int64_t)1 << s->log2_size, shift = 32 - s->log2_size;
    for (;;) {
        const int64_t i = __atomic_fetch_add(&s->next, 1, __ATOMIC_RELAXED);
        if (i >= s->n_tasks) return NULL;
        for (int64_t r = s->task[i]; r < s->task[i + 1]; r++)
            for (int64_t k = 0; k < s->n_outer[r]; k++)
                sketch_run(s->theta[r], s->dtype[r], k * s->local_stride[r],
                           (uint64_t)(s->first[r] + k * s->global_stride[r]), s->inner[r], s->key[r], shift,
                           s->tables + i * size, s->scalars + 2 * i);
    }
}

/* tables and scalars must be zeroed by the caller. Returns 0. A thread that cannot be started is not used. */
int spectraledge_sketch(int64_t n_tasks, const int64_t *task, const void *const *theta, const int64_t *dtype,
                        const uint64_t *key, const int64_t *first, const int64_t *n_outer,
                        const int64_t *local_stride, const int64_t *global_stride, const int64_t *inner,
                        int64_t log2_size, double *tables, double *scalars, int64_t n_threads) {
    Sketch s = {theta, dtype, first, n_outer, local_stride, global_stride, inner, key, task,
                n_tasks, log2_size, tables, scalars, 0};
    pthread_t threads[64];
    int64_t started = 0;
    if (n_threads > 64) n_threads = 64;
    if (n_threads > n_tasks) n_threads = n_tasks;
    for (; started < n_threads - 1; started++)
        if (pthread_create(&threads[started], NULL, work, &s)) break;
    work(&s);
    for (int64_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
    return 0;
}
