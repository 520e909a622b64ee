// Row by row and value by value: activation, rotation, attention over a past, embedding, loss, optimiser. Behind
// common.cuh.

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

// ---- Attention of new tokens over a past, without gradient: a block of eight warps for each query and head, each warp
// with every eighth key. d is a multiple of 32, at most 256.

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

// The gradient of the loss, ∂/∂zᵢ = (pᵢ · (1 + 2 · w · log Z) − [i = target]) · share, and of each row −log p and
// log² Z. `grads` may be `logits`.
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
extern "C" __global__ void loss_sums(double *out, float *loss, const float *nll, const float *square, double first,
                                     double second, u32 rows) {
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

#define FOR_EACH_TYPE(T)                                                                                              \
    extern "C" __global__ void scale_##T(T *x, const float *factor, u64 count) { scale(x, factor, count); }           \
    extern "C" __global__ void sum_##T(T *y, const T *a, const T *b, u64 count) { sum(y, a, b, count); }              \
    extern "C" __global__ void swiglu_##T(T *y, const T *gate, const T *up, u64 count) { swiglu(y, gate, up, count); }\
    extern "C" __global__ void swiglu_grad_##T(T *dgate, T *dup, const T *gate, const T *up, const T *dy, u64 count) {\
        swiglu_grad(dgate, dup, gate, up, dy, count);                                                                 \
    }                                                                                                                 \
    extern "C" __global__ void rope_##T(T *y, const T *x, const float *cos, const float *sin, const u32 *places,      \
                                        float direction, u32 rows, u32 heads, u32 half) {                             \
        rope(y, x, cos, sin, places, direction, rows, heads, half);                                                   \
    }                                                                                                                 \
    extern "C" __global__ void attend_##T(T *out, const T *q, const T *k, const T *v, float scale, u32 window,        \
                                          u32 past, u32 heads, u32 kv_heads, u32 d) {                                 \
        attend(out, q, k, v, scale, window, past, heads, kv_heads, d);                                                \
    }                                                                                                                 \
    extern "C" __global__ void embed_##T(T *y, const float *table, const u32 *ids, u32 d) { embed(y, table, ids, d); }\
    extern "C" __global__ void embed_grad_##T(float *dtable, const T *dy, const u32 *ids, const u32 *starts,          \
                                              const u32 *order, u32 d) {                                              \
        embed_grad(dtable, dy, ids, starts, order, d);                                                                \
    }                                                                                                                 \
    extern "C" __global__ void loss_##T(T *grads, float *nll, float *square, const float *logits, const u32 *targets, \
                                        float z_weight, float share, u32 vocab) {                                     \
        loss(grads, nll, square, logits, targets, z_weight, share, vocab);                                            \
    }

FOR_EACH_TYPE(f32)
FOR_EACH_TYPE(bf16)
