//! Instruction sets, chosen at run time: one generic body is compiled for each of them.

/// A set of vector instructions. Bodies that are generic over it are inlined into functions that enable it.
///
/// Loops over slices vectorise by themselves once [`Simd::mul_add`] is a single instruction; `V` is for code that must
/// keep its values in registers.
pub(crate) trait Simd: Copy {
    /// A register of floats.
    type V: Copy;
    /// Floats in a register.
    const LANES: usize;

    /// `a * b + c`, fused where the set can.
    fn mul_add(a: f32, b: f32, c: f32) -> f32;
    /// All lanes zero.
    ///
    /// # Safety
    /// The processor has the set.
    unsafe fn zero() -> Self::V;
    /// All lanes `x`.
    ///
    /// # Safety
    /// The processor has the set.
    unsafe fn splat(x: f32) -> Self::V;
    /// `LANES` floats.
    ///
    /// # Safety
    /// The processor has the set; `p` is good for that many reads.
    unsafe fn load(p: *const f32) -> Self::V;
    /// Stores all lanes.
    ///
    /// # Safety
    /// The processor has the set; `p` is good for `LANES` writes.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// `a + b`.
    ///
    /// # Safety
    /// The processor has the set.
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`.
    ///
    /// # Safety
    /// The processor has the set.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// Eight rows of eight floats turned: float `j` of row `i` goes to `to + j * stride + i`, in the order of `j`.
    ///
    /// # Safety
    /// The processor has the set; each row is good for eight reads and `to` for `7 * stride + 8` writes.
    unsafe fn turn(rows: [*const f32; 8], to: *mut f32, stride: usize);
    /// `LANES` floats of half precision (IEEE), widened.
    ///
    /// # Safety
    /// The processor has the set; `p` is good for `2 * LANES` reads, and need not be aligned.
    unsafe fn load_f16(p: *const u8) -> Self::V;
    /// `LANES` floats that are the upper halves of 32-bit ones, widened.
    ///
    /// # Safety
    /// As [`Simd::load_f16`].
    unsafe fn load_bf16(p: *const u8) -> Self::V;
    /// `LANES` signed bytes as floats.
    ///
    /// # Safety
    /// The processor has the set; `p` is good for `LANES` reads.
    unsafe fn load_i8(p: *const u8) -> Self::V;
    /// The float of half precision (IEEE) with these bits.
    ///
    /// # Safety
    /// The processor has the set.
    unsafe fn half(bits: u16) -> f32;
    /// Asks for memory that is about to be read or written. Nothing is read yet: any pointer will do.
    fn expect(p: *const f32);
}

/// What every processor has. On 64-bit ARM that is NEON, with fused products.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

impl Simd for Portable {
    type V = [f32; 4];
    const LANES: usize = 4;

    #[inline(always)]
    fn mul_add(a: f32, b: f32, c: f32) -> f32 {
        // Without the instruction `mul_add` is a call into the C library.
        if cfg!(any(target_arch = "aarch64", target_feature = "fma")) { a.mul_add(b, c) } else { a * b + c }
    }
    #[inline(always)]
    unsafe fn zero() -> [f32; 4] {
        [0.0; 4]
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> [f32; 4] {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> [f32; 4] {
        // SAFETY: the caller vouches for four floats at `p`.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: [f32; 4]) {
        // SAFETY: the caller vouches for four floats at `p`.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn add(a: [f32; 4], b: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: [f32; 4], b: [f32; 4], c: [f32; 4]) -> [f32; 4] {
        std::array::from_fn(|i| Self::mul_add(a[i], b[i], c[i]))
    }
    #[inline(always)]
    unsafe fn turn(rows: [*const f32; 8], to: *mut f32, stride: usize) {
        for j in 0..8 {
            for (i, row) in rows.iter().enumerate() {
                // SAFETY: the caller vouches for eight floats of each row and for these places.
                unsafe { *to.add(j * stride + i) = *row.add(j) };
            }
        }
    }
    #[inline(always)]
    unsafe fn load_f16(p: *const u8) -> [f32; 4] {
        // SAFETY: the caller vouches for eight bytes at `p`.
        let bits = unsafe { p.cast::<[[u8; 2]; 4]>().read_unaligned() };
        bits.map(|b| half::f16::from_le_bytes(b).to_f32())
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u8) -> [f32; 4] {
        // SAFETY: the caller vouches for eight bytes at `p`.
        let bits = unsafe { p.cast::<[[u8; 2]; 4]>().read_unaligned() };
        bits.map(|b| f32::from_bits(u32::from(u16::from_le_bytes(b)) << 16))
    }
    #[inline(always)]
    unsafe fn load_i8(p: *const u8) -> [f32; 4] {
        // SAFETY: the caller vouches for four bytes at `p`.
        unsafe { p.cast::<[i8; 4]>().read_unaligned() }.map(f32::from)
    }
    #[inline(always)]
    unsafe fn half(bits: u16) -> f32 {
        half::f16::from_bits(bits).to_f32()
    }
    #[inline(always)]
    fn expect(_: *const f32) {}
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::Simd;

    /// Eight lanes with fused products: Haswell (2013), Zen (2017) and later.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Avx2;

    /// Sixteen lanes: Skylake-SP (2017), Zen 4 (2022) and later.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct Avx512;

    macro_rules! registers {
        (
            $set:ident, $v:ty, $lanes:literal, $zero:ident, $splat:ident, $load:ident, $store:ident, $add:ident, $fma:ident,
            $halves:ident, $f16:ident, $whole:ident, $shift:ident, $floats:ident, $bytes:expr, $numbers:ident
        ) => {
            impl Simd for $set {
                type V = $v;
                const LANES: usize = $lanes;

                #[inline(always)]
                fn mul_add(a: f32, b: f32, c: f32) -> f32 {
                    a.mul_add(b, c)
                }
                #[inline(always)]
                unsafe fn zero() -> $v {
                    // SAFETY: the caller vouches for the set.
                    unsafe { $zero() }
                }
                #[inline(always)]
                unsafe fn splat(x: f32) -> $v {
                    // SAFETY: the caller vouches for the set.
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(p: *const f32) -> $v {
                    // SAFETY: the caller vouches for the set and the memory.
                    unsafe { $load(p) }
                }
                #[inline(always)]
                unsafe fn store(p: *mut f32, v: $v) {
                    // SAFETY: the caller vouches for the set and the memory.
                    unsafe { $store(p, v) }
                }
                #[inline(always)]
                unsafe fn add(a: $v, b: $v) -> $v {
                    // SAFETY: the caller vouches for the set.
                    unsafe { $add(a, b) }
                }
                #[inline(always)]
                unsafe fn fma(a: $v, b: $v, c: $v) -> $v {
                    // SAFETY: the caller vouches for the set.
                    unsafe { $fma(a, b, c) }
                }
                #[inline(always)]
                unsafe fn turn(rows: [*const f32; 8], to: *mut f32, stride: usize) {
                    // SAFETY: the caller vouches for the set, which has AVX, and the memory.
                    unsafe { turn(rows, to, stride) }
                }
                #[inline(always)]
                unsafe fn load_f16(p: *const u8) -> $v {
                    // SAFETY: the caller vouches for the set, with which F16C is found, and the memory.
                    unsafe { $f16($halves(p.cast())) }
                }
                #[inline(always)]
                unsafe fn load_bf16(p: *const u8) -> $v {
                    // SAFETY: the caller vouches for the set and the memory.
                    unsafe { $floats($shift::<16>($whole($halves(p.cast())))) }
                }
                #[inline(always)]
                unsafe fn load_i8(p: *const u8) -> $v {
                    // SAFETY: the caller vouches for the set and the memory.
                    unsafe { $numbers($bytes(p)) }
                }
                #[inline(always)]
                unsafe fn half(bits: u16) -> f32 {
                    // SAFETY: the caller vouches for the set, with which F16C is found.
                    unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(bits.into()))) }
                }
                #[inline(always)]
                fn expect(p: *const f32) {
                    // SAFETY: every 64-bit x86 has the instruction, and it never faults.
                    unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) };
                }
            }
        };
    }

    /// [`Simd::turn`] with eight registers of eight.
    ///
    /// # Safety
    /// As there, on a processor with AVX.
    #[inline(always)]
    unsafe fn turn(rows: [*const f32; 8], to: *mut f32, stride: usize) {
        // SAFETY: the caller vouches for the set and the memory.
        unsafe {
            let r = rows.map(|p| _mm256_loadu_ps(p));
            // Pairs of rows, then fours, then eights.
            let pairs = |a, b| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
            let ((a0, a1), (a2, a3)) = (pairs(r[0], r[1]), pairs(r[2], r[3]));
            let ((a4, a5), (a6, a7)) = (pairs(r[4], r[5]), pairs(r[6], r[7]));
            let fours = |a, b| (_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xEE>(a, b));
            let ((b0, b1), (b2, b3)) = (fours(a0, a2), fours(a1, a3));
            let ((b4, b5), (b6, b7)) = (fours(a4, a6), fours(a5, a7));
            let low = |a, b| _mm256_permute2f128_ps::<0x20>(a, b);
            let high = |a, b| _mm256_permute2f128_ps::<0x31>(a, b);
            let turned = [
                low(b0, b4),
                low(b1, b5),
                low(b2, b6),
                low(b3, b7),
                high(b0, b4),
                high(b1, b5),
                high(b2, b6),
                high(b3, b7),
            ];
            for (j, column) in turned.into_iter().enumerate() {
                _mm256_storeu_ps(to.add(j * stride), column);
            }
        }
    }

    registers!(
        Avx2,
        __m256,
        8,
        _mm256_setzero_ps,
        _mm256_set1_ps,
        _mm256_loadu_ps,
        _mm256_storeu_ps,
        _mm256_add_ps,
        _mm256_fmadd_ps,
        _mm_loadu_si128,
        _mm256_cvtph_ps,
        _mm256_cvtepu16_epi32,
        _mm256_slli_epi32,
        _mm256_castsi256_ps,
        |p: *const u8| _mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast())),
        _mm256_cvtepi32_ps
    );
    registers!(
        Avx512,
        __m512,
        16,
        _mm512_setzero_ps,
        _mm512_set1_ps,
        _mm512_loadu_ps,
        _mm512_storeu_ps,
        _mm512_add_ps,
        _mm512_fmadd_ps,
        _mm256_loadu_si256,
        _mm512_cvtph_ps,
        _mm512_cvtepu16_epi32,
        _mm512_slli_epi32,
        _mm512_castsi512_ps,
        |p: *const u8| _mm512_cvtepi8_epi32(_mm_loadu_si128(p.cast())),
        _mm512_cvtepi32_ps
    );
}

/// The sets that there is code for, the widest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Level {
    /// AVX-512 F, VL, BW and DQ.
    #[cfg(target_arch = "x86_64")]
    Avx512,
    /// AVX2, FMA and F16C, which every processor with AVX2 has.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// What the target always has.
    Portable,
}

/// The environment variable that keeps kernels from wider instructions than it names: `avx512`, `avx2` or `portable`.
const LIMIT: &str = "POMONA_INSTRUCTIONS";

/// The widest instructions that kernels use: those of this processor, or as `POMONA_INSTRUCTIONS` has it.
pub fn instructions() -> &'static str {
    match level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => "AVX-512",
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => "AVX2",
        Level::Portable => std::env::consts::ARCH,
    }
}

/// Whether `POMONA_INSTRUCTIONS` names instructions that this processor has; what is wrong with it, if not. Kernels take it as unset
/// then.
pub fn check_instructions() -> Result<(), String> {
    limited(wanted().as_deref()).map(|_| ())
}

fn wanted() -> Option<String> {
    std::env::var_os(LIMIT).map(|name| name.to_string_lossy().into_owned())
}

/// The widest set up to the one that is named.
fn limited(name: Option<&str>) -> Result<Level, String> {
    let all = Level::all();
    let Some(name) = name.filter(|n| !n.is_empty()) else { return Ok(all[0]) };
    let found = all.iter().find(|l| l.name() == name).copied();
    found.ok_or_else(|| {
        let names: Vec<&str> = all.iter().map(|l| l.name()).collect();
        format!(
            "{LIMIT} is `{name}`; this processor has {}: set it to one of these, or not at all",
            names.join(", ")
        )
    })
}

impl Level {
    /// As the environment variable has it.
    fn name(self) -> &'static str {
        match self {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            Level::Portable => "portable",
        }
    }

    /// The sets of this processor, the widest first.
    pub(crate) fn all() -> Vec<Level> {
        #[allow(unused_mut, reason = "only x86 adds to it")]
        let mut out = vec![Level::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("f16c")
            {
                out.insert(0, Level::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && out[0] == Level::Avx2
            {
                out.insert(0, Level::Avx512);
            }
        }
        out
    }
}

/// The set that kernels run with on this thread.
#[cfg(not(test))]
pub(crate) fn level() -> Level {
    static WIDEST: std::sync::OnceLock<Level> = std::sync::OnceLock::new();
    *WIDEST.get_or_init(|| limited(wanted().as_deref()).unwrap_or_else(|_| Level::all()[0]))
}

#[cfg(test)]
pub(crate) use forced::{level, with};

/// Defines a function whose body, generic over a [`Simd`], is compiled for each set and chosen at run time.
macro_rules! simd {
    ($(#[$meta:meta])* $vis:vis fn $name:ident<$s:ident>($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments, reason = "a loop over slices takes what it reads")]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, reason = "a loop over slices takes what it reads")]
            fn body<$s: $crate::kernels::simd::Simd>($($arg: $ty),*) $(-> $ret)? $body
            match $crate::kernels::simd::level() {
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::simd::Level::Avx512 => {
                    #[target_feature(enable = "avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,f16c")]
                    #[allow(clippy::too_many_arguments, reason = "as the body")]
                    fn run($($arg: $ty),*) $(-> $ret)? { body::<$crate::kernels::simd::Avx512>($($arg),*) }
                    // SAFETY: `level` found the set on this processor.
                    unsafe { run($($arg),*) }
                }
                #[cfg(target_arch = "x86_64")]
                $crate::kernels::simd::Level::Avx2 => {
                    #[target_feature(enable = "avx2,fma,f16c")]
                    #[allow(clippy::too_many_arguments, reason = "as the body")]
                    fn run($($arg: $ty),*) $(-> $ret)? { body::<$crate::kernels::simd::Avx2>($($arg),*) }
                    // SAFETY: `level` found the set on this processor.
                    unsafe { run($($arg),*) }
                }
                $crate::kernels::simd::Level::Portable => body::<$crate::kernels::simd::Portable>($($arg),*),
            }
        }
    };
}
pub(crate) use simd;

/// Tests run the same kernel with each set and each number of threads.
#[cfg(test)]
mod forced {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use std::cell::Cell;

    use super::Level;

    thread_local! {
        static FORCED: Cell<Option<Level>> = const { Cell::new(None) };
    }

    pub(crate) fn level() -> Level {
        FORCED.get().unwrap_or_else(|| Level::all()[0])
    }

    /// Runs `f` with a set on a pool of `threads`.
    pub(crate) fn with<R: Send>(level: Level, threads: usize, f: impl FnOnce() -> R + Send) -> R {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .start_handler(move |_| FORCED.set(Some(level)))
            .build()
            .unwrap();
        pool.install(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_names_a_set_of_the_processor() {
        assert_eq!(limited(None), Ok(Level::all()[0]));
        assert_eq!(limited(Some("")), Ok(Level::all()[0]));
        for level in Level::all() {
            assert_eq!(limited(Some(level.name())), Ok(level));
        }
        let wrong = limited(Some("mmx")).err().unwrap_or_default();
        assert!(wrong.contains("POMONA_INSTRUCTIONS is `mmx`") && wrong.contains("portable"), "{wrong}");
    }
}
