// What the other kernels begin with. Values are held as f32 or bf16 (T) and computed with in f32. Every sum is taken in
// a fixed order, so that the same inputs give the same bits.

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

typedef float f32;
