// Causal attention over packed sequences in bf16 (Dao et al. 2022 and 2023), with tensor cores: scores exist one tile at a
// time. Sums and softmax are in f32. D, the width of a head, and KEYS, the rows of a streamed tile, are defined when this
// is compiled. Nothing is added up by atomics: the same inputs give the same bits.
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
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four 8 × 8 matrices, transposed; lane i names row i % 8 of matrix i / 8.
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

struct Tile {
    u32 start, length, first;
};

// Rows first .. first + count of a sequence into shared memory; zeros behind its end.
__device__ __forceinline__ void stream(u16 *tile, const u16 *from, u32 first, u32 length, u32 stride) {
    for (u32 i = threadIdx.x; i < KEYS * D / 8; i += blockDim.x) {
        u32 row = i / (D / 8), column = i % (D / 8) * 8;
        uint4 value = make_uint4(0, 0, 0, 0);
        if (first + row < length) value = *(const uint4 *)(from + (u64)(first + row) * stride + column);
        *(uint4 *)(tile + row * STRIDE + column) = value;
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

// s = a · tileᵀ: [16, KEYS] of a warp.
__device__ __forceinline__ void scores(float s[KEYS / 8][4], const u32 a[D / 16][4], const u16 *tile) {
    u32 g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < KEYS / 8; n++) {
        s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
        const u16 *row = tile + (n * 8 + g) * STRIDE + 2 * t;
#pragma unroll
        for (int k = 0; k < D / 16; k++) mma(s[n], a[k], *(const u32 *)(row + k * 16), *(const u32 *)(row + k * 16 + 8));
    }
}

// sum += p · tile: [16, KEYS] · [KEYS, D], p in the layout of a result.
__device__ __forceinline__ void add_product(float sum[D / 8][4], const float p[KEYS / 8][4], const u16 *tile) {
    u32 lane = threadIdx.x % 32;
#pragma unroll
    for (int k = 0; k < KEYS / 16; k++) {
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
__device__ __forceinline__ void put(u16 *to, const float sum[D / 8][4], u32 row, u32 length, u32 stride, float low, float high) {
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
    __shared__ __align__(16) u16 key_tile[KEYS * STRIDE], value_tile[KEYS * STRIDE];
    Tile tile = tiles[blockIdx.x];
    u32 head = blockIdx.y, kv = head / (heads / kv_heads), stride = heads * D, kv_stride = kv_heads * D;
    q += ((u64)tile.start * heads + head) * D;
    out += ((u64)tile.start * heads + head) * D;
    k += ((u64)tile.start * kv_heads + kv) * D;
    v += ((u64)tile.start * kv_heads + kv) * D;
    u32 lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, row = tile.first + threadIdx.x / 32 * 16 + g;
    u32 a[D / 16][4];
    hold(a, q, row, tile.length, stride);
    float sum[D / 8][4] = {}, most[2] = {-1e30f, -1e30f}, total[2] = {0, 0};
    u32 end = min(tile.first + ROWS, tile.length);
    u32 begin = tile.first + 1 > window ? (tile.first + 1 - window) / KEYS * KEYS : 0;
    for (u32 first = begin; first < end; first += KEYS) {
        __syncthreads();
        stream(key_tile, k, first, tile.length, kv_stride);
        stream(value_tile, v, first, tile.length, kv_stride);
        __syncthreads();
        float s[KEYS / 8][4];
        scores(s, a, key_tile);
        float now[2] = {most[0], most[1]};
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                bool seen = sees(row + i / 2 * 8, first + n * 8 + 2 * t + i % 2, tile.length, window);
                s[n][i] = seen ? s[n][i] * scale : -1e30f;
                now[i / 2] = fmaxf(now[i / 2], s[n][i]);
            }
        float own[2] = {0, 0};
        for (int half = 0; half < 2; half++) {
            now[half] = row_most(now[half]);
            float factor = exp2f(most[half] - now[half]);
            most[half] = now[half];
            total[half] *= factor;
            for (int n = 0; n < D / 8; n++) {
                sum[n][2 * half] *= factor;
                sum[n][2 * half + 1] *= factor;
            }
        }
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                s[n][i] = s[n][i] > -1e29f ? exp2f(s[n][i] - most[i / 2]) : 0;
                own[i / 2] += s[n][i];
            }
        for (int half = 0; half < 2; half++) total[half] += row_sum(own[half]);
        add_product(sum, s, value_tile);
    }
    put(out, sum, row, tile.length, stride, 1.0f / total[0], 1.0f / total[1]);
    for (int half = 0; half < 2 && t == 0; half++)
        if (row + half * 8 < tile.length)
            log_sums[(u64)head * rows + tile.start + row + half * 8] = most[half] + log2f(total[half]);
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

// With P = softmax(S), dP = dO · Vᵀ, dS = P ∘ (dP − rowsum(dO ∘ O)): dQ = dS · K · scale. Grid: tiles of queries, heads.
extern "C" __global__ void __launch_bounds__(128)
    attention_dq(u16 *dq, const u16 *q, const u16 *k, const u16 *v, const u16 *dout, const float *log_sums,
                 const float *weights, const Tile *tiles, float scale, u32 window, u32 rows, u32 heads, u32 kv_heads) {
    __shared__ __align__(16) u16 key_tile[KEYS * STRIDE], value_tile[KEYS * STRIDE];
    Tile tile = tiles[blockIdx.x];
    u32 head = blockIdx.y, kv = head / (heads / kv_heads), stride = heads * D, kv_stride = kv_heads * D;
    u64 own = ((u64)tile.start * heads + head) * D, theirs = ((u64)tile.start * kv_heads + kv) * D;
    u32 lane = threadIdx.x % 32, t = lane % 4, row = tile.first + threadIdx.x / 32 * 16 + lane / 4;
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
    u32 begin = tile.first + 1 > window ? (tile.first + 1 - window) / KEYS * KEYS : 0;
    for (u32 first = begin; first < end; first += KEYS) {
        __syncthreads();
        stream(key_tile, k + theirs, first, tile.length, kv_stride);
        stream(value_tile, v + theirs, first, tile.length, kv_stride);
        __syncthreads();
        float s[KEYS / 8][4], d[KEYS / 8][4];
        scores(s, a, key_tile);
        scores(d, da, value_tile);
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                bool seen = sees(row + i / 2 * 8, first + n * 8 + 2 * t + i % 2, tile.length, window);
                float p = seen ? exp2f(s[n][i] * scale - log_sum[i / 2]) : 0;
                s[n][i] = p * (d[n][i] - weight[i / 2]);
            }
        add_product(sum, s, key_tile);
    }
    float natural = scale * 0.69314718f;
    put(dq + own, sum, row, tile.length, stride, natural, natural);
}

// dV = Pᵀ · dO and dK = dSᵀ · Q · scale, over all the heads of queries that share them. Grid: tiles of keys, kv_heads.
extern "C" __global__ void __launch_bounds__(128)
    attention_dkv(u16 *dk, u16 *dv, const u16 *q, const u16 *k, const u16 *v, const u16 *dout, const float *log_sums,
                  const float *weights, const Tile *tiles, float scale, u32 window, u32 rows, u32 heads, u32 kv_heads) {
    __shared__ __align__(16) u16 query_tile[KEYS * STRIDE], dout_tile[KEYS * STRIDE];
    __shared__ float log_sum[KEYS], weight[KEYS];
    Tile tile = tiles[blockIdx.x];
    u32 kv = blockIdx.y, group = heads / kv_heads, stride = heads * D, kv_stride = kv_heads * D;
    u64 own = ((u64)tile.start * kv_heads + kv) * D;
    u32 lane = threadIdx.x % 32, t = lane % 4, row = tile.first + threadIdx.x / 32 * 16 + lane / 4;
    u32 a[D / 16][4], va[D / 16][4];
    hold(a, k + own, row, tile.length, kv_stride);
    hold(va, v + own, row, tile.length, kv_stride);
    float key_sum[D / 8][4] = {}, value_sum[D / 8][4] = {};
    // The last query that sees a key of the tile.
    u64 last = (u64)min(tile.first + ROWS, tile.length) - 1 + window - 1;
    u32 end = last < tile.length ? last + 1 : tile.length;
    for (u32 head = kv * group; head < (kv + 1) * group; head++) {
        u64 theirs = ((u64)tile.start * heads + head) * D, at = (u64)head * rows + tile.start;
        for (u32 first = tile.first / KEYS * KEYS; first < end; first += KEYS) {
            __syncthreads();
            stream(query_tile, q + theirs, first, tile.length, stride);
            stream(dout_tile, dout + theirs, first, tile.length, stride);
            if (threadIdx.x < KEYS && first + threadIdx.x < tile.length) {
                log_sum[threadIdx.x] = log_sums[at + first + threadIdx.x];
                weight[threadIdx.x] = weights[at + first + threadIdx.x];
            }
            __syncthreads();
            float s[KEYS / 8][4], d[KEYS / 8][4];
            scores(s, a, query_tile);
            scores(d, va, dout_tile);
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    u32 place = n * 8 + 2 * t + i % 2;
                    bool seen = sees(first + place, row + i / 2 * 8, tile.length, window);
                    float p = seen ? exp2f(s[n][i] * scale - log_sum[place]) : 0;
                    s[n][i] = p;
                    d[n][i] = seen ? p * (d[n][i] - weight[place]) : 0;
                }
            add_product(value_sum, s, dout_tile);
            add_product(key_sum, d, query_tile);
        }
    }
    float natural = scale * 0.69314718f;
    put(dk + own, key_sum, row, tile.length, kv_stride, natural, natural);
    put(dv + own, value_sum, row, tile.length, kv_stride, 1, 1);
}
