// Causal attention over packed sequences in bf16 (Dao et al. 2022 and 2023), with tensor cores: scores exist one tile at
// a time. Sums and softmax are in f32. D, the width of a head, KEYS and QUERIES, the rows of streamed tiles, and
// DKV_BLOCKS, how many blocks of the gradient of keys and values shall fit a multiprocessor, are defined when this is
// compiled. Nothing is added up by atomics: the same inputs give the same bits.
//
// A block of four warps holds ROWS rows in registers, 16 for each warp, and streams the rows of the other side through
// shared memory. What a tile is, an element of `tiles` says: the first row of its sequence, the sequence's length, and
// the tile's first row within the sequence.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define ROWS 64
#define STRIDE (D + 8) // of a row in shared memory: neighbouring rows lie in other banks

__device__ __forceinline__ void mma(float *c, const u32 *a, u32 b0, u32 b1) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 × 8 matrices, as they stand and transposed; lane i names row i % 8 of matrix i / 8.
__device__ __forceinline__ void load(u32 *r, const u16 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((u32)__cvta_generic_to_shared(row)));
}
__device__ __forceinline__ void load_transposed(u32 *r, const u16 *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((u32)__cvta_generic_to_shared(row)));
}

// Two bf16, the first in the lower half.
__device__ __forceinline__ u32 pair(float low, float high) {
    u32 both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// Sixteen bytes on their way into shared memory; zeros where they are not to be read.
__device__ __forceinline__ void fetch(u16 *to, const u16 *from, bool there) {
    u32 bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :: "r"((u32)__cvta_generic_to_shared(to)), "l"(from), "r"(bytes));
}
__device__ __forceinline__ void fetched() {
    asm volatile("cp.async.wait_all;");
    __syncthreads();
}

// 2ˣ.
__device__ __forceinline__ float power(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

struct Tile {
    u32 start, length, first;
};

// Rows first .. first + N of a sequence on their way into shared memory; zeros behind its end.
template <int N>
__device__ __forceinline__ void stream(u16 *tile, const u16 *from, u32 first, u32 length, u32 stride) {
#pragma unroll
    for (u32 i = threadIdx.x; i < N * D / 8; i += 128) {
        u32 row = i / (D / 8), column = i % (D / 8) * 8;
        bool there = first + row < length;
        fetch(tile + row * STRIDE + column, from + (u64)(there ? first + row : 0) * stride + column, there);
    }
}

// Rows `row` and `row + 8` of a sequence as left operands; zeros behind its end.
__device__ __forceinline__ void hold(u32 a[D / 16][4], const u16 *from, u32 row, u32 length, u32 stride) {
    u32 t = threadIdx.x % 4;
    for (int k = 0; k < D / 16; k++)
        for (int part = 0; part < 4; part++) {
            u32 at = row + part % 2 * 8;
            const u16 *value = from + (u64)at * stride + k * 16 + part / 2 * 8 + 2 * t;
            a[k][part] = at < length ? *(const u32 *)value : 0;
        }
}

// s = a · tileᵀ: [16, N] of a warp.
template <int N>
__device__ __forceinline__ void scores(float s[N / 8][4], const u32 a[D / 16][4], const u16 *tile) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < N / 8; n++) {
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
        const u16 *row = tile + (n * 8 + lane % 8) * STRIDE + lane / 8 * 8;
#pragma unroll
        for (int k = 0; k < D / 32; k++) {
            u32 b[4];
            load(b, row + k * 32);
            mma(s[n], a[2 * k], b[0], b[1]);
            mma(s[n], a[2 * k + 1], b[2], b[3]);
        }
    }
}

// sum += p · tile: [16, N] · [N, D], p in the layout of a result.
template <int N>
__device__ __forceinline__ void add_product(float sum[D / 8][4], const float p[N / 8][4], const u16 *tile) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < N / 16; k++) {
        const float *left = p[2 * k], *right = p[2 * k + 1];
        u32 a[4] = {pair(left[0], left[1]), pair(left[2], left[3]), pair(right[0], right[1]), pair(right[2], right[3])};
        const u16 *row = tile + (k * 16 + lane % 16) * STRIDE + lane / 16 * 8;
#pragma unroll
        for (int n = 0; n < D / 16; n++) {
            u32 b[4];
            load_transposed(b, row + n * 16);
            mma(sum[2 * n], a, b[0], b[1]);
            mma(sum[2 * n + 1], a, b[2], b[3]);
        }
    }
}

// Writes [16, D] times the factors of rows g and g + 8.
__device__ __forceinline__ void put(u16 *to, const float sum[D / 8][4], u32 row, u32 length, u32 stride, float low,
                                    float high) {
    u32 t = threadIdx.x % 4;
    for (int n = 0; n < D / 8; n++) {
        u16 *at = to + (u64)row * stride + n * 8 + 2 * t;
        if (row < length) *(u32 *)at = pair(sum[n][0] * low, sum[n][1] * low);
        if (row + 8 < length) *(u32 *)(at + 8 * (u64)stride) = pair(sum[n][2] * high, sum[n][3] * high);
    }
}

// Of the four lanes that share a row.
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffff, x, 1);
    return x + __shfl_xor_sync(0xffffffff, x, 2);
}
__device__ __forceinline__ float row_most(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}

// Whether a query sees a key, both by their places in the sequence.
__device__ __forceinline__ bool sees(u32 query, u32 key, u32 length, u32 window) {
    return query < length && key <= query && key + window > query;
}

// out = softmax(q · kᵀ · scale) · v, and the logarithms to base 2 of the sums of exponentials, [heads, rows].
// Grid: tiles of queries, heads. `scale` holds log₂ e too.
extern "C" __global__ void __launch_bounds__(128)
    attention(u16 *out, float *log_sums, const u16 *q, const u16 *k, const u16 *v, const Tile *tiles, float scale,
              u32 window, u32 rows, u32 heads, u32 kv_heads) {
    __shared__ __align__(16) u16 key_tile[2][KEYS * STRIDE], value_tile[2][KEYS * STRIDE];
    Tile tile = tiles[gridDim.x - 1 - blockIdx.x]; // the longest rows first
    u32 head = blockIdx.y, kv = head / (heads / kv_heads), stride = heads * D, kv_stride = kv_heads * D;
    q += ((u64)tile.start * heads + head) * D;
    out += ((u64)tile.start * heads + head) * D;
    k += ((u64)tile.start * kv_heads + kv) * D;
    v += ((u64)tile.start * kv_heads + kv) * D;
    u32 lane = threadIdx.x % 32, t = lane % 4, least = tile.first + threadIdx.x / 32 * 16, row = least + lane / 4;
    u32 a[D / 16][4];
    hold(a, q, row, tile.length, stride);
    float sum[D / 8][4] = {}, most[2] = {-1e30f, -1e30f}, total[2] = {0, 0};
    u32 end = min(tile.first + ROWS, tile.length);
    u32 first = tile.first + 1 > window ? (tile.first + 1 - window) / KEYS * KEYS : 0;
    stream<KEYS>(key_tile[0], k, first, tile.length, kv_stride);
    stream<KEYS>(value_tile[0], v, first, tile.length, kv_stride);
    for (u32 at = 0; first < end; first += KEYS, at ^= 1) {
        fetched();
        if (first + KEYS < end) {
            stream<KEYS>(key_tile[at ^ 1], k, first + KEYS, tile.length, kv_stride);
            stream<KEYS>(value_tile[at ^ 1], v, first + KEYS, tile.length, kv_stride);
        }
        float s[KEYS / 8][4];
        scores<KEYS>(s, a, key_tile[at]);
        if (first + KEYS > least + 1 || first + window < least + 16) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (!sees(row + i / 2 * 8, first + n * 8 + 2 * t + i % 2, tile.length, window)) s[n][i] = -1e30f;
        }
        float now[2] = {most[0], most[1]}, own[2] = {0, 0};
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) now[i / 2] = fmaxf(now[i / 2], s[n][i]);
#pragma unroll
        for (int half = 0; half < 2; half++) {
            now[half] = row_most(now[half]);
            float factor = power((most[half] - now[half]) * scale);
            most[half] = now[half];
            total[half] *= factor;
            // A row that sees no key yet has no sum: its exponentials are to be zero, not one.
            now[half] = now[half] < -1e29f ? 1e30f : now[half] * scale;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                sum[n][2 * half] *= factor;
                sum[n][2 * half + 1] *= factor;
            }
        }
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[n][i] = power(s[n][i] * scale - now[i / 2]);
                own[i / 2] += s[n][i];
            }
        for (int half = 0; half < 2; half++) total[half] += row_sum(own[half]);
        add_product<KEYS>(sum, s, value_tile[at]);
    }
    put(out, sum, row, tile.length, stride, 1.0f / total[0], 1.0f / total[1]);
    for (int half = 0; half < 2 && t == 0; half++)
        if (row + half * 8 < tile.length)
            log_sums[(u64)head * rows + tile.start + row + half * 8] = most[half] * scale + log2f(total[half]);
}

// rowsum(dout ∘ out), [heads, rows]: a warp for each row of a head; blocks of (32, 4) threads, grid: rows / 4, heads.
extern "C" __global__ void attention_weights(float *weights, const u16 *out, const u16 *dout, u32 rows, u32 heads) {
    u32 row = blockIdx.x * 4 + threadIdx.y;
    if (row >= rows) return;
    u64 at = ((u64)row * heads + blockIdx.y) * D;
    float own = 0;
    for (u32 i = threadIdx.x; i < D; i += 32)
        own += __uint_as_float((u32)out[at + i] << 16) * __uint_as_float((u32)dout[at + i] << 16);
    for (int step = 16; step > 0; step /= 2) own += __shfl_xor_sync(0xffffffff, own, step);
    if (threadIdx.x == 0) weights[(u64)blockIdx.y * rows + row] = own;
}

// With P = softmax(S), dP = dO · Vᵀ, dS = P ∘ (dP − rowsum(dO ∘ O)): dQ = dS · K · scale. Grid: tiles of queries,
// heads.
extern "C" __global__ void __launch_bounds__(128)
    attention_dq(u16 *dq, const u16 *q, const u16 *k, const u16 *v, const u16 *dout, const float *log_sums,
                 const float *weights, const Tile *tiles, float scale, u32 window, u32 rows, u32 heads, u32 kv_heads) {
    __shared__ __align__(16) u16 key_tile[2][KEYS * STRIDE], value_tile[2][KEYS * STRIDE];
    Tile tile = tiles[gridDim.x - 1 - blockIdx.x];
    u32 head = blockIdx.y, kv = head / (heads / kv_heads), stride = heads * D, kv_stride = kv_heads * D;
    u64 own = ((u64)tile.start * heads + head) * D, theirs = ((u64)tile.start * kv_heads + kv) * D;
    u32 lane = threadIdx.x % 32, t = lane % 4, least = tile.first + threadIdx.x / 32 * 16, row = least + lane / 4;
    u32 a[D / 16][4], da[D / 16][4];
    hold(a, q + own, row, tile.length, stride);
    hold(da, dout + own, row, tile.length, stride);
    float log_sum[2], weight[2], sum[D / 8][4] = {};
    for (int half = 0; half < 2; half++) {
        u64 at = (u64)head * rows + tile.start + min(row + half * 8, tile.length - 1);
        log_sum[half] = log_sums[at];
        weight[half] = weights[at];
    }
    u32 end = min(tile.first + ROWS, tile.length);
    u32 first = tile.first + 1 > window ? (tile.first + 1 - window) / KEYS * KEYS : 0;
    stream<KEYS>(key_tile[0], k + theirs, first, tile.length, kv_stride);
    stream<KEYS>(value_tile[0], v + theirs, first, tile.length, kv_stride);
    for (u32 at = 0; first < end; first += KEYS, at ^= 1) {
        fetched();
        if (first + KEYS < end) {
            stream<KEYS>(key_tile[at ^ 1], k + theirs, first + KEYS, tile.length, kv_stride);
            stream<KEYS>(value_tile[at ^ 1], v + theirs, first + KEYS, tile.length, kv_stride);
        }
        float s[KEYS / 8][4], d[KEYS / 8][4];
        scores<KEYS>(s, a, key_tile[at]);
        scores<KEYS>(d, da, value_tile[at]);
        bool whole = first + KEYS <= least + 1 && first + window >= least + 16;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float p = power(s[n][i] * scale - log_sum[i / 2]);
                s[n][i] = p * (d[n][i] - weight[i / 2]);
            }
        if (!whole) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (!sees(row + i / 2 * 8, first + n * 8 + 2 * t + i % 2, tile.length, window)) s[n][i] = 0;
        }
        add_product<KEYS>(sum, s, key_tile[at]);
    }
    float natural = scale * 0.69314718f;
    put(dq + own, sum, row, tile.length, stride, natural, natural);
}

// dV = Pᵀ · dO and dK = dSᵀ · Q · scale, over all the heads of queries that share them. Grid: tiles of keys, kv_heads.
extern "C" __global__ void __launch_bounds__(128, DKV_BLOCKS)
    attention_dkv(u16 *dk, u16 *dv, const u16 *q, const u16 *k, const u16 *v, const u16 *dout, const float *log_sums,
                  const float *weights, const Tile *tiles, float scale, u32 window, u32 rows, u32 heads, u32 kv_heads) {
    __shared__ __align__(16) u16 query_tile[2][QUERIES * STRIDE], dout_tile[2][QUERIES * STRIDE];
    __shared__ float log_sum[2][QUERIES], weight[2][QUERIES];
    Tile tile = tiles[blockIdx.x];
    u32 kv = blockIdx.y, group = heads / kv_heads, stride = heads * D, kv_stride = kv_heads * D;
    u64 own = ((u64)tile.start * kv_heads + kv) * D;
    u32 lane = threadIdx.x % 32, t = lane % 4, least = tile.first + threadIdx.x / 32 * 16, row = least + lane / 4;
    u32 a[D / 16][4], va[D / 16][4];
    hold(a, k + own, row, tile.length, kv_stride);
    hold(va, v + own, row, tile.length, kv_stride);
    float key_sum[D / 8][4] = {}, value_sum[D / 8][4] = {};
    // The last query that sees a key of the tile; tiles of queries of one head after those of another.
    u64 last = (u64)min(tile.first + ROWS, tile.length) - 1 + window - 1;
    u32 end = last < tile.length ? last + 1 : tile.length, begin = tile.first / QUERIES * QUERIES;
    u32 each = (end - begin + QUERIES - 1) / QUERIES, count = each * group;
    auto prefetch = [&](u32 number, u32 at) {
        u32 head = kv * group + number / each, first = begin + number % each * QUERIES;
        u64 theirs = ((u64)tile.start * heads + head) * D, line = (u64)head * rows + tile.start + first;
        stream<QUERIES>(query_tile[at], q + theirs, first, tile.length, stride);
        stream<QUERIES>(dout_tile[at], dout + theirs, first, tile.length, stride);
        if (threadIdx.x < QUERIES) {
            bool there = first + threadIdx.x < tile.length;
            log_sum[at][threadIdx.x] = there ? log_sums[line + threadIdx.x] : 0;
            weight[at][threadIdx.x] = there ? weights[line + threadIdx.x] : 0;
        }
    };
    prefetch(0, 0);
    for (u32 number = 0, at = 0; number < count; number++, at ^= 1) {
        fetched();
        if (number + 1 < count) prefetch(number + 1, at ^ 1);
        u32 first = begin + number % each * QUERIES;
        float s[QUERIES / 8][4], d[QUERIES / 8][4];
        scores<QUERIES>(s, a, query_tile[at]);
        scores<QUERIES>(d, va, dout_tile[at]);
        bool whole = first + 1 >= least + 16 && first + QUERIES <= tile.length && least + window >= first + QUERIES;
#pragma unroll
        for (int n = 0; n < QUERIES / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                u32 place = n * 8 + 2 * t + i % 2;
                bool seen = whole || sees(first + place, row + i / 2 * 8, tile.length, window);
                s[n][i] = seen ? power(s[n][i] * scale - log_sum[at][place]) : 0;
                d[n][i] = s[n][i] * (d[n][i] - weight[at][place]);
            }
        add_product<QUERIES>(value_sum, s, dout_tile[at]);
        add_product<QUERIES>(key_sum, d, query_tile[at]);
    }
    float natural = scale * 0.69314718f;
    put(dk + own, key_sum, row, tile.length, kv_stride, natural, natural);
    put(dv + own, value_sum, row, tile.length, kv_stride, 1, 1);
}
