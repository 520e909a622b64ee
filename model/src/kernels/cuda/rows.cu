// Row by row and value by value: norms, activation, rotation, embedding, loss, optimiser. Compiled at run time for the
// device that is there. Values are held as f32 or bf16 (T) and computed with in f32. Every sum is taken in a fixed order,
// so that the same inputs give the same bits.

typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct bf16 {
    u16 bits;
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(bf16 x) { return __uint_as_float((u32)x.bits << 16); }

template <typename T> __device__ __forceinline__ T narrow(float x);
template <> __device__ __forceinline__ float narrow<float>(float x) { return x; }
// To nearest, ties to even.
template <> __device__ __forceinline__ bf16 narrow<bf16>(float x) {
    u32 bits = __float_as_uint(x);
    bits = x == x ? bits + 0x7fff + (bits >> 16 & 1) : 0x7fff0000;
    return {(u16)(bits >> 16)};
}

// Sixteen bytes, which a thread reads and writes at once.
template <typename T> struct alignas(16) Pack {
    static const int SIZE = 16 / sizeof(T);
    T at[16 / sizeof(T)];
};
template <typename T> __device__ __forceinline__ const Pack<T> *packs(const T *x, u64 first) {
    return (const Pack<T> *)(x + first);
}
template <typename T> __device__ __forceinline__ Pack<T> *packs(T *x, u64 first) { return (Pack<T> *)(x + first); }

__device__ __forceinline__ float warp_sum(float x) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffff, x, step);
    return x;
}

__device__ __forceinline__ u64 thread() { return (u64)blockIdx.x * blockDim.x + threadIdx.x; }

// ---- RMSNorm of short rows, and the rotation of heads behind it: `lanes` threads, a power of two up to a warp, hold a row
// in their registers, PARTS packs each. Where `places` are given, a row is a head of query or key, in one pack for each
// lane, and rotated by the angles of table row places[row / heads].

struct Rotation {
    const float *cos, *sin;
    const u32 *places;
    u32 heads;
};

__device__ __forceinline__ float lanes_sum(float x, u32 lanes) {
    for (u32 step = lanes / 2; step > 0; step /= 2) x += __shfl_xor_sync(0xffffffff, x, step);
    return x;
}

// Rotates the values of a lane, whose partners are half the lanes away.
template <int SIZE>
__device__ __forceinline__ void rotate(float *own, const Rotation &by, float direction, u64 row, u32 lane, u32 lanes) {
    u32 half = lanes / 2;
    u64 angles = ((u64)by.places[row / by.heads] * half + lane % half) * SIZE;
    float sign = lane < half ? -direction : direction;
    for (int j = 0; j < SIZE; j++) {
        float other = __shfl_xor_sync(0xffffffff, own[j], half);
        own[j] = own[j] * by.cos[angles + j] + sign * other * by.sin[angles + j];
    }
}

template <typename T, int PARTS>
__device__ __forceinline__ void norm(T *y, const T *x, const float *weight, Rotation by, float eps, u32 rows, u32 d,
                                     u32 lanes) {
    const int SIZE = Pack<T>::SIZE;
    u32 lane = threadIdx.x % lanes;
    u64 own = thread() / lanes, row = own < rows ? own : rows - 1; // all lanes of a warp take part in its sums
    float held[PARTS][SIZE], squares = 0;
    for (int part = 0; part < PARTS; part++) {
        u32 at = part * lanes + lane;
        Pack<T> p = at * SIZE < d ? packs(x, row * d)[at] : Pack<T>{};
        for (int j = 0; j < SIZE; j++) {
            held[part][j] = widen(p.at[j]);
            squares += held[part][j] * held[part][j];
        }
    }
    float scale = 1.0f / sqrtf(lanes_sum(squares, lanes) / d + eps);
    for (int part = 0; part < PARTS; part++) {
        u32 at = part * lanes + lane;
        bool there = at * SIZE < d;
        for (int j = 0; j < SIZE; j++) held[part][j] *= there ? scale * weight[at * SIZE + j] : 0;
        if (PARTS == 1 && by.places) rotate<SIZE>(held[part], by, 1, row, lane, lanes);
        Pack<T> p;
        for (int j = 0; j < SIZE; j++) p.at[j] = narrow<T>(held[part][j]);
        if (there && own < rows) packs(y, row * d)[at] = p;
    }
}

// With s = 1 / √(mean(x²) + eps): dx = s · w · dy − x · s³ · mean(w · dy · x), and of each block Σ dy · x · s, [blocks, d].
template <typename T, int PARTS>
__device__ __forceinline__ void norm_grad(T *dx, float *parts, const T *x, const float *weight, const T *dy, Rotation by,
                                          float eps, u32 rows, u32 d, u32 lanes) {
    const int SIZE = Pack<T>::SIZE;
    __shared__ float shared[256][SIZE];
    u32 lane = threadIdx.x % lanes;
    u64 groups = (u64)gridDim.x * blockDim.x / lanes;
    float dw[PARTS][SIZE] = {};
    for (u64 first = 0; first < rows; first += groups) {
        u64 own = first + thread() / lanes, row = own < rows ? own : rows - 1;
        float held[PARTS][SIZE], grad[PARTS][SIZE], squares = 0, product = 0;
        for (int part = 0; part < PARTS; part++) {
            u32 at = part * lanes + lane;
            bool there = at * SIZE < d;
            Pack<T> p = there ? packs(x, row * d)[at] : Pack<T>{}, g = there ? packs(dy, row * d)[at] : Pack<T>{};
            for (int j = 0; j < SIZE; j++) {
                held[part][j] = widen(p.at[j]);
                grad[part][j] = widen(g.at[j]);
            }
            if (PARTS == 1 && by.places) rotate<SIZE>(grad[part], by, -1, row, lane, lanes);
            for (int j = 0; j < SIZE; j++) {
                squares += held[part][j] * held[part][j];
                if (there) product += held[part][j] * grad[part][j] * weight[at * SIZE + j];
            }
        }
        float scale = 1.0f / sqrtf(lanes_sum(squares, lanes) / d + eps);
        float back = scale * scale * scale * (lanes_sum(product, lanes) / d);
        for (int part = 0; part < PARTS && own < rows; part++) {
            u32 at = part * lanes + lane;
            if (at * SIZE >= d) continue;
            Pack<T> p;
            for (int j = 0; j < SIZE; j++) {
                float value = held[part][j], g = grad[part][j];
                p.at[j] = narrow<T>(scale * weight[at * SIZE + j] * g - back * value);
                dw[part][j] += g * value * scale;
            }
            packs(dx, row * d)[at] = p;
        }
    }
    for (int part = 0; part < PARTS; part++) {
        __syncthreads();
        for (int j = 0; j < SIZE; j++) shared[threadIdx.x][j] = dw[part][j];
        __syncthreads();
        u32 at = part * lanes + lane;
        if (threadIdx.x >= lanes || at * SIZE >= d) continue;
        for (int j = 0; j < SIZE; j++) {
            float total = 0;
            for (u32 group = 0; group < 256 / lanes; group++) total += shared[group * lanes + lane][j];
            parts[(u64)blockIdx.x * d + at * SIZE + j] = total;
        }
    }
}

// ---- RMSNorm of long rows: a warp for each row of d values; blocks of (32, 8) threads.

template <typename T>
__device__ void rms_norm(T *y, const T *x, const float *weight, float eps, u32 rows, u32 d) {
    u32 row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    const Pack<T> *in = packs(x, (u64)row * d);
    Pack<T> *out = packs(y, (u64)row * d);
    float squares = 0;
    for (u32 i = threadIdx.x; i < d / Pack<T>::SIZE; i += 32) {
        Pack<T> p = in[i];
        for (int j = 0; j < Pack<T>::SIZE; j++) squares += widen(p.at[j]) * widen(p.at[j]);
    }
    float scale = 1.0f / sqrtf(warp_sum(squares) / d + eps);
    for (u32 i = threadIdx.x; i < d / Pack<T>::SIZE; i += 32) {
        Pack<T> p = in[i];
        for (int j = 0; j < Pack<T>::SIZE; j++)
            p.at[j] = narrow<T>(widen(p.at[j]) * scale * weight[i * Pack<T>::SIZE + j]);
        out[i] = p;
    }
}

// With s = 1 / √(mean(x²) + eps): dx = s · w · dy − x · s³ · mean(w · dy · x). The factors s are kept for the weight.
template <typename T>
__device__ void rms_norm_dx(T *dx, float *scales, const T *x, const float *weight, const T *dy, float eps, u32 rows, u32 d) {
    u32 row = blockIdx.x * blockDim.y + threadIdx.y;
    if (row >= rows) return;
    const Pack<T> *in = packs(x, (u64)row * d), *up = packs(dy, (u64)row * d);
    Pack<T> *out = packs(dx, (u64)row * d);
    float squares = 0, product = 0;
    for (u32 i = threadIdx.x; i < d / Pack<T>::SIZE; i += 32) {
        Pack<T> p = in[i], g = up[i];
        for (int j = 0; j < Pack<T>::SIZE; j++) {
            float value = widen(p.at[j]);
            squares += value * value;
            product += value * widen(g.at[j]) * weight[i * Pack<T>::SIZE + j];
        }
    }
    float scale = 1.0f / sqrtf(warp_sum(squares) / d + eps);
    float back = scale * scale * scale * (warp_sum(product) / d);
    if (threadIdx.x == 0) scales[row] = scale;
    for (u32 i = threadIdx.x; i < d / Pack<T>::SIZE; i += 32) {
        Pack<T> p = in[i], g = up[i];
        for (int j = 0; j < Pack<T>::SIZE; j++)
            p.at[j] = narrow<T>(scale * weight[i * Pack<T>::SIZE + j] * widen(g.at[j]) - back * widen(p.at[j]));
        out[i] = p;
    }
}

// Adds up what each of the eight rows of threads of a block has of a column.
__device__ __forceinline__ float column_total(float own) {
    __shared__ float parts[8][33];
    parts[threadIdx.y][threadIdx.x] = own;
    __syncthreads();
    float total = 0;
    for (int y = 0; y < 8; y++) total += parts[y][threadIdx.x];
    return total;
}

// dw = Σ dy · x · s over the rows, in gridDim.y parts [gridDim.y, d]; blocks of (32, 8) threads.
template <typename T>
__device__ void rms_norm_dw(float *parts, const float *scales, const T *x, const T *dy, u32 rows, u32 d) {
    u32 column = blockIdx.x * 32 + threadIdx.x;
    float own = 0;
    for (u32 row = blockIdx.y * 8 + threadIdx.y; row < rows && column < d; row += gridDim.y * 8)
        own += widen(dy[(u64)row * d + column]) * widen(x[(u64)row * d + column]) * scales[row];
    float total = column_total(own);
    if (threadIdx.y == 0 && column < d) parts[(u64)blockIdx.y * d + column] = total;
}

// Sums of columns, [rows, d] → [d]; blocks of (32, 8) threads.
extern "C" __global__ void column_sums(float *out, const float *parts, u32 rows, u32 d) {
    u32 column = blockIdx.x * 32 + threadIdx.x;
    float own = 0;
    for (u32 row = threadIdx.y; row < rows && column < d; row += 8) own += parts[(u64)row * d + column];
    float total = column_total(own);
    if (threadIdx.y == 0 && column < d) out[column] = total;
}

// ---- SwiGLU: a pack for each thread.

template <typename T> __device__ void swiglu(T *y, const T *gate, const T *up, u64 count) {
    if (thread() >= count) return;
    Pack<T> g = packs(gate, 0)[thread()], u = packs(up, 0)[thread()];
    for (int j = 0; j < Pack<T>::SIZE; j++) {
        float value = widen(g.at[j]);
        g.at[j] = narrow<T>(value / (1.0f + __expf(-value)) * widen(u.at[j]));
    }
    packs(y, 0)[thread()] = g;
}

template <typename T>
__device__ void swiglu_grad(T *dgate, T *dup, const T *gate, const T *up, const T *dy, u64 count) {
    if (thread() >= count) return;
    Pack<T> g = packs(gate, 0)[thread()], u = packs(up, 0)[thread()], d = packs(dy, 0)[thread()];
    for (int j = 0; j < Pack<T>::SIZE; j++) {
        float value = widen(g.at[j]), grad = widen(d.at[j]);
        float sigmoid = 1.0f / (1.0f + __expf(-value)), silu = value * sigmoid;
        g.at[j] = narrow<T>(grad * widen(u.at[j]) * (sigmoid + silu * (1.0f - sigmoid)));
        u.at[j] = narrow<T>(grad * silu);
    }
    packs(dgate, 0)[thread()] = g;
    packs(dup, 0)[thread()] = u;
}

// ---- Rotation of [rows, heads, 2 · half] by the angles of table row places[row]; a pack of each half for each thread.

template <typename T>
__device__ void rope(T *y, const T *x, const float *cos, const float *sin, const u32 *places, float direction, u32 rows,
                     u32 heads, u32 half) {
    u32 each = half / Pack<T>::SIZE;
    u64 own = thread(), head = own / each;
    u32 i = own % each;
    if (head >= (u64)rows * heads) return;
    u64 angles = (u64)places[head / heads] * half + i * Pack<T>::SIZE;
    Pack<T> a = packs(x, head * 2 * half)[i], b = packs(x, head * 2 * half)[i + each];
    for (int j = 0; j < Pack<T>::SIZE; j++) {
        float c = cos[angles + j], s = sin[angles + j] * direction, one = widen(a.at[j]), two = widen(b.at[j]);
        a.at[j] = narrow<T>(one * c - two * s);
        b.at[j] = narrow<T>(two * c + one * s);
    }
    packs(y, head * 2 * half)[i] = a;
    packs(y, head * 2 * half)[i + each] = b;
}

// ---- Attention of new tokens over a past, without gradient: a block of eight warps for each query and head, each warp with
// every eighth key. d is a multiple of 32, at most 256.

template <typename T>
__device__ void attend(T *out, const T *q, const T *k, const T *v, float scale, u32 window, u32 past, u32 heads,
                       u32 kv_heads, u32 d) {
    __shared__ float most[8], sums[8], values[8][256];
    u32 lane = threadIdx.x % 32, warp = threadIdx.x / 32, parts = d / 32, head = blockIdx.y;
    u32 position = past + blockIdx.x, kv = head / (heads / kv_heads);
    q += ((u64)blockIdx.x * heads + head) * d;
    float query[8], value[8] = {}, largest = -1e30f, sum = 0;
    for (u32 i = 0; i < 8; i++) query[i] = i < parts ? widen(q[i * 32 + lane]) * scale : 0;
    for (u32 key = (position + 1 > window ? position + 1 - window : 0) + warp; key <= position; key += 8) {
        u64 at = ((u64)key * kv_heads + kv) * d + lane;
        float score = 0;
        for (u32 i = 0; i < 8; i++)
            if (i < parts) score += query[i] * widen(k[at + i * 32]);
        score = warp_sum(score);
        float before = largest;
        largest = fmaxf(largest, score);
        float factor = __expf(before - largest), weight = __expf(score - largest);
        sum = sum * factor + weight;
        for (u32 i = 0; i < 8; i++)
            if (i < parts) value[i] = value[i] * factor + weight * widen(v[at + i * 32]);
    }
    if (lane == 0) {
        most[warp] = largest;
        sums[warp] = sum;
    }
    for (u32 i = 0; i < parts; i++) values[warp][i * 32 + lane] = value[i];
    __syncthreads();
    largest = most[0];
    for (int other = 1; other < 8; other++) largest = fmaxf(largest, most[other]);
    for (u32 i = threadIdx.x; i < d; i += blockDim.x) {
        float total = 0, all = 0;
        for (int other = 0; other < 8; other++) {
            float factor = __expf(most[other] - largest);
            total += factor * sums[other];
            all += factor * values[other][i];
        }
        out[((u64)blockIdx.x * heads + head) * d + i] = narrow<T>(all / total);
    }
}

// ---- Embedding: a block for each row, or for each token that occurs.

template <typename T> __device__ void embed(T *y, const float *table, const u32 *ids, u32 d) {
    for (u32 i = threadIdx.x; i < d; i += blockDim.x)
        y[(u64)blockIdx.x * d + i] = narrow<T>(table[(u64)ids[blockIdx.x] * d + i]);
}

// Of the token ids[b], the sum of the rows order[starts[b] .. starts[b + 1]].
template <typename T>
__device__ void embed_grad(float *dtable, const T *dy, const u32 *ids, const u32 *starts, const u32 *order, u32 d) {
    u32 first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
    for (u32 i = threadIdx.x; i < d; i += blockDim.x) {
        float sum = 0;
        for (u32 at = first; at < end; at++) sum += widen(dy[(u64)order[at] * d + i]);
        dtable[(u64)ids[blockIdx.x] * d + i] = sum;
    }
}

// ---- Cross-entropy: a block of 256 threads for each row of logits.

struct Running {
    float most, sum; // Σ exp(x − most)
};

__device__ __forceinline__ Running joined(Running a, Running b) {
    if (b.most > a.most) { Running c = a; a = b; b = c; }
    if (b.sum > 0) a.sum += b.sum * __expf(b.most - a.most);
    return a;
}

// log Σ exp of a row, for all threads of its block.
__device__ float log_z(const float *row, u32 vocab) {
    __shared__ Running shared[8];
    Running own = {__int_as_float(0xff800000), 0}; // −∞
    for (u32 i = threadIdx.x; i < vocab / 4; i += blockDim.x) {
        Pack<float> p = packs(row, 0)[i];
        float most = fmaxf(fmaxf(p.at[0], p.at[1]), fmaxf(p.at[2], p.at[3]));
        if (most > own.most) {
            own.sum *= __expf(own.most - most);
            own.most = most;
        }
        for (int j = 0; j < 4; j++) own.sum += __expf(p.at[j] - own.most);
    }
    for (int step = 16; step > 0; step /= 2) {
        Running other = {__shfl_xor_sync(0xffffffff, own.most, step), __shfl_xor_sync(0xffffffff, own.sum, step)};
        own = joined(own, other);
    }
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = own;
    __syncthreads();
    Running all = shared[0];
    for (int warp = 1; warp < 8; warp++) all = joined(all, shared[warp]);
    return all.most + logf(all.sum);
}

#define IGNORE 0xffffffffu

// Natural log-probability of each row's target; 0 for IGNORE.
extern "C" __global__ void target_log_probs(float *out, const float *logits, const u32 *targets, u32 vocab) {
    const float *row = logits + (u64)blockIdx.x * vocab;
    u32 target = targets[blockIdx.x];
    float z = log_z(row, vocab);
    if (threadIdx.x == 0) out[blockIdx.x] = target == IGNORE ? 0 : row[target] - z;
}

// The gradient of the loss, ∂/∂zᵢ = (pᵢ · (1 + 2 · w · log Z) − [i = target]) · share, and of each row −log p and log² Z.
// `grads` may be `logits`.
template <typename T>
__device__ void loss(T *grads, float *nll, float *square, const float *logits, const u32 *targets, float z_weight,
                     float share, u32 vocab) {
    const float *row = logits + (u64)blockIdx.x * vocab;
    T *out = grads + (u64)blockIdx.x * vocab;
    u32 target = targets[blockIdx.x];
    bool counts = target != IGNORE;
    float z = counts ? log_z(row, vocab) : 0;
    if (threadIdx.x == 0) {
        nll[blockIdx.x] = counts ? z - row[target] : 0;
        square[blockIdx.x] = z * z;
    }
    __syncthreads(); // the target's logit is read before it is written over
    float factor = (1.0f + 2.0f * z_weight * z) * share;
    const int SIZE = Pack<T>::SIZE;
    for (u32 i = threadIdx.x; i < vocab / SIZE; i += blockDim.x) {
        Pack<T> p;
        for (int part = 0; part < SIZE / 4; part++) {
            Pack<float> in = packs(row, 0)[i * (SIZE / 4) + part];
            for (int j = 0; j < 4; j++) {
                u32 id = i * SIZE + part * 4 + j;
                float grad = counts ? __expf(in.at[j] - z) * factor - (id == target ? share : 0) : 0;
                p.at[part * 4 + j] = narrow<T>(grad);
            }
        }
        packs(out, 0)[i] = p;
    }
}

// Sums of two columns times their factors, in f64, and the sum of both; one block of 256 threads.
extern "C" __global__ void loss_sums(double *out, float *loss, const float *nll, const float *square, double first, double second,
                                     u32 rows) {
    __shared__ double parts[2][256];
    double a = 0, b = 0;
    for (u32 i = threadIdx.x; i < rows; i += 256) {
        a += nll[i];
        b += square[i];
    }
    parts[0][threadIdx.x] = a;
    parts[1][threadIdx.x] = b;
    __syncthreads();
    if (threadIdx.x < 2) {
        double sum = 0;
        for (int i = 0; i < 256; i++) sum += parts[threadIdx.x][i];
        parts[threadIdx.x][0] = out[threadIdx.x] = sum * (threadIdx.x == 0 ? first : second);
    }
    __syncthreads();
    if (threadIdx.x == 0) *loss = parts[0][0] + parts[1][0];
}

// ---- Whole tensors.

// Times a number that is on the device, in place.
template <typename T> __device__ void scale(T *x, const float *factor, u64 count) {
    if (thread() >= count) return;
    Pack<T> p = packs(x, 0)[thread()];
    for (int j = 0; j < Pack<T>::SIZE; j++) p.at[j] = narrow<T>(widen(p.at[j]) * *factor);
    packs(x, 0)[thread()] = p;
}

template <typename T> __device__ void sum(T *y, const T *a, const T *b, u64 count) {
    if (thread() >= count) return;
    Pack<T> p = packs(a, 0)[thread()], q = packs(b, 0)[thread()];
    for (int j = 0; j < Pack<T>::SIZE; j++) p.at[j] = narrow<T>(widen(p.at[j]) + widen(q.at[j]));
    packs(y, 0)[thread()] = p;
}

extern "C" __global__ void narrow_all(bf16 *out, const float *in, u64 count) {
    if (thread() * 8 + 7 < count) {
        Pack<float> a = packs(in, 0)[thread() * 2], b = packs(in, 0)[thread() * 2 + 1];
        Pack<bf16> p;
        for (int j = 0; j < 4; j++) {
            p.at[j] = narrow<bf16>(a.at[j]);
            p.at[j + 4] = narrow<bf16>(b.at[j]);
        }
        packs(out, 0)[thread()] = p;
    } else {
        for (u64 i = thread() * 8; i < count; i++) out[i] = narrow<bf16>(in[i]);
    }
}

extern "C" __global__ void add_to(float *sum, const float *values, u64 count) {
    for (u64 i = thread(); i < count; i += (u64)gridDim.x * blockDim.x) sum[i] += values[i];
}

// Sums of squares, one for each block of 256 threads.
extern "C" __global__ void squares(double *out, const float *x, u64 count) {
    __shared__ double warps[8];
    float own = 0;
    for (u64 i = thread(); i < count; i += (u64)gridDim.x * blockDim.x) own += x[i] * x[i];
    double sum = warp_sum(own);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < 8; warp++) sum += warps[warp];
        out[blockIdx.x] = sum;
    }
}

// AdamW (Loshchilov and Hutter 2019, algorithm 2) in place.
extern "C" __global__ void adamw(float *weight, float *first, float *second, const float *gradient, float scale,
                                 float beta1, float beta2, float step_size, float second_correction, float keep,
                                 float epsilon, u64 count) {
    for (u64 i = thread(); i < count; i += (u64)gridDim.x * blockDim.x) {
        float g = gradient[i] * scale;
        float m = beta1 * first[i] + (1.0f - beta1) * g;
        float v = beta2 * second[i] + (1.0f - beta2) * g * g;
        first[i] = m;
        second[i] = v;
        weight[i] = weight[i] * keep - step_size * m / (sqrtf(v / second_correction) + epsilon);
    }
}

#define NORM(T, PARTS)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256)                                                                   \
        norm_##PARTS##_##T(T *y, const T *x, const float *w, const float *cos, const float *sin, const u32 *places,     \
                           u32 heads, float eps, u32 rows, u32 d, u32 lanes) {                                          \
        norm<T, PARTS>(y, x, w, {cos, sin, places, heads}, eps, rows, d, lanes);                                        \
    }                                                                                                                   \
    extern "C" __global__ void __launch_bounds__(256)                                                                   \
        norm_grad_##PARTS##_##T(T *dx, float *parts, const T *x, const float *w, const T *dy, const float *cos,         \
                                const float *sin, const u32 *places, u32 heads, float eps, u32 rows, u32 d,             \
                                u32 lanes) {                                                                            \
        norm_grad<T, PARTS>(dx, parts, x, w, dy, {cos, sin, places, heads}, eps, rows, d, lanes);                       \
    }

#define FOR_EACH_TYPE(T)                                                                                                \
    extern "C" __global__ void rms_norm_##T(T *y, const T *x, const float *w, float eps, u32 rows, u32 d) {             \
        rms_norm(y, x, w, eps, rows, d);                                                                                \
    }                                                                                                                   \
    extern "C" __global__ void rms_norm_dx_##T(T *dx, float *scales, const T *x, const float *w, const T *dy,           \
                                               float eps, u32 rows, u32 d) {                                            \
        rms_norm_dx(dx, scales, x, w, dy, eps, rows, d);                                                                \
    }                                                                                                                   \
    extern "C" __global__ void rms_norm_dw_##T(float *parts, const float *scales, const T *x, const T *dy, u32 rows,    \
                                               u32 d) {                                                                 \
        rms_norm_dw(parts, scales, x, dy, rows, d);                                                                     \
    }                                                                                                                   \
    NORM(T, 1) NORM(T, 2) NORM(T, 3) NORM(T, 4) NORM(T, 8)                                                              \
    extern "C" __global__ void scale_##T(T *x, const float *factor, u64 count) { scale(x, factor, count); }             \
    extern "C" __global__ void sum_##T(T *y, const T *a, const T *b, u64 count) { sum(y, a, b, count); }                \
    extern "C" __global__ void swiglu_##T(T *y, const T *gate, const T *up, u64 count) { swiglu(y, gate, up, count); }  \
    extern "C" __global__ void swiglu_grad_##T(T *dgate, T *dup, const T *gate, const T *up, const T *dy, u64 count) {  \
        swiglu_grad(dgate, dup, gate, up, dy, count);                                                                   \
    }                                                                                                                   \
    extern "C" __global__ void rope_##T(T *y, const T *x, const float *cos, const float *sin, const u32 *places,        \
                                        float direction, u32 rows, u32 heads, u32 half) {                               \
        rope(y, x, cos, sin, places, direction, rows, heads, half);                                                     \
    }                                                                                                                   \
    extern "C" __global__ void attend_##T(T *out, const T *q, const T *k, const T *v, float scale, u32 window,          \
                                          u32 past, u32 heads, u32 kv_heads, u32 d) {                                   \
        attend(out, q, k, v, scale, window, past, heads, kv_heads, d);                                                  \
    }                                                                                                                   \
    extern "C" __global__ void embed_##T(T *y, const float *table, const u32 *ids, u32 d) { embed(y, table, ids, d); }  \
    extern "C" __global__ void embed_grad_##T(float *dtable, const T *dy, const u32 *ids, const u32 *starts,            \
                                              const u32 *order, u32 d) {                                                \
        embed_grad(dtable, dy, ids, starts, order, d);                                                                  \
    }                                                                                                                   \
    extern "C" __global__ void loss_##T(T *grads, float *nll, float *square, const float *logits, const u32 *targets,   \
                                        float z_weight, float share, u32 vocab) {                                       \
        loss(grads, nll, square, logits, targets, z_weight, share, vocab);                                              \
    }

typedef float f32;
FOR_EACH_TYPE(f32)
FOR_EACH_TYPE(bf16)
