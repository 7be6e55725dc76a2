//! The material of a KEK in memory, and the cipher that wraps under it: a test's, not one to keep data under.

use hmac::{Hmac, Mac};
use sha2::Sha256;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::key::{DATA_KEY_LEN, KekId, fill_from_os};
use crate::kms::KmsContext;

pub(super) struct Material {
    pub(super) id: Uuid,
    key: Zeroizing<[u8; 32]>,
}

impl Material {
    pub(super) fn generate() -> Self {
        let mut key = Zeroizing::new([0; 32]);
        let mut id = [0; 16];
        fill_from_os(key.as_mut_slice()).expect("the operating system gives randomness");
        fill_from_os(&mut id).expect("the operating system gives randomness");
        Self {
            id: uuid::Builder::from_random_bytes(id).into_uuid(),
            key,
        }
    }

    #[allow(clippy::unwrap_used, reason = "HMAC has no invalid key length")]
    fn mac(&self, purpose: &[u8]) -> Hmac<Sha256> {
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(self.key.as_slice()).unwrap();
        mac.update(purpose);
        mac
    }

    /// Encrypts or decrypts 32 bytes: one block of HMAC in counter mode, and the nonce never repeats.
    pub(super) fn mask(&self, nonce: &[u8], bytes: &[u8]) -> Zeroizing<[u8; DATA_KEY_LEN]> {
        let mut mac = self.mac(b"mask");
        mac.update(nonce);
        let mut masked = Zeroizing::new(<[u8; DATA_KEY_LEN]>::from(mac.finalize().into_bytes()));
        masked
            .iter_mut()
            .zip(bytes)
            .for_each(|(masked, byte)| *masked ^= byte);
        masked
    }

    pub(super) fn tag(&self, kek: &KekId, body: &[u8], context: &KmsContext) -> Hmac<Sha256> {
        let mut mac = self.mac(b"tag!");
        // Of the three parts only the first and the last vary in length, and the last frames itself.
        mac.update(&(kek.as_str().len() as u64).to_be_bytes());
        mac.update(kek.as_str().as_bytes());
        mac.update(body);
        mac.update(&context.canonical());
        mac
    }
}
