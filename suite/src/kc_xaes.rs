//! KC-XAES-256-GCM under one data key, for other packages.

use std::fmt;

use arc_swap::ArcSwapOption;
use zeroize::{ZeroizeOnDrop, Zeroizing};

use super::epoch::{Epoch, Epochs};
use super::error::{OpenError, SealError};
use super::nonce::NonceSource;
use super::suite_key::{SuiteKey, SuiteOptions};
use crate::ciphertext::Suite;
use crate::key::DataKey;
use crate::memory::{DEEP, wiping_stack};

/// Seals and opens byte strings with KC-XAES-256-GCM under one data key.
///
/// The key is expanded once and wiped on drop. Threads can share it.
///
/// <div class="warning">
///
/// Services want `Crypto`. Here the caller is responsible for the AAD: without one, a sealed value opens wherever an
/// attacker moves it.
///
/// </div>
///
/// ```
/// use encx::kms::DataKey;
/// use encx::suite::{KcXaes256Gcm, OpenError};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let cipher = KcXaes256Gcm::new(&DataKey::generate()?);
/// let sealed = cipher.seal(b"file 7, section 2", b"secret")?;
/// assert_eq!(*cipher.open(b"file 7, section 2", &sealed)?, b"secret");
/// assert_eq!(cipher.open(b"file 7, section 3", &sealed), Err(OpenError::Tag));
///
/// let other = KcXaes256Gcm::new(&DataKey::generate()?);
/// assert_eq!(other.open(b"file 7, section 2", &sealed), Err(OpenError::Commitment));
/// # Ok(())
/// # }
/// ```
pub struct KcXaes256Gcm {
    key: SuiteKey,
    epoch: ArcSwapOption<Epoch>,
}

impl KcXaes256Gcm {
    /// How many bytes longer than its plaintext a sealed message is.
    pub const OVERHEAD: usize = Suite::KcXaes256Gcm.body_overhead();

    /// Expands a data key.
    #[must_use]
    pub fn new(key: &DataKey) -> Self {
        Self {
            // It seals only few keys, so a nonce may be slow.
            key: SuiteKey::new(
                key,
                SuiteOptions {
                    nonces: NonceSource::OperatingSystem,
                    ..SuiteOptions::default()
                },
            ),
            epoch: ArcSwapOption::empty(),
        }
    }

    /// Seals a plaintext under a fresh nonce: `nonce 24 ‖ encrypted plaintext ‖ tag 16 ‖ commitment 32`.
    ///
    /// The AAD is authenticated but not stored: opening needs the same bytes. Frame its parts, so that no two meanings
    /// share one byte string.
    ///
    /// # Errors
    ///
    /// [`SealError::Random`] if the operating system returns no randomness; [`SealError::TooLong`] for a plaintext
    /// longer than [`MAX_PLAINTEXT_LEN`](crate::ciphertext::MAX_PLAINTEXT_LEN).
    pub fn seal(&self, aad: &[u8], plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut sealed = Vec::new();
        let epoch = self.epoch.load();
        let mut epochs = Epochs::new(epoch.as_ref());
        // The plaintexts are keys.
        wiping_stack::<DEEP, _>(|| {
            self.key
                .seal(&mut epochs, Suite::KcXaes256Gcm, aad, plaintext, &mut sealed)
        })?;
        if let Some(begun) = epochs.begun() {
            self.epoch.store(Some(begun));
        }
        Ok(sealed)
    }

    /// Opens a message that [`seal`](Self::seal) returned, given the same AAD.
    ///
    /// # Errors
    ///
    /// Any [`OpenError`]; no byte of the plaintext is then revealed.
    pub fn open(&self, aad: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let epoch = self.epoch.load();
        let opened =
            wiping_stack::<DEEP, _>(|| self.key.open(epoch.as_deref(), Suite::KcXaes256Gcm, aad, sealed))?;
        Ok(Zeroizing::new(opened.into_bytes()))
    }
}

impl ZeroizeOnDrop for KcXaes256Gcm {}

impl fmt::Debug for KcXaes256Gcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KcXaes256Gcm([REDACTED])")
    }
}
