//! Chooses the cipher library.

#[cfg(all(feature = "aws-lc-rs", feature = "aes-gcm", target_arch = "x86_64"))]
use super::backend::Cipher;

/// A cipher library with which encx can be built, by the feature of the same name. All give the same bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Backend {
    /// Crates `aes` and `aes-gcm`, written in Rust; the default.
    AesGcm,
    /// Crate `aws-lc-rs`, written in C and assembly; faster.
    AwsLcRs,
}

/// Returns the cipher library that encrypts messages: the fastest of those compiled in.
///
/// With both, `aws-lc-rs` encrypts. On x86-64, crate `aes` still computes the few single AES blocks of the key
/// commitment, because a call into the other library costs more than these blocks.
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

/// The chosen cipher library.
#[cfg(not(feature = "aws-lc-rs"))]
pub(crate) type Fastest = super::aes_gcm::RustCrypto;

#[cfg(all(feature = "aws-lc-rs", not(all(feature = "aes-gcm", target_arch = "x86_64"))))]
pub(crate) type Fastest = super::aws_lc_rs::AwsLc;

#[cfg(all(feature = "aws-lc-rs", feature = "aes-gcm", target_arch = "x86_64"))]
pub(crate) type Fastest = Both;

/// Messages by AWS-LC, single blocks by crate `aes`. On other processors than x86-64 that crate uses AES instructions
/// only if it was compiled with special flags.
#[cfg(all(feature = "aws-lc-rs", feature = "aes-gcm", target_arch = "x86_64"))]
#[doc(hidden)]
pub struct Both;

#[cfg(all(feature = "aws-lc-rs", feature = "aes-gcm", target_arch = "x86_64"))]
impl Cipher for Both {
    type Block = <super::aes_gcm::RustCrypto as Cipher>::Block;
    type Gcm = <super::aws_lc_rs::AwsLc as Cipher>::Gcm;
}
