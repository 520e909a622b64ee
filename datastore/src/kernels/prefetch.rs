//! Asking for bytes before they are needed.
#![allow(unsafe_code)] // one instruction without effect on the result

/// Brings the cache lines of `bytes` nearer. Nothing is read; elsewhere than on x86-64 nothing is done.
#[inline(always)]
pub fn prefetch<T>(values: &[T]) {
    #[cfg(target_arch = "x86_64")]
    {
        let start = values.as_ptr().cast::<i8>();
        for offset in (0..size_of_val(values)).step_by(64) {
            // SAFETY: the address lies inside the slice; a prefetch does not fault in any case.
            unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(start.add(offset)) };
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = values;
}
