/* One pass over memory: form the newest update, its inner products with the stored ones, and store it.
 *
 * Plain C without the Python API, loaded through ctypes; built where a compiler exists, and optional:
 * ring.py holds the same computation in torch. Products of two floats are exact in double, so the only
 * rounding is that of the sums.
 *
 * A segment is a run of entries of one block that is contiguous both in the parameter's memory and in
 * the ring. Work is cut into chunks of CHUNK entries; every chunk writes its own partial sums, and the
 * caller adds them in chunk order, so the result does not depend on the number of threads.
 */

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 32768
#define TILE 1024 /* a tile of theta, delta and one row stays in the first-level cache */

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("avx512f", "avx2,fma", "default")))
#else
#define CLONES
#endif

typedef struct {
    int64_t n_chunks, n_rows, row_stride, slot, n_sums;
    const void *const *theta;    /* per chunk: address of its first parameter entry */
    const int64_t *offset, *len; /* per chunk: position in the ring, number of entries */
    const int64_t *rows;         /* slots of the stored updates to multiply with */
    void *updates, *snapshot, *decay;
    /* n_chunks x n_sums: rows, <d,d>, <theta,d>, <theta,theta>, zeros, decay rows, <w,d>, <w,w>; and at last,
     * where updates are stored in bfloat16, the squared norm of what rounding took off */
    double *sums;
    int64_t next;
} Job;

/* bfloat16 to nearest, ties to even, NaN kept: what torch does. Its exponents are those of float. */
static inline uint16_t to_half(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)(x != x ? 0x7fc0u : rounded);
}

static inline float from_half(uint16_t x) {
    const uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

#define LOAD(X, HALF) ((HALF) ? (double)from_half((uint16_t)(X)) : (double)(X))

#define DEFINE_CHUNK(NAME, REAL, STORED, HALF)                                                               \
    CLONES static void NAME(const Job *job, int64_t c) {                                                     \
        const REAL *theta = (const REAL *)job->theta[c];                                                     \
        const int64_t off = job->offset[c], len = job->len[c], n_rows = job->n_rows;                         \
        REAL *snap = (REAL *)job->snapshot + off;                                                            \
        STORED *base = (STORED *)job->updates + off;                                                         \
        STORED *dest = base + job->slot * job->row_stride;                                                   \
        REAL *w = job->decay ? (REAL *)job->decay + off : NULL;                                              \
        double *sums = job->sums + c * job->n_sums;                                                          \
        double d[TILE], dw[TILE];                                                                            \
        STORED raw[TILE];                                                                                    \
        for (int64_t lo = 0; lo < len; lo += TILE) {                                                         \
            const int64_t n = len - lo < TILE ? len - lo : TILE;                                             \
            double dd = 0, td = 0, tt = 0, ee = 0;                                                           \
            int64_t zeros = 0;                                                                               \
            _Pragma("omp simd reduction(+ : dd, td, tt, ee, zeros)") for (int64_t i = 0; i < n; i++) {       \
                const REAL t = theta[lo + i];                                                                \
                const REAL u = t - snap[lo + i];                                                             \
                snap[lo + i] = t;                                                                            \
                if (HALF) {                                                                                  \
                    raw[i] = (STORED)to_half((float)u);                                                      \
                    d[i] = (double)from_half((uint16_t)raw[i]);                                              \
                    ee += ((double)u - d[i]) * ((double)u - d[i]);                                           \
                    dd += d[i] * d[i];                                                                       \
                } else {                                                                                     \
                    raw[i] = (STORED)u;                                                                      \
                    d[i] = (double)u;                                                                        \
                    dd += (double)u * (double)u;                                                             \
                }                                                                                            \
                td += (double)t * (double)u;                                                                 \
                tt += (double)t * (double)t;                                                                 \
                zeros += (u == 0);                                                                           \
            }                                                                                                \
            for (int64_t r = 0; r < n_rows; r++) {                                                           \
                const STORED *row = base + job->rows[r] * job->row_stride + lo;                              \
                double s = 0;                                                                                \
                _Pragma("omp simd reduction(+ : s)") for (int64_t i = 0; i < n; i++)                         \
                    s += LOAD(row[i], HALF) * d[i];                                                          \
                sums[r] += s;                                                                                \
            }                                                                                                \
            sums[n_rows] += dd;                                                                              \
            sums[n_rows + 1] += td;                                                                          \
            sums[n_rows + 2] += tt;                                                                          \
            sums[n_rows + 3] += (double)zeros;                                                               \
            if (w) {                                                                                         \
                double wd = 0, ww = 0;                                                                       \
                _Pragma("omp simd reduction(+ : wd, ww)") for (int64_t i = 0; i < n; i++) {                  \
                    dw[i] = (double)w[lo + i];                                                               \
                    w[lo + i] = 0;                                                                           \
                    wd += dw[i] * d[i];                                                                      \
                    ww += dw[i] * dw[i];                                                                     \
                }                                                                                            \
                for (int64_t r = 0; r < n_rows; r++) {                                                       \
                    const STORED *row = base + job->rows[r] * job->row_stride + lo;                          \
                    double s = 0;                                                                            \
                    _Pragma("omp simd reduction(+ : s)") for (int64_t i = 0; i < n; i++)                     \
                        s += LOAD(row[i], HALF) * dw[i];                                                     \
                    sums[n_rows + 4 + r] += s;                                                               \
                }                                                                                            \
                sums[2 * n_rows + 4] += wd;                                                                  \
                sums[2 * n_rows + 5] += ww;                                                                  \
            }                                                                                                \
            if (HALF) sums[job->n_sums - 1] += ee;                                                           \
            /* last: the slot may hold the oldest row, which was needed above */                             \
            memcpy(dest + lo, raw, (size_t)n * sizeof(STORED));                                              \
        }                                                                                                    \
    }

DEFINE_CHUNK(chunk_float, float, float, 0)
DEFINE_CHUNK(chunk_double, double, double, 0)
DEFINE_CHUNK(chunk_float_half, float, uint16_t, 1)
DEFINE_CHUNK(chunk_double_half, double, uint16_t, 1)

typedef struct {
    Job *job;
    int kind;
} Worker;

static void *work(void *argument) {
    const Worker *worker = (const Worker *)argument;
    Job *job = worker->job;
    for (;;) {
        const int64_t c = __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED);
        if (c >= job->n_chunks) return NULL;
        if (worker->kind == 0) chunk_float(job, c);
        else if (worker->kind == 1) chunk_double(job, c);
        else if (worker->kind == 2) chunk_float_half(job, c);
        else chunk_double_half(job, c);
    }
}

int64_t spectraledge_chunk(void) { return CHUNK; }

/* kind: 1 where parameters and snapshot are double, else float; plus 2 where updates are stored in bfloat16.
 * sums must be zeroed by the caller. Returns 0. A thread that cannot be started is simply not used. */
int spectraledge_append(int kind, int64_t n_chunks, const void *const *theta, const int64_t *offset,
                        const int64_t *len, int64_t n_rows, const int64_t *rows, int64_t row_stride, int64_t slot,
                        void *updates, void *snapshot, void *decay, double *sums, int64_t n_sums, int64_t n_threads) {
    Job job = {n_chunks, n_rows, row_stride, slot, n_sums, theta, offset, len, rows, updates, snapshot, decay, sums, 0};
    Worker worker = {&job, kind};
    pthread_t threads[64];
    int64_t started = 0;
    if (n_threads > 64) n_threads = 64;
    if (n_threads > n_chunks) n_threads = n_chunks;
    for (; started < n_threads - 1; started++)
        if (pthread_create(&threads[started], NULL, work, &worker)) break;
    work(&worker);
    for (int64_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
    return 0;
}
