//! Seals and opens bytes under one data key: for KMS providers and key files, not for services.
//!
//! <div class="warning">
//!
//! Services want `Crypto`: it finds the right key, binds each value to its place, and rotates keys. This crate does
//! none of that.
//!
//! </div>
//!
//! [`KcXaes256Gcm`] is [C2SP XAES-256-GCM](https://c2sp.org/XAES-256-GCM) with a key commitment ([ePrint 2025/758]),
//! the AEAD of [`Suite::KcXaes256Gcm`](encx_core::ciphertext::Suite::KcXaes256Gcm):
//!
//! ```text
//! nonce N 24 ‖ encrypted plaintext ‖ tag 16 ‖ commitment 32
//!
//! K1         = CMAC's first subkey (NIST SP 800-38B)
//! Kx         = AES_K("00 01 58 00" ‖ N[0..12] ⊕ K1) ‖ AES_K("00 02 58 00" ‖ N[0..12] ⊕ K1)
//! sealed     = AES-256-GCM under Kx with IV N[12..24]
//! commitment = CMAC_K("XCMT" ‖ N ‖ "00 01 00 01") ‖ CMAC_K("XCMT" ‖ N ‖ "00 01 00 02")
//! ```
//!
//! Nonces are random; their 192 bits let any number of processes share a key without a counter. Some thousand consecutive
//! messages share the first half of their nonces, so that Kx is derived once for all of them; the second half is drawn
//! for each. The commitment depends on key and nonce, not on the AAD, and is compared before anything is decrypted: no
//! message opens under two keys.
//!
//! [ePrint 2025/758]: https://eprint.iacr.org/2025/758
#![cfg_attr(docsrs, feature(doc_cfg))]

use encx_core::{causes, ciphertext, key, memory};

#[cfg(feature = "aes-gcm")]
mod aes_gcm;
#[cfg(feature = "aws-lc-rs")]
mod aws_lc_rs;
mod backend;
mod block;
mod bytes;
mod epoch;
mod error;
mod gcm;
mod kc_xaes;
mod message_key_cache;
mod nonce;
mod opened;
#[cfg(feature = "ring")]
mod ring;
mod suite_key;
mod xaes;

#[doc(hidden)]
pub use self::backend::choose;
pub use self::backend::{Backend, backend};
#[doc(hidden)]
pub use self::epoch::{Epoch, Epochs};
pub use self::error::{OpenError, SealError};
pub use self::kc_xaes::KcXaes256Gcm;
#[doc(hidden)]
pub use self::nonce::NonceSource;
#[doc(hidden)]
pub use self::opened::Opened;
#[doc(hidden)]
pub use self::suite_key::{Batch, SuiteKey, SuiteOptions};

/// The bare ciphers, for comparison in benches.
#[doc(hidden)]
pub mod raw {
    #[cfg(feature = "aes-gcm")]
    pub use ::aes_gcm;
    #[cfg(feature = "aws-lc-rs")]
    pub use ::aws_lc_rs;
    #[cfg(feature = "ring")]
    pub use ::ring;
}

#[cfg(not(any(feature = "aes-gcm", feature = "aws-lc-rs", feature = "ring")))]
compile_error!(
    "encx needs a cipher backend: enable feature `aes-gcm`, which is a default feature, `aws-lc-rs` or `ring`"
);

#[cfg(test)]
mod tests;
