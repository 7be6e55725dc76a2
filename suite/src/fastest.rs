//! Which cipher library serves.

#[cfg(all(feature = "aws-lc-rs", feature = "aes-gcm", target_arch = "x86_64"))]
use super::backend::Cipher;

/// A cipher library that encx can be built with, by the feature of the same name. All give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Crates `aes` and `aes-gcm`, written in Rust; the default.
    AesGcm,
    /// Crate `aws-lc-rs`, written in C and assembly; faster.
    AwsLcRs,
}

/// Tells which cipher library encrypts messages: the fastest of those that were compiled in.
///
/// With both, `aws-lc-rs` encrypts, and on x86-64 crate `aes` still computes the few single blocks of AES that the key
/// commitment takes, because a call into the other library costs more than these do.
///
/// ```
/// println!("encx encrypts with {:?}", encx::suite::backend());
/// ```
#[must_use]
pub const fn backend() -> Backend {
    if cfg!(feature = "aws-lc-rs") {
        Backend::AwsLcRs
    } else {
        Backend::AesGcm
    }
}

/// The cipher library that serves.
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) type Fastest = super::aes_gcm::RustCrypto;

#[cfg(all(feature = "aws-lc-rs", not(all(feature = "aes-gcm", target_arch = "x86_64"))))]
pub(crate) type Fastest = super::aws_lc_rs::AwsLc;

#[cfg(all(feature = "aws-lc-rs", feature = "aes-gcm", target_arch = "x86_64"))]
pub(crate) type Fastest = Both;

/// Messages by AWS-LC, single blocks by crate `aes`. Elsewhere than on x86-64 that crate uses the processor's AES only
/// if it was compiled with special flags.
#[cfg(all(feature = "aws-lc-rs", feature = "aes-gcm", target_arch = "x86_64"))]
#[doc(hidden)]
pub struct Both;

#[cfg(all(feature = "aws-lc-rs", feature = "aes-gcm", target_arch = "x86_64"))]
impl Cipher for Both {
    type Block = <super::aes_gcm::RustCrypto as Cipher>::Block;
    type Gcm = <super::aws_lc_rs::AwsLc as Cipher>::Gcm;
}
