//! A cached data key that does not encrypt: subkeys are derived from it, one for each index, one for each password.

use std::fmt;
use std::ops::Deref;
use std::sync::OnceLock;

use encx_core::key::{DataKey, Derivation, Subkey};

use crate::cache::key_meta::KeyMeta;

/// How many subkeys a key keeps: one for each index of a context, and there are few.
const MAX_SUBKEYS: usize = 64;

/// The next kept subkey. It stays unchanged until the key is dropped, so a lookup takes no lock.
type NextSubkey = OnceLock<Box<KeptSubkey>>;

/// A data key of usage `index` or `pepper`. Zeroised when its last user drops it, with its subkeys.
pub(crate) struct DerivationKey {
    meta: KeyMeta,
    derivation: Derivation,
    kept: NextSubkey,
}

/// A subkey, and the info that derived it.
struct KeptSubkey {
    info: Box<[u8]>,
    subkey: Subkey,
    next: NextSubkey,
}

impl Deref for DerivationKey {
    type Target = KeyMeta;

    #[inline]
    fn deref(&self) -> &KeyMeta {
        &self.meta
    }
}

impl DerivationKey {
    pub(super) fn new(meta: KeyMeta, key: &DataKey) -> Self {
        Self {
            meta,
            derivation: Derivation::new(key),
            kept: OnceLock::new(),
        }
    }

    /// Derives a subkey for a single use.
    pub(crate) fn derive(&self, info: &[u8]) -> Subkey {
        self.derivation.derive(info)
    }

    /// Calls a function with a subkey, which is derived on first use and kept. If too many are kept, it is derived each
    /// time, which is only slower.
    pub(crate) fn with_subkey<T>(&self, info: &[u8], call: impl FnOnce(&Subkey) -> T) -> T {
        let mut next = &self.kept;
        for _ in 0..MAX_SUBKEYS {
            let kept = next.get_or_init(|| {
                Box::new(KeptSubkey {
                    info: info.into(),
                    subkey: self.derive(info),
                    next: OnceLock::new(),
                })
            });
            if *kept.info == *info {
                return call(&kept.subkey);
            }
            next = &kept.next;
        }
        call(&self.derive(info))
    }
}

impl fmt::Debug for DerivationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DerivationKey")
            .field("meta", &self.meta)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Subkeys beyond the bound are derived each time, to the same bytes.
    #[test]
    fn subkeys_are_kept_up_to_a_bound() {
        let key = DataKey::copy_from(&[1; 32]).unwrap();
        let derivation_key = DerivationKey::new(KeyMeta::for_test(), &key);
        let count = || std::iter::successors(derivation_key.kept.get(), |kept| kept.next.get()).count();
        let whole = |info: &[u8]| derivation_key.with_subkey(info, |subkey| *subkey.expose());
        for _ in 0..2 {
            for number in 0..2 * MAX_SUBKEYS {
                let info = number.to_be_bytes();
                assert_eq!(whole(&info), *derivation_key.derive(&info).expose());
            }
        }
        assert_eq!(count(), MAX_SUBKEYS);
        let at = |info: &[u8]| derivation_key.with_subkey(info, std::ptr::from_ref);
        assert_eq!(at(&3_usize.to_be_bytes()), at(&3_usize.to_be_bytes()));
    }
}
