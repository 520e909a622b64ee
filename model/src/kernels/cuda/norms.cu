// RMSNorm with its gradient, and the rotation of heads behind it. Behind common.cuh.

// ---- RMSNorm of short rows, and the rotation of heads behind it: `lanes` threads, a power of two up to a warp, hold a
// row in their registers, PARTS packs each. Where `places` are given, a row is a head of query or key, in one pack for
// each lane, and rotated by the angles of table row places[row / heads].

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

// With s = 1 / √(mean(x²) + eps): dx = s · w · dy − x · s³ · mean(w · dy · x), and of each block Σ dy · x · s, [blocks,
// d].
template <typename T, int PARTS>
__device__ __forceinline__ void norm_grad(T *dx, float *parts, const T *x, const float *weight, const T *dy,
                                          Rotation by, float eps, u32 rows, u32 d, u32 lanes) {
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
__device__ void rms_norm_dx(T *dx, float *scales, const T *x, const float *weight, const T *dy, float eps, u32 rows,
                            u32 d) {
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

#define NORM(T, PARTS)                                                                                                \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        norm_##PARTS##_##T(T *y, const T *x, const float *w, const float *cos, const float *sin, const u32 *places,   \
                           u32 heads, float eps, u32 rows, u32 d, u32 lanes) {                                        \
        norm<T, PARTS>(y, x, w, {cos, sin, places, heads}, eps, rows, d, lanes);                                      \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
        norm_grad_##PARTS##_##T(T *dx, float *parts, const T *x, const float *w, const T *dy, const float *cos,       \
                                const float *sin, const u32 *places, u32 heads, float eps, u32 rows, u32 d,           \
                                u32 lanes) {                                                                          \
        norm_grad<T, PARTS>(dx, parts, x, w, dy, {cos, sin, places, heads}, eps, rows, d, lanes);                     \
    }

#define FOR_EACH_TYPE(T)                                                                                              \
    NORM(T, 1) NORM(T, 2) NORM(T, 3) NORM(T, 4) NORM(T, 8)                                                            \
    extern "C" __global__ void rms_norm_##T(T *y, const T *x, const float *w, float eps, u32 rows, u32 d) {           \
        rms_norm(y, x, w, eps, rows, d);                                                                              \
    }                                                                                                                 \
    extern "C" __global__ void rms_norm_dx_##T(T *dx, float *scales, const T *x, const float *w, const T *dy,         \
                                               float eps, u32 rows, u32 d) {                                          \
        rms_norm_dx(dx, scales, x, w, dy, eps, rows, d);                                                              \
    }                                                                                                                 \
    extern "C" __global__ void rms_norm_dw_##T(float *parts, const float *scales, const T *x, const T *dy, u32 rows,  \
                                               u32 d) {                                                               \
        rms_norm_dw(parts, scales, x, dy, rows, d);                                                                   \
    }

FOR_EACH_TYPE(f32)
FOR_EACH_TYPE(bf16)
