//! Fused loops over CPU slices for inference, each compiled for AVX-512, AVX2 and the baseline and chosen at run time.

mod attention;
mod exp;
mod norm;
mod pointwise;
mod rope;

pub(crate) use attention::{AttentionShape, attention};
pub(crate) use norm::{layer_norm, rms_norm, softmax_rows};
pub(crate) use pointwise::{activate, gated};
pub(crate) use rope::rotate;

/// Defines a function whose body is compiled anew for each instruction set, so that its loops vectorise as wide as the
/// processor allows without a build-time target.
macro_rules! wide {
    ($(#[$meta:meta])* fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        pub(crate) fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma")]
                fn v4($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                #[target_feature(enable = "avx2,fma")]
                fn v3($($arg: $ty),*) $(-> $ret)? { body($($arg),*) }
                if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512dq") {
                    // SAFETY: the processor has the features that `v4` is compiled for.
                    return unsafe { v4($($arg),*) };
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has the features that `v3` is compiled for.
                    return unsafe { v3($($arg),*) };
                }
            }
            body($($arg),*)
        }
    };
}
pub(crate) use wide;

/// Sum of `f(i)` for i below n, in sixteen lanes: a single running sum does not vectorise.
#[inline(always)]
pub(crate) fn lanes(n: usize, f: impl Fn(usize) -> f32) -> f32 {
    let mut acc = [0.0_f32; 32];
    let whole = n / 32 * 32;
    let mut i = 0;
    while i < whole {
        for (l, a) in acc.iter_mut().enumerate() {
            *a += f(i + l);
        }
        i += 32;
    }
    let mut sum: f32 = acc.iter().sum();
    while i < n {
        sum += f(i);
        i += 1;
    }
    sum
}
