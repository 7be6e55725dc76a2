//! The cipher libraries, and which of them serves.

use std::sync::OnceLock;

/// A cipher library with which encx can be built, by the feature of the same name. All give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Crate `aes-gcm`, written in Rust; the default.
    #[cfg(feature = "aes-gcm")]
    #[cfg_attr(docsrs, doc(cfg(feature = "aes-gcm")))]
    AesGcm,
    /// Crate `aws-lc-rs`, in C and assembly: the fastest with AVX-512, and on Arm.
    #[cfg(feature = "aws-lc-rs")]
    #[cfg_attr(docsrs, doc(cfg(feature = "aws-lc-rs")))]
    AwsLcRs,
    /// Crate `ring`, in assembly: the fastest with AVX2 and VAES, but without AVX-512.
    #[cfg(feature = "ring")]
    #[cfg_attr(docsrs, doc(cfg(feature = "ring")))]
    Ring,
}

/// What a processor has, as far as it decides which library is the fastest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "other processors have only one of them")
)]
pub(crate) enum Processor {
    /// x86-64 with AVX-512 and VAES: four AES blocks an instruction.
    Avx512,
    /// x86-64 with AVX2 and VAES: two blocks an instruction. AMD Zen 3, Intel Alder Lake.
    Vaes,
    /// x86-64 before VAES, and every other architecture.
    Other,
}

impl Processor {
    fn of_this_machine() -> Self {
        #[cfg(target_arch = "x86_64")]
        {
            use std::arch::is_x86_feature_detected as has;
            if has!("vaes") && has!("vpclmulqdq") {
                if has!("avx512f") && has!("avx512bw") && has!("avx512vl") {
                    return Self::Avx512;
                }
                if has!("avx2") {
                    return Self::Vaes;
                }
            }
        }
        Self::Other
    }
}

impl Backend {
    /// The libraries that were compiled in.
    pub const COMPILED: &'static [Self] = &[
        #[cfg(feature = "aes-gcm")]
        Self::AesGcm,
        #[cfg(feature = "aws-lc-rs")]
        Self::AwsLcRs,
        #[cfg(feature = "ring")]
        Self::Ring,
    ];

    /// Returns the libraries that were compiled in, the fastest first. `benches/backends` measures it.
    pub(crate) const fn fastest_first(processor: Processor) -> &'static [Self] {
        match processor {
            Processor::Vaes => &[
                #[cfg(feature = "ring")]
                Self::Ring,
                #[cfg(feature = "aws-lc-rs")]
                Self::AwsLcRs,
                #[cfg(feature = "aes-gcm")]
                Self::AesGcm,
            ],
            Processor::Avx512 | Processor::Other => &[
                #[cfg(feature = "aws-lc-rs")]
                Self::AwsLcRs,
                #[cfg(feature = "ring")]
                Self::Ring,
                #[cfg(feature = "aes-gcm")]
                Self::AesGcm,
            ],
        }
    }
}

/// Returns the cipher library that encrypts messages: the fastest on this processor of those that were compiled in.
/// `CryptoBuilder::backend` chooses another.
///
/// Single AES blocks, of which the key commitment needs a few, are computed by crate `aes` where it is compiled in,
/// because a call into another library costs more than these blocks.
///
/// ```
/// println!("encx encrypts with {:?}", encx::suite::backend());
/// ```
#[must_use]
pub fn backend() -> Backend {
    *CHOSEN.get_or_init(|| Backend::fastest_first(Processor::of_this_machine())[0])
}

/// Makes this backend serve the whole process, if none does yet: for tests of each. Returns the one that serves.
#[doc(hidden)]
pub fn choose(backend: Backend) -> Backend {
    *CHOSEN.get_or_init(|| backend)
}

static CHOSEN: OnceLock<Backend> = OnceLock::new();
